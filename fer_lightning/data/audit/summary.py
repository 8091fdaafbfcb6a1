"""A data set's one-paragraph summary."""

from typing import Any

from fer_lightning.data.audit.quality import find_constant
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.splits import LEAKS, count_copies, has_duplicate_in


def summarise(data: FERDataModule) -> dict[str, Any]:
    """Count what a reader should know of a data set before believing a result on it.

    Args:
        data: A data module after ``setup``.

    Returns:
        Plain values for ``run.json``: ``name, fingerprint, protocol, counts`` (split -> class -> images),
        ``num_copies, num_copy_groups, num_conflicts`` (groups with several labels), ``num_blank``,
        ``num_skipped``, ``leaks`` (images: ``test_in_train, val_in_train, test_in_val``), ``dropped`` (by
        ``data.drop_leaks``: split -> images; empty without it), and ``summary``, a paragraph.
    """
    faces = data.faces
    copies = count_copies(faces)
    counts = {split: dict(zip(data.classes, data.class_counts(split), strict=True)) for split in data.rows}
    leaks = {
        f"{split}_in_{other}": int(
            has_duplicate_in(faces.hashes[data.rows[split]], faces.hashes[data.rows[other]]).sum()
        )
        for split, other in LEAKS
    }
    facts: dict[str, Any] = {
        "name": data.name,
        "fingerprint": faces.fingerprint,
        "protocol": data.protocol,
        "counts": counts,
        "num_copies": copies["redundant"],
        "num_copy_groups": copies["groups"],
        "num_conflicts": copies["conflicting_groups"],
        "num_blank": int(find_constant(faces).sum()),
        "num_skipped": len(faces.skipped),
        "leaks": leaks,
        "dropped": data.dropped,
    }
    return facts | {"summary": _paragraph(facts)}


def _paragraph(facts: dict[str, Any]) -> str:
    totals = {split: sum(counts.values()) for split, counts in facts["counts"].items()}
    sizes = " / ".join(f"{total:,} {split}" for split, total in totals.items() if total)
    classes = ", ".join(f"{name} {count:,}" for name, count in facts["counts"]["train"].items())
    sentences = [
        f"{facts['name']} (protocol {facts['protocol']}, fingerprint {facts['fingerprint'][:12]}): "
        f"{sizes} faces.",
        f"Train holds {classes}.",
    ]
    if facts["num_copies"]:
        sentences.append(
            f"{facts['num_copies']:,} faces are pixel-identical copies of another, in "
            f"{facts['num_copy_groups']:,} groups, {facts['num_conflicts']:,} of them with "
            "conflicting labels."
        )
        for key, count in facts["leaks"].items():
            split, _, other = key.split("_")
            if count:
                share = 100 * count / totals[split]
                sentences.append(f"{count:,} {split} faces ({share:.1f} %) also stand in {other}.")
    else:
        sentences.append("No two faces are pixel-identical.")
    if facts["dropped"]:
        train, val = facts["dropped"]["train"], facts["dropped"]["val"]
        sentences.append(
            f"data.drop_leaks left out {train:,} train faces with a copy in val or test, and {val:,} val "
            "faces with a copy in test."
        )
    if facts["num_blank"]:
        sentences.append(f"{facts['num_blank']:,} faces are blank.")
    if facts["num_skipped"]:
        sentences.append(f"{facts['num_skipped']:,} unreadable images were left out.")
    return " ".join(sentences)
