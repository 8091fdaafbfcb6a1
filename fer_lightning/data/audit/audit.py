"""What is wrong with a data set: copies, near-duplicates, leaks, conflicting labels, blanks, altered images.

``python -m fer_lightning.data.audit`` prints the figures and writes them to a file; a run does the same by
itself, once for each data set, and keeps ``audit.json``. Splits are the data set's, not the protocol's.
"""

import hashlib
import json
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_json
from fer_lightning.data.audit import quality
from fer_lightning.data.audit.near_duplicates import DEFINITION, Near, find_near_duplicates
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import SPLITS, Faces, Source
from fer_lightning.data.labels import EXPRESSIONS, canonical_name
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.files import SPLIT_FOLDERS, scan
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.data.splits import LEAKS, count_copies, group_copies, has_duplicate_in

SCHEMA = 3  # part of the cached file's name: raise it when a figure, a bound, a key or a warning changes

NUM_EXAMPLES = 9  # of each kind, for report; constant images are few, for they look alike

Say = Callable[[str], None]


def audit(faces: Faces, *, name: str) -> dict[str, Any]:
    """Look a data set over.

    Args:
        faces: The whole data set.
        name: The data set's name; ``fer2013`` at 48 pixels is compared with the published one.

    Returns:
        What ``audit.json`` holds, plain values alone (docs/interface.md names the keys). ``warnings`` are
        sentences for people, empty for a data set that was not altered; where ``as_published`` is False, the
        first of them says so.
    """
    copies = group_copies(faces.hashes, faces.labels)
    conflicting = copies.lowest != copies.highest
    constant = quality.find_constant(faces)
    near = find_near_duplicates(faces)
    measured = quality.measure(faces.images)
    is_fer2013 = name == "fer2013" and faces.images.shape[1] == 48
    levels = {
        split: quality.summarise(measured[:, faces.splits == code]) for code, split in enumerate(SPLITS)
    }
    counts = _counts(faces)
    if is_fer2013:
        totals = {split: sum(by_class.values()) for split, by_class in counts.items()}
        warnings = quality.judge_published(faces.fingerprint, totals) + quality.judge_fer2013(levels)
    else:
        warnings = quality.judge_splits(levels)
    if near.left_out:
        warnings.append(near.left_out)
    return {
        "schema": SCHEMA,
        "name": name,
        "fingerprint": faces.fingerprint,
        "as_published": faces.fingerprint == quality.FER2013_FINGERPRINT if is_fer2013 else None,
        "image_size": faces.images.shape[1],
        "num_images": len(faces),
        "counts": counts,
        "balance": {split: _balance(by_class) for split, by_class in counts.items()},
        "copies": count_copies(faces)
        | {
            f"{split}_in_{other}": int(has_duplicate_in(_hashes(faces, split), _hashes(faces, other)).sum())
            for split, other in LEAKS
        },
        "constant": {"images": int(constant.sum())}
        | {split: int(constant[faces.splits == code].sum()) for code, split in enumerate(SPLITS)},
        "near_duplicates": _describe_near(faces, copies.group_of, near),
        "quality": {
            "definitions": quality.DEFINITIONS,
            "medians": {
                split: level and {figure: round(level[figure].median, 3) for figure in quality.FIGURES}
                for split, level in levels.items()
            },
            "ratios": {
                f"{split}/{other}": {
                    figure: _rounded(_ratio(one[figure].median, two[figure].median))
                    for figure in quality.FIGURES
                }
                for split, other in LEAKS
                if (one := levels[split]) and (two := levels[other])
            },
            "known": quality.FER2013_MEDIANS if is_fer2013 else None,
        },
        "examples": [
            {"kind": kind, "rows": rows, "ids": faces.ids[rows].tolist()}
            for kind, found in (
                ("conflict", _conflicts(faces, copies.group_of, conflicting[copies.group_of] & ~constant)),
                ("near", _near_across(faces, near)),
                ("constant", [[row] for row in np.flatnonzero(constant)[: NUM_EXAMPLES // 2].tolist()]),
            )
            for rows in found
        ],
        "warnings": warnings,
    }


def load_audit(faces: Faces, *, cache_dir: Path, name: str, say: Say) -> dict[str, Any]:
    """Find the audit of a data set in the cache, or make it and leave it there for the next time.

    Args:
        faces: The whole data set.
        cache_dir: Where decoded faces are kept; where it cannot be written, the audit is made each time.
        name: The data set's name.
        say: Takes a sentence for people, such as ``print``.

    Returns:
        As ``audit``.
    """
    key = json.dumps([SCHEMA, faces.fingerprint, name, faces.classes]).encode()
    path = cache_dir / f"audit-{hashlib.blake2b(key, digest_size=8).hexdigest()}.json"
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for example in facts["examples"]:  # a CSV has the rows of the folder, under other ids
            example["ids"] = faces.ids[example["rows"]].tolist()
        if not isinstance(facts["warnings"], list):
            raise TypeError(path)
    except (OSError, ValueError, KeyError, TypeError, IndexError):  # absent or damaged
        if len(faces) > 10_000:  # else it is done before this is read
            say(f"looking {len(faces):,} faces over for copies and altered images, once")
        facts = audit(faces, name=name)
        with suppress(OSError):  # load_faces has said so
            cache_dir.mkdir(parents=True, exist_ok=True)
            write_json(path, facts)
    return facts


def _hashes(faces: Faces, split: str) -> NDArray[np.uint64]:
    hashes: NDArray[np.uint64] = faces.hashes[faces.splits == SPLITS.index(split)]
    return hashes


def _counts(faces: Faces) -> dict[str, dict[str, int]]:
    by_split = {
        split: np.bincount(faces.labels[faces.splits == code], minlength=len(faces.classes)).tolist()
        for code, split in enumerate(SPLITS)
    }
    return {split: dict(zip(faces.classes, numbers, strict=True)) for split, numbers in by_split.items()}


def _balance(by_class: dict[str, int]) -> dict[str, Any] | None:
    """Compare a split's largest class with its smallest; None for an empty split."""
    if not any(by_class.values()):
        return None
    largest, smallest = max(by_class, key=by_class.__getitem__), min(by_class, key=by_class.__getitem__)
    ratio = _rounded(_ratio(by_class[largest], by_class[smallest]))
    return {"largest": largest, "smallest": smallest, "ratio": ratio}


def _ratio(one: float, other: float) -> float | None:
    return one / other if other else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _join(first: Sequence[int], second: Sequence[int]) -> dict[int, int]:
    """Join pairs into groups: the root of every row that is in a pair (union-find)."""
    parent: dict[int, int] = {}

    def root(row: int) -> int:
        parent.setdefault(row, row)
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in zip(first, second, strict=True):
        parent[root(other)] = root(one)
    return {row: root(row) for row in list(parent)}


def _crosses(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say from the bits of their splits whether copies of one and of the other stand in different ones."""
    union = one | other
    crossing: NDArray[np.bool_] = (union & (union - 1)) != 0
    return crossing


def _describe_near(faces: Faces, group_of: NDArray[np.int64], near: Near) -> dict[str, Any]:
    bits = np.zeros(len(faces), np.int64)  # of the splits in which each group of copies stands
    np.bitwise_or.at(bits, group_of, 1 << faces.splits.astype(np.int64))
    one, other = group_of[near.first], group_of[near.second]
    crossing = _crosses(bits[one], bits[other])
    beside = np.zeros(len(bits), np.int64)  # the splits of each picture's near-duplicates
    np.bitwise_or.at(beside, one, bits[other])
    np.bitwise_or.at(beside, other, bits[one])

    def summarise(kept: NDArray[np.bool_]) -> dict[str, int]:
        root_of = _join(one[kept].tolist(), other[kept].tolist())
        images = np.isin(group_of, np.array(list(root_of), np.int64))
        return {
            "pairs": int(kept.sum()),
            "groups": len(set(root_of.values())),
            "images": int(images.sum()),
        }

    leaks = {}
    for split, within in LEAKS:
        code, bit = SPLITS.index(split), 1 << SPLITS.index(within)
        leaking = (beside & bit > 0) & (bits & bit == 0)
        leaks[f"{split}_near_{within}"] = int(leaking[group_of[faces.splits == code]].sum())
    return {
        "definition": DEFINITION,
        "complete": not near.left_out,
        "all": summarise(np.ones(len(crossing), bool)),
        "across_splits": summarise(crossing),
        "within_splits": summarise(~crossing),
        "mirrored_pairs": int(near.mirrored.sum()),
        **leaks,
    }


# Examples


def _conflicts(faces: Faces, group_of: NDArray[np.int64], concerned: NDArray[np.bool_]) -> list[list[int]]:
    """Choose pairs of pixel-identical images with different labels, those in different splits first."""
    groups: dict[int, list[int]] = {}
    for row in np.flatnonzero(concerned).tolist():
        groups.setdefault(int(group_of[row]), []).append(row)
    pairs = [
        min(
            (bool(faces.splits[first] == faces.splits[row]), first, row)
            for row in rest
            if faces.labels[row] != faces.labels[first]
        )
        for first, *rest in groups.values()
    ]
    return [[one, other] for _, one, other in sorted(pairs)[:NUM_EXAMPLES]]


def _near_across(faces: Faces, near: Near) -> list[list[int]]:
    """Choose near-duplicates in different splits: differently labelled ones first, then the nearest."""
    across = faces.splits[near.first] != faces.splits[near.second]
    alike = faces.labels[near.first] == faces.labels[near.second]
    order = np.lexsort((-near.gradient, alike))
    chosen: list[list[int]] = []
    shown: set[int] = set()
    for place in order[across[order]].tolist():
        pair = [int(near.first[place]), int(near.second[place])]
        if not shown & set(pair):  # one photograph may stand in many pairs
            chosen.append(pair)
            shown |= set(pair)
        if len(chosen) == NUM_EXAMPLES:
            break
    return chosen


# The command


def figures_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Name the figures of an audit, for a terminal: what it is, and a number without separators."""
    lines: list[tuple[str, Any]] = [("fingerprint", facts["fingerprint"]), ("images", facts["num_images"])]
    if facts["as_published"] is not None:
        lines.append(("as published", int(facts["as_published"])))
    for split, by_class in facts["counts"].items():
        lines.append((f"{split} images", sum(by_class.values())))
        lines += [(f"{split} {name}", count) for name, count in by_class.items()]
        if balance := facts["balance"][split]:
            classes = f"{balance['largest']} over {balance['smallest']}"
            lines.append((f"{split} largest over smallest class ({classes})", balance["ratio"]))
    copies, constant, near = facts["copies"], facts["constant"], facts["near_duplicates"]
    lines += [
        ("groups of pixel-identical copies", copies["groups"]),
        ("images in such groups", copies["images"]),
        ("redundant copies", copies["redundant"]),
        *(
            (f"{split} images that also stand in {other}", copies[f"{split}_in_{other}"])
            for split, other in LEAKS
        ),
        ("groups of copies with conflicting labels", copies["conflicting_groups"]),
        ("constant images", constant["images"]),
        *((f"constant images in {split}", constant[split]) for split in SPLITS),
        *((f"near-duplicate {unit}", near["all"][unit]) for unit in ("pairs", "groups", "images")),
        *(
            (f"near-duplicate {unit} {where} splits", near[f"{where}_splits"][unit])
            for where in ("across", "within")
            for unit in ("pairs", "groups", "images")
        ),
        ("mirrored near-duplicate pairs", near["mirrored_pairs"]),
        *(
            (f"{split} images near to one in {other}, no copy there", near[f"{split}_near_{other}"])
            for split, other in LEAKS
        ),
    ]
    for split, medians in facts["quality"]["medians"].items():
        lines += [(f"{split} median {figure}", value) for figure, value in medians.items()]
    return [(name, "undefined" if value is None else str(value)) for name, value in lines]


def _open(root: str | None, say: Say) -> tuple[str, Source]:
    """Find FER-2013, or class folders where the root that was named is none: the name and the source."""
    if root is None:
        from fer_lightning.data.locate import locate

        node = {"name": "fer2013", "classes": EXPRESSIONS, "image_size": 48}
        try:
            found = locate(node, say=say)["root"]
        except FERError as error:  # speaks of train.py's settings, which this command has not
            looked = str(error).partition("(")[2].partition("); ")[0]
            raise FERError(
                f"--root: not given, and FER-2013 was not found ({looked.replace('data.root', '--root')}); "
                "name its zip, folder or CSV, or any class folders"
            ) from error
        return "fer2013", open_fer2013(root=found, classes=EXPRESSIONS)
    try:
        fer2013 = open_fer2013(root=root, classes=EXPRESSIONS)
        deque(fer2013.records(), maxlen=0)  # whether the files below its folders are those of FER-2013
        return fer2013.name, fer2013
    except FERError:
        classes = _class_names(Path(root))
        if len(classes) < 2:
            raise
    # Folders are audited as they are: a split that is not there is not carved out of another.
    folders = ImageFolder(root=root, classes=classes, image_size=48, val_ratio=0, test_ratio=0)
    next(folders.records())
    say(f"{root}: class folders ({', '.join(classes)}), not FER-2013; images are scaled to 48 pixels")
    return folders.name, folders


def _class_names(root: Path) -> list[str]:
    """Name the class folders, in whatever split; empty where there is neither a folder nor a zip."""
    try:
        top = scan(root.expanduser())
    except FERError:
        return []
    splits = [folder for name, folder in top.folders.items() if name.lower() in SPLIT_FOLDERS]
    return sorted({canonical_name(name) for folder in splits or [top] for name in folder.folders})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    import argparse  # a run that keeps its audit needs none of the command's

    from rich.console import Console

    parser = argparse.ArgumentParser(
        prog="python -m fer_lightning.data.audit",
        description="Count copies, leaks, conflicting labels and blanks; say whether images were altered.",
    )
    parser.add_argument(
        "--root",
        help="FER-2013 in any form, or class folders (default: $FER2013_ROOT, data/fer2013/, Kaggle)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/audit.json"), help="default: %(default)s")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    cache_dir = Path("~/.cache/fer_lightning").expanduser()  # that of conf/data
    try:
        name, source = _open(given.root, console.print)
        faces = load_faces(source, cache_dir=cache_dir, say=console.print)
        facts = load_audit(faces, cache_dir=cache_dir, name=name, say=console.print)
        try:
            given.out.parent.mkdir(parents=True, exist_ok=True)
            write_json(given.out, facts)
        except OSError as error:
            raise FERError(f"--out {given.out}: cannot be written ({error.strerror})") from error
    except FERError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's own output
        return 1
    for figure, value in figures_of(facts):
        console.print(f"{figure:<60} {value}")
    for warning in facts["warnings"]:
        console.print(f"WARNING {warning}", style="bold red")
    console.print(given.out)
    return 0
