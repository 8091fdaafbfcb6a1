"""A data set's one-paragraph summary, and who has a copy where."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.data.datamodule import FaceDataModule
from fer_lightning.data.faces import Faces, pixel_digest, pixel_hash


def copied(hashes: NDArray[np.uint64], seen: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Mark the faces that have a pixel-identical copy among those seen."""
    return np.isin(hashes, seen)


def count_blank(faces: Faces) -> int:
    """Count constant images, by the hashes of the 256 there can be."""
    shape = faces.images.shape[1:]
    blanks = [pixel_hash(pixel_digest(np.full(shape, level, dtype=np.uint8))) for level in range(256)]
    return int(np.isin(faces.hashes, np.array(blanks, dtype=np.uint64)).sum())


def summarise(data: FaceDataModule) -> dict[str, Any]:
    """Count what a reader should know of a data set before believing a result on it.

    Args:
        data: A data module after ``setup``.

    Returns:
        Plain values for ``run.json``: ``name, fingerprint, protocol, counts`` (split -> class -> images),
        ``num_copies, num_copy_groups, num_conflicts`` (groups with several labels), ``num_blank``,
        ``num_skipped``, ``leaks`` (images: ``test_in_train, val_in_train, test_in_val``), and ``summary``,
        a paragraph.
    """
    faces = data.faces
    _, group_of, sizes = np.unique(faces.hashes, return_inverse=True, return_counts=True)
    lowest = np.full(len(sizes), len(faces.classes))
    highest = np.full(len(sizes), -1)
    np.minimum.at(lowest, group_of, faces.labels)
    np.maximum.at(highest, group_of, faces.labels)
    counts = {split: dict(zip(data.classes, data.class_counts(split), strict=True)) for split in data.rows}
    leaks = {
        f"{split}_in_{other}": int(
            copied(faces.hashes[data.rows[split]], faces.hashes[data.rows[other]]).sum()
        )
        for split, other in (("test", "train"), ("val", "train"), ("test", "val"))
    }
    facts: dict[str, Any] = {
        "name": data.name,
        "fingerprint": faces.fingerprint,
        "protocol": data.protocol,
        "counts": counts,
        "num_copies": int((sizes - 1).sum()),
        "num_copy_groups": int((sizes > 1).sum()),
        "num_conflicts": int((lowest != highest).sum()),
        "num_blank": count_blank(faces),
        "num_skipped": len(faces.skipped),
        "leaks": leaks,
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
    if facts["num_blank"]:
        sentences.append(f"{facts['num_blank']:,} faces are blank.")
    if facts["num_skipped"]:
        sentences.append(f"{facts['num_skipped']:,} unreadable images were left out.")
    return " ".join(sentences)
