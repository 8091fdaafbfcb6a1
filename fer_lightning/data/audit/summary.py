"""Summarise a data set in one paragraph."""

from pathlib import Path
from typing import Any

import numpy as np

from fer_lightning.data.audit.quality import find_constant
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.splits import (
    LEAKS,
    count_duplicates,
    has_duplicate_in,
    has_group_in,
    has_near_duplicate_in,
)


def summarise_data(data: FERDataModule) -> dict[str, Any]:
    """Count images, duplicates, leaks, conflicting labels and blank images of a data set.

    Args:
        data: A data module after ``setup``.

    Returns:
        Plain values for ``run.json``: ``name, fingerprint, protocol, counts`` (split -> class -> images),
        ``num_copies, num_copy_groups, num_conflicts`` (groups with several labels), ``num_blank``,
        ``num_skipped``, ``leaks`` (``test_in_train, val_in_train, test_in_val`` -> images), ``dropped``
        (split -> images removed by ``data.drop_leaks``; empty without it), ``near_leaks`` (such as
        ``test_near_train`` -> images with a near-duplicate, but no duplicate, in the other split),
        ``near_complete`` (whether all near-duplicates were searched), ``num_groups`` and ``group_leaks``
        (such as ``test_in_train`` -> images whose group is also in the other split; both null without
        groups), ``soft_targets`` (``file, sha256, weight, temperature`` of a teacher's predictions; null
        without, or if it was not read), ``notes`` on how splits were made, and ``summary``, a paragraph.
    """
    faces = data.faces
    duplicates = count_duplicates(faces)
    counts = {split: dict(zip(data.classes, data.class_counts(split), strict=True)) for split in data.rows}
    near = data.find_near_duplicates()
    leaks, near_leaks, group_leaks = {}, {}, {}
    for split, other in LEAKS:
        rows, others = data.rows[split], data.rows[other]
        hashes, known = faces.hashes[rows], faces.hashes[others]
        leaked = has_duplicate_in(hashes, known)
        leaks[f"{split}_in_{other}"] = int(leaked.sum())
        similar = has_near_duplicate_in(hashes, known, faces, near) & ~leaked
        near_leaks[f"{split}_near_{other}"] = int(similar.sum())
        group_leaks[f"{split}_in_{other}"] = int(has_group_in(faces, rows, others).sum())
    facts: dict[str, Any] = {
        "name": data.name,
        "fingerprint": faces.fingerprint,
        "protocol": data.protocol,
        "counts": counts,
        "num_copies": duplicates["redundant"],
        "num_copy_groups": duplicates["groups"],
        "num_conflicts": duplicates["conflicting_groups"],
        "num_blank": int(find_constant(faces).sum()),
        "num_skipped": len(faces.skipped),
        "leaks": leaks,
        "dropped": data.dropped,
        "near_leaks": near_leaks,
        "near_complete": not near.left_out,
        "num_groups": None if faces.groups is None else len(np.unique(faces.groups)),
        "group_leaks": None if faces.groups is None else group_leaks,
        "soft_targets": _describe_soft_targets(data),
        "notes": [*data.notes],
    }
    return facts | {"summary": _paragraph(facts)}


def _describe_soft_targets(data: FERDataModule) -> dict[str, Any] | None:
    if data.teacher is None:
        return None
    return {
        "file": str(data.teacher.path),
        "sha256": data.teacher.sha256,
        "weight": data.soft_targets_weight,
        "temperature": data.soft_targets_temperature,
    }


def _paragraph(facts: dict[str, Any]) -> str:
    totals = {split: sum(counts.values()) for split, counts in facts["counts"].items()}
    sizes = " / ".join(f"{total:,} {split}" for split, total in totals.items() if total)
    shown = "train" if totals["train"] else next(split for split, total in totals.items() if total)
    classes = ", ".join(f"{name} {count:,}" for name, count in facts["counts"][shown].items())
    sentences = [
        f"{facts['name']} (protocol {facts['protocol']}, fingerprint {facts['fingerprint'][:12]}): "
        f"{sizes} images.",
        f"{'Training' if shown == 'train' else shown.capitalize()} images per class: {classes}.",
    ]
    if facts["num_copies"]:
        sentences.append(
            f"{facts['num_copies']:,} images are pixel-identical duplicates of another, in "
            f"{facts['num_copy_groups']:,} groups, {facts['num_conflicts']:,} of them with "
            "conflicting labels."
        )
        for key, count in facts["leaks"].items():
            split, _, other = key.split("_")
            if count:
                share = 100 * count / totals[split]
                others = "training" if other == "train" else other
                sentences.append(
                    f"{count:,} {split} images ({share:.1f} %) are duplicates of {others} images."
                )
    else:
        sentences.append("No two images are pixel-identical.")
    sentences += _near_sentences(facts, totals)
    if facts["dropped"]:
        train, val = facts["dropped"]["train"], facts["dropped"]["val"]
        sentences.append(
            f"data.drop_leaks removed {train:,} training images with a duplicate in val or test, and {val:,} "
            "val images with a duplicate in test."
        )
    if facts["num_blank"]:
        sentences.append(f"{facts['num_blank']:,} images are blank.")
    if facts["num_skipped"]:
        sentences.append(f"{facts['num_skipped']:,} unreadable images were skipped.")
    if soft := facts["soft_targets"]:
        sentences.append(
            f"{soft['weight']:.0%} of each training target are probabilities of a teacher "
            f"({Path(soft['file']).name}, SHA-256 {soft['sha256'][:12]}), the rest is the label."
        )
    return " ".join(sentences)


def _near_sentences(facts: dict[str, Any], totals: dict[str, int]) -> list[str]:
    """Describe the near-duplicates and the groups that are in two splits."""
    sentences = []
    for key, count in facts["near_leaks"].items():
        split, _, other = key.split("_")
        if count:
            share, others = 100 * count / totals[split], "training" if other == "train" else other
            more = " more" if facts["leaks"][f"{split}_in_{other}"] else ""
            sentences.append(
                f"{count:,}{more} {split} images ({share:.1f} %) have a near-duplicate among {others} images."
            )
    if facts["num_groups"] is not None:
        torn = [f"{count:,} {key.replace('_', ' ')}" for key, count in facts["group_leaks"].items() if count]
        found = (
            f"images whose group is in another split, too: {', '.join(torn)}"
            if torn
            else ("none of them in two splits")
        )
        sentences.append(f"{facts['num_groups']:,} groups, {found}.")
    return sentences
