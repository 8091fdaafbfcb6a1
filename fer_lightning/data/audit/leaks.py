"""Sentences on images of one split that are, or look like, images of another."""

from collections.abc import Mapping
from typing import Any

from fer_lightning.data.splits import LEAKS


def describe_leaks(
    counts: Mapping[str, Mapping[str, int]],
    copies: Mapping[str, int],
    near: Mapping[str, Any],
    groups: Mapping[str, int] | None,
) -> list[str]:
    """Warn of duplicates, near-duplicates and groups that are in two splits of a data set.

    Args:
        counts: Images by split and class.
        copies: The audit's ``copies``.
        near: Its ``near_duplicates``.
        groups: Its ``groups``.

    Returns:
        At most two sentences, one on images and one on groups.
    """
    totals = {split: sum(by_class.values()) for split, by_class in counts.items()}
    found, torn = [], []
    for split, other in LEAKS:
        exact, similar = copies[f"{split}_in_{other}"], near[f"{split}_near_{other}"]
        if exact + similar:
            share = 100 * (exact + similar) / totals[split]
            found.append(
                f"{exact + similar:,} of {totals[split]:,} {split} images ({share:.1f} %) have a duplicate "
                f"or near-duplicate in {other} ({exact:,} pixel-identical)"
            )
        if groups and groups[f"{split}_in_{other}"]:
            number = groups[f"{split}_in_{other}"]
            torn.append(
                f"{number:,} of {totals[split]:,} {split} images are of a group that is also in {other}"
            )
    warnings = []
    if found:
        warnings.append(
            f"{'; '.join(found)}. A network can score on them by memory, as on frames of one video; split by "
            "person or video (data.source.group), or remove them"
        )
    if torn:
        warnings.append(f"{'; '.join(torn)}; scores on them are not of people that the network has not seen")
    return warnings
