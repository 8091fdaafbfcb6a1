"""The settings that limit a run to part of its images, so that its numbers are not results."""

from collections.abc import Mapping
from typing import Any

# The split whose batches each setting limits.
_LIMITED = {
    "limit_train_batches": "train",
    "limit_val_batches": "val",
    "limit_predict_batches": "test",
    "limit_test_batches": "test",
}


def limits_of(
    trainer: Mapping[str, Any], num_batches: Mapping[str, int] | None = None, *, option: object = None
) -> list[str]:
    """List the settings by which a run leaves out images of a split.

    Args:
        trainer: The plain trainer node.
        num_batches: The batches of ``train``, ``val`` and ``test``; a limit that is at least as large leaves
            nothing out. Without it every number of batches counts as a limit.
        option: The option of the group ``trainer``; ``smoke`` is named.

    Returns:
        Such as ``["trainer=smoke", "trainer.limit_train_batches=5"]``; empty for a whole run.
    """
    limits = ["trainer=smoke"] if option == "smoke" else []
    for key, split in _LIMITED.items():
        value = trainer.get(key, 1.0)
        total = (num_batches or {}).get(split)
        if (isinstance(value, float) and value < 1) or (
            isinstance(value, int) and not isinstance(value, bool) and (total is None or value < total)
        ):
            limits.append(f"trainer.{key}={value}")
    if trainer.get("overfit_batches"):
        limits.append(f"trainer.overfit_batches={trainer['overfit_batches']}")
    return limits


def limits_warning(limits: list[str]) -> str:
    """Return the sentence that marks a limited run."""
    return f"limited run ({', '.join(limits)}): its numbers are not results"
