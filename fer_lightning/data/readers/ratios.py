"""The settings of sources that leave splits open: the parts to split off, and the seed."""

from fer_lightning.core.errors import FERError


def check_ratios(val_ratio: float, test_ratio: float, split_seed: int) -> None:
    """Refuse ratios outside [0, 1) or with a sum of 1 or more, and a seed that is no whole number."""
    for key, value in (("val_ratio", val_ratio), ("test_ratio", test_ratio), ("split_seed", split_seed)):
        whole = key == "split_seed"
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            expected = "a whole number" if whole else "a number in [0, 1)"
            raise FERError(f"data.source.{key}={value}: expected {expected}")
    if min(val_ratio, test_ratio) < 0 or val_ratio + test_ratio >= 1:
        raise FERError(
            f"data.source.val_ratio={val_ratio}, data.source.test_ratio={test_ratio}: expected "
            "numbers of at least 0 with a sum below 1"
        )
