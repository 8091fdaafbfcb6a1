"""Audit a data set: duplicates, near-duplicates, leaks, conflicting labels, blank and altered images.

Splits are those of the data set, not those of the protocol.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.files import write_json
from fer_lightning.data.audit import quality
from fer_lightning.data.audit.compare import compare_with_published
from fer_lightning.data.audit.differences import describe_differences
from fer_lightning.data.audit.examples import choose_examples
from fer_lightning.data.audit.leaks import describe_leaks
from fer_lightning.data.audit.near_duplicates import (
    DEFINITION,
    NearDuplicates,
    find_near_duplicates,
    load_near_duplicates,
)
from fer_lightning.data.audit.published import load_published
from fer_lightning.data.faces import SPLITS, Faces, Log
from fer_lightning.data.labels import canonical_name
from fer_lightning.data.splits import (
    LEAKS,
    count_duplicates,
    group_duplicates,
    has_duplicate_in,
    has_group_in,
)

SCHEMA = 4  # version of the keys of audit.json
_CACHE_VERSION = 5  # part of the cached file's name: raise it when a figure, bound, key or sentence changes
_NOT_COMPARED = ("ferplus", "synthetic")  # with FER-2013: other labels by design, and no photographs
_SLOW_FROM = 10_000  # images; a smaller audit ends before a message about it could be read


def audit_data(faces: Faces, *, name: str, near: NearDuplicates | None = None) -> dict[str, Any]:
    """Audit a data set.

    Args:
        faces: The whole data set.
        name: The name of the data set; ``fer2013`` at 48 pixels is compared with the published one.
        near: Its near-duplicates; None to search for them.

    Returns:
        The content of ``audit.json``, plain values only (docs/interface.md lists the keys). ``warnings`` are
        sentences for people, empty for an unaltered data set; if ``as_published`` is False, the first of them
        explains it.
    """
    duplicates = group_duplicates(faces.hashes, faces.labels)
    constant = quality.find_constant(faces)
    near = near.confirmed() if near else find_near_duplicates(faces.images, faces.hashes)
    is_fer2013 = name == "fer2013" and faces.images.shape[1] == 48
    measured = quality.measure_quality(faces.images)
    levels = {
        split: quality.summarise_quality(measured[:, faces.splits == code])
        for code, split in enumerate(SPLITS)
    }
    counts = _class_counts(faces)
    copies = count_duplicates(faces) | _count_leaks(faces)
    near_facts, groups = _near_duplicate_facts(faces, duplicates.group_of, near), _group_facts(faces)
    compared = None
    if name not in _NOT_COMPARED:
        compared = compare_with_published(faces, load_published(), measured, is_fer2013=name == "fer2013")
    warnings = describe_differences(
        compared, copies | near_facts, name=name, image_size=faces.images.shape[1]
    )
    warnings += quality.judge_fer2013(levels) if is_fer2013 else quality.judge_splits(levels)
    warnings += [*faces.notes, *([near.left_out] if near.left_out not in (*faces.notes, "") else [])]
    if compared is None:
        warnings += describe_leaks(counts, copies, near_facts, groups)
    return {
        "schema": SCHEMA,
        "name": name,
        "fingerprint": faces.fingerprint,
        "fingerprints": fingerprint_parts(faces),
        "as_published": faces.fingerprint == quality.FER2013_FINGERPRINT if is_fer2013 else None,
        "published": compared,
        "image_size": faces.images.shape[1],
        "num_images": len(faces),
        "counts": counts,
        "balance": {split: _balance(by_class) for split, by_class in counts.items()},
        "copies": copies,
        "constant": {"images": int(constant.sum())}
        | {split: int(constant[faces.splits == code].sum()) for code, split in enumerate(SPLITS)},
        "near_duplicates": near_facts,
        "groups": groups,
        "quality": _quality_facts(levels, is_fer2013=is_fer2013),
        "examples": choose_examples(faces, duplicates, near, constant),
        "warnings": warnings,
    }


def load_audit(faces: Faces, *, cache_dir: Path, name: str, log: Log) -> dict[str, Any]:
    """Read the audit of a data set from the cache, or make it and write it there.

    Args:
        faces: The whole data set.
        cache_dir: The folder of the data cache; if it cannot be written, the audit is made each time.
        name: The name of the data set.
        log: Receives a sentence if the audit takes seconds.

    Returns:
        The result of ``audit_data``.
    """
    groups = "" if faces.groups is None else hashlib.blake2b("\n".join(faces.groups).encode()).hexdigest()
    key = json.dumps([_CACHE_VERSION, faces.fingerprint, name, faces.classes, groups, faces.notes]).encode()
    path = cache_dir / f"audit-{hashlib.blake2b(key, digest_size=8).hexdigest()}.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for example in facts["examples"]:  # a CSV has the same rows as a folder, but other ids
            example["ids"] = faces.ids[example["rows"]].tolist()
        if not isinstance(facts["warnings"], list):
            raise TypeError(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # absent or damaged
        if len(faces) > _SLOW_FROM:
            log(f"auditing {len(faces):,} images for duplicates and alterations, once")
        near = load_near_duplicates(faces.images, faces.hashes, cache_dir=cache_dir, log=log)
        facts = audit_data(faces, name=name, near=near)
        with suppress(OSError):  # load_faces has already logged it
            cache_dir.mkdir(parents=True, exist_ok=True)
            write_json(path, facts)
    return facts


def fingerprint_parts(faces: Faces) -> dict[str, str]:
    """Hash pixels, pixels with labels, and pixels with splits, to show which of them differ."""
    names = [canonical_name(name) for name in faces.classes]
    parts = {
        "pixels": [f"{pixels:016x}" for pixels in faces.hashes.tolist()],
        "labels": [f"{p:016x}{names[label]}" for p, label in zip(faces.hashes, faces.labels, strict=True)],
        "splits": [f"{p:016x}{SPLITS[split]}" for p, split in zip(faces.hashes, faces.splits, strict=True)],
    }
    return {
        part: hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=16).hexdigest()
        for part, lines in parts.items()
    }


def _class_counts(faces: Faces) -> dict[str, dict[str, int]]:
    by_split = {
        split: np.bincount(faces.labels[faces.splits == code], minlength=len(faces.classes)).tolist()
        for code, split in enumerate(SPLITS)
    }
    return {split: dict(zip(faces.classes, counts, strict=True)) for split, counts in by_split.items()}


def _balance(by_class: dict[str, int]) -> dict[str, Any] | None:
    """Compare the largest class of a split with its smallest; None for an empty split."""
    if not any(by_class.values()):
        return None
    largest, smallest = max(by_class, key=by_class.__getitem__), min(by_class, key=by_class.__getitem__)
    ratio = _rounded_ratio(by_class[largest], by_class[smallest])
    return {"largest": largest, "smallest": smallest, "ratio": ratio}


def _rounded_ratio(one: float, other: float) -> float | None:
    return round(one / other, 3) if other else None


def _count_leaks(faces: Faces) -> dict[str, int]:
    """Count the images of each split that have a duplicate in another split."""
    hashes = {split: faces.hashes[faces.splits == code] for code, split in enumerate(SPLITS)}
    return {
        f"{split}_in_{other}": int(has_duplicate_in(hashes[split], hashes[other]).sum())
        for split, other in LEAKS
    }


def _group_facts(faces: Faces) -> dict[str, int] | None:
    """Count the groups, and the images of each split whose group is in another one; None without groups."""
    if faces.groups is None:
        return None
    rows = {split: np.flatnonzero(faces.splits == code) for code, split in enumerate(SPLITS)}
    return {"groups": len(np.unique(faces.groups))} | {
        f"{split}_in_{other}": int(has_group_in(faces, rows[split], rows[other]).sum())
        for split, other in LEAKS
    }


def _quality_facts(levels: Mapping[str, Mapping[str, quality.Level]], *, is_fer2013: bool) -> dict[str, Any]:
    return {
        "definitions": quality.DEFINITIONS,
        "medians": {
            split: level and {figure: round(level[figure].median, 3) for figure in quality.FIGURES}
            for split, level in levels.items()
        },
        "ratios": {
            f"{split}/{other}": {
                figure: _rounded_ratio(one[figure].median, two[figure].median) for figure in quality.FIGURES
            }
            for split, other in LEAKS
            if (one := levels[split]) and (two := levels[other])
        },
        "known": quality.FER2013_MEDIANS if is_fer2013 else None,
    }


def _near_duplicate_facts(faces: Faces, group_of: NDArray[np.int64], near: NearDuplicates) -> dict[str, Any]:
    """Count near-duplicates.

    Args:
        faces: The whole data set.
        group_of: ``(N,)`` int64 group of pixel-identical images that each image belongs to.
        near: Pairs of near-duplicates.
    """
    splits_of = np.zeros(len(faces), np.int64)  # bit set of the splits in which each group has images
    np.bitwise_or.at(splits_of, group_of, 1 << faces.splits.astype(np.int64))
    first, second = group_of[near.first], group_of[near.second]
    union = splits_of[first] | splits_of[second]
    across = (union & (union - 1)) != 0  # more than one bit
    near_splits_of = np.zeros(len(faces), np.int64)  # bit set of the splits of each group's near-duplicates
    np.bitwise_or.at(near_splits_of, first, splits_of[second])
    np.bitwise_or.at(near_splits_of, second, splits_of[first])

    def count(kept: NDArray[np.bool_]) -> dict[str, int]:
        root_of = _join(first[kept].tolist(), second[kept].tolist())
        images = np.isin(group_of, np.array(list(root_of), np.int64))
        return {
            "pairs": int(kept.sum()),
            "groups": len(set(root_of.values())),
            "images": int(images.sum()),
        }

    leaks = {}
    for split, other in LEAKS:
        code, bit = SPLITS.index(split), 1 << SPLITS.index(other)
        leaking = (near_splits_of & bit > 0) & (splits_of & bit == 0)
        leaks[f"{split}_near_{other}"] = int(leaking[group_of[faces.splits == code]].sum())
    return {
        "definition": DEFINITION,
        "complete": not near.left_out,
        "all": count(np.ones(len(across), bool)),
        "across_splits": count(across),
        "within_splits": count(~across),
        "mirrored_pairs": int(near.mirrored.sum()),
        **leaks,
    }


def _join(first: Sequence[int], second: Sequence[int]) -> dict[int, int]:
    """Join pairs into groups (union-find): map each member of a pair to the root of its group."""
    parent: dict[int, int] = {}

    def root(member: int) -> int:
        parent.setdefault(member, member)
        while parent[member] != member:
            parent[member] = parent[parent[member]]
            member = parent[member]
        return member

    for one, other in zip(first, second, strict=True):
        parent[root(other)] = root(one)
    return {member: root(member) for member in list(parent)}
