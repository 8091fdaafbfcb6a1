"""The command ``python -m fer_lightning.data.audit``: audit a data set, print and write the figures."""

import argparse
from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from fer_lightning.core.errors import FERError, sentences_for_errors
from fer_lightning.core.files import write_json
from fer_lightning.core.program import command_line
from fer_lightning.data.audit.differences import COMPARED
from fer_lightning.data.audit.facts import load_audit
from fer_lightning.data.cache import DEFAULT_CACHE_DIR, load_faces
from fer_lightning.data.cache_files import audit_folder
from fer_lightning.data.faces import SPLITS, Log, Record, Source
from fer_lightning.data.labels import EXPRESSIONS, canonical_name
from fer_lightning.data.locate import locate
from fer_lightning.data.readers.class_folders import SPLIT_FOLDERS, enter, scan
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.data.splits import LEAKS

_NUM_TRIED = 20  # images; if none has 48 pixels a side, they are read as class folders


@sentences_for_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog=command_line("audit"),
        description="Count duplicates, leaks, conflicting labels and blank images; check whether images were "
        "altered.",
    )
    parser.add_argument(
        "--root",
        help="FER-2013 in any form, or class folders (default: $FER2013_ROOT, data/fer2013/, Kaggle)",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/audit.json"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    cache_dir = DEFAULT_CACHE_DIR.expanduser()
    name, source = _open_source(options.root, console.print)
    faces = load_faces(source, cache_dir=cache_dir, log=console.print)
    facts = load_audit(faces, cache_dir=audit_folder(cache_dir), name=name, log=console.print)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, facts)
    except OSError as error:
        raise FERError(f"--out {options.out}: cannot be written ({error.strerror})") from error
    for figure, value in figures_of(facts):
        console.print(f"{figure:<60} {value}")
    for warning in facts["warnings"]:
        console.print(f"WARNING {warning}", style="bold red")
    console.print(options.out)
    return 0


def _open_source(root: str | None, log: Log) -> tuple[str, Source]:
    """Open FER-2013, or class folders if the given root is not FER-2013; return name and source."""
    if root is None:
        node = {"name": "fer2013", "classes": EXPRESSIONS, "image_size": 48}
        try:
            found = locate(node, log=log)["root"]
        except FERError as error:  # it names settings of train.py, which this command does not have
            tried = str(error).partition("(")[2].partition("); ")[0]
            raise FERError(
                f"--root: not given, and FER-2013 was not found ({tried.replace('data.root', '--root')}); "
                "give its zip, folder or CSV, or any class folders"
            ) from error
        return "fer2013", open_fer2013(root=found, classes=EXPRESSIONS)
    try:
        fer2013 = open_fer2013(root=root, classes=EXPRESSIONS)
        records = fer2013.records()
        first = list(islice(records, _NUM_TRIED))
        deque(records, maxlen=0)  # raises if the files in its folders are not those of FER-2013
        classes = class_names(Path(root)) if all(map(_fault, first)) else []
        if len(classes) < 2:
            return fer2013.name, fer2013
        reason = f" ({_fault(first[0])})"  # such as another size
    except FERError:
        classes, reason = class_names(Path(root)), ""
        if len(classes) < 2:
            raise
    # Folders are audited as they are: a missing split is not split off from another.
    folders = ImageFolder(root=root, classes=classes, image_size=48, val_ratio=0, test_ratio=0)
    next(folders.records())
    log(
        f"{root}: class folders ({', '.join(classes)}), not FER-2013 as published{reason}; images are scaled "
        "to 48 pixels"
    )
    return folders.name, folders


def _fault(record: Record) -> str:
    """Return why an image cannot be decoded; empty if it can."""
    try:
        record.pixels()
    except FERError as error:
        return str(error)
    return ""


def class_names(root: Path) -> list[str]:
    """List the names of the class folders in any split; empty if the root is not a folder or zip."""
    try:
        top = scan(root.expanduser())
    except FERError:
        return []
    splits = [folder for name, folder in top.folders.items() if name.lower() in SPLIT_FOLDERS]
    return sorted({canonical_name(name) for folder in splits or [top] for name in enter(folder).folders})


def figures_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """List the figures of an audit for the terminal: names, and numbers without separators."""
    lines: list[tuple[str, Any]] = [("fingerprint", facts["fingerprint"])]
    lines += [(f"fingerprint of {part}", value) for part, value in facts["fingerprints"].items()]
    lines.append(("images", facts["num_images"]))
    if facts["as_published"] is not None:
        lines.append(("as published", int(facts["as_published"])))
    if compared := facts["published"]:
        lines += [(f"compared with FER-2013: {words}", compared[key]) for key, words in COMPARED.items()]
    for split, by_class in facts["counts"].items():
        lines.append((f"{split} images", sum(by_class.values())))
        lines += [(f"{split} {name}", count) for name, count in by_class.items()]
        if balance := facts["balance"][split]:
            classes = f"{balance['largest']} over {balance['smallest']}"
            lines.append((f"{split} largest over smallest class ({classes})", balance["ratio"]))
    lines += _duplicate_figures(facts)
    for split, medians in facts["quality"]["medians"].items():
        lines += [(f"{split} median {figure}", value) for figure, value in medians.items()]
    return [(name, "undefined" if value is None else str(value)) for name, value in lines]


def _duplicate_figures(facts: dict[str, Any]) -> list[tuple[str, Any]]:
    duplicates, constant, near = facts["copies"], facts["constant"], facts["near_duplicates"]
    lines = [
        ("groups of pixel-identical images", duplicates["groups"]),
        ("images in such groups", duplicates["images"]),
        ("redundant images", duplicates["redundant"]),
    ]
    lines += [
        (f"{split} images with a duplicate in {other}", duplicates[f"{split}_in_{other}"])
        for split, other in LEAKS
    ]
    lines += [
        ("groups of duplicates with conflicting labels", duplicates["conflicting_groups"]),
        ("blank images", constant["images"]),
    ]
    lines += [(f"blank images in {split}", constant[split]) for split in SPLITS]
    units = ("pairs", "groups", "images")
    lines += [(f"near-duplicate {unit}", near["all"][unit]) for unit in units]
    lines += [
        (f"near-duplicate {unit} {where} splits", near[f"{where}_splits"][unit])
        for where in ("across", "within")
        for unit in units
    ]
    lines.append(("mirrored near-duplicate pairs", near["mirrored_pairs"]))
    if groups := facts["groups"]:
        lines.append(("groups", groups["groups"]))
        lines += [
            (f"{split} images whose group is in {other}", groups[f"{split}_in_{other}"])
            for split, other in LEAKS
        ]
    lines += [
        (f"{split} images with only a near-duplicate in {other}", near[f"{split}_near_{other}"])
        for split, other in LEAKS
    ]
    return lines
