"""The command ``fer-lightning benchmark CHECKPOINT --data a,b``: one network on several data sets."""

import argparse
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from fer_lightning.cli.benchmark_data import Item, open_data, parse_items
from fer_lightning.config.checks import check_stored
from fer_lightning.config.limits import limits_warning
from fer_lightning.core import hardware
from fer_lightning.core.errors import FERError, sentences_for_errors
from fer_lightning.core.files import write_atomically, write_json
from fer_lightning.core.program import command_line
from fer_lightning.core.terminal import console, log, show, start_terminal
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.dealing import is_dealt
from fer_lightning.evaluation.checkpoint_predictor import CheckpointPredictor
from fer_lightning.evaluation.evaluate import check_has_images
from fer_lightning.evaluation.metrics import compute_metrics
from fer_lightning.evaluation.shared_classes import find_shared_classes, restrict_to
from fer_lightning.inference.stored_predictors import OnnxPredictor, load_predictor, with_training_images
from fer_lightning.report.tables import percent
from fer_lightning.training.checkpoint import find_checkpoint

SCHEMA = 1
JSON_FILE, CSV_FILE = "benchmark.json", "benchmark.csv"
_NO_IMAGES = "no images of class"  # of the reader's notes, which `lacking` says better
_METRICS = {"acc": "accuracy", "f1_macro": "macro F1", "ece": "ECE"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_line("benchmark"),
        description="Evaluate a network on several data sets. Classes are matched by name; on each data set "
        "the network's probabilities are restricted to the classes that it has, and images of classes that "
        "the network lacks are left out.",
    )
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a run folder, a checkpoint, an exported file"
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NAME[:PATH],...",
        help="options of the config group data, each with its place, such as fer2013,image_folder:my_images",
    )
    parser.add_argument(
        "--split", choices=("test", "val", "train", "all"), default="test", help="default: test"
    )
    parser.add_argument("--save", type=Path, metavar="FOLDER", help=f"write {JSON_FILE} and {CSV_FILE} there")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="another package whose networks the checkpoint may name",
    )
    return parser


@sentences_for_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    items = parse_items(options.data)
    start_terminal()
    hardware.prepare(None)
    path = find_checkpoint(options.checkpoint)
    predictor = load_predictor(path, trust=options.trust)
    check_stored(predictor.metadata.config, path, trains=False)
    if options.save is not None:
        _make_folder(options.save)
    known, remembered = predictor.metadata.classes, predictor.metadata.config.get("data") or {}
    opened = [open_data(item, remembered, known, options.split) for item in items]  # before any is decoded
    rows: list[dict[str, Any]] = []
    while opened:  # one data set in memory at a time
        rows.append(evaluate(items[len(rows)], opened.pop(0), predictor, options.split))
    show(make_table(rows))
    for row in rows:
        for note in notes_of(row):
            log.info("%s: %s", row["given"], note)
    if limits := predictor.metadata.limits:
        log.warning("WARNING: %s: %s", predictor, limits_warning(limits))
    if options.save is not None:
        described = {"schema": SCHEMA, "classes": list(known), "limited": limits, **predictor.facts()}
        write_json(options.save / JSON_FILE, described | {"rows": rows})
        write_atomically(options.save / CSV_FILE, to_csv(rows))
        for name in (JSON_FILE, CSV_FILE):
            console.print(str(options.save / name), markup=False, soft_wrap=True)
    return 0


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FERError(f"--save {folder}: no folder can be made there ({error.strerror})") from error


def evaluate(
    item: Item, data: FERDataModule, predictor: CheckpointPredictor | OnnxPredictor, split: str
) -> dict[str, Any]:
    """Evaluate a network on one data set; return its row of ``benchmark.json``.

    Raises:
        FERError: If the split is empty, or has less than two classes of the network.
    """
    try:
        data.setup()
        check_has_images(data, split)
    except FERError as error:
        raise item.fault(error) from error
    known, faces = predictor.metadata.classes, data.faces
    shared = find_shared_classes(faces.labels, faces.classes, known)
    names = [known[position] for position in shared.positions]
    every = data.split_rows(split)
    rows = every[shared.labels[every] >= 0]
    if len(names) < 2 or not len(rows):
        raise item.fault(
            f"{len(rows):,} of the {len(every):,} {split} images are of a class of the network "
            f"({', '.join(known)}), which shares {', '.join(names) or 'none'} with the data set; expected at "
            "least two classes and some images"
        )
    others = Counter(faces.classes[label] for label in faces.labels[every[shared.labels[every] < 0]])
    predictor, unknown = with_training_images(predictor, data)
    data.take_labels(np.maximum(shared.labels, 0), known)  # those below 0 are in no row
    found = restrict_to(predictor.predict(data, split, rows), shared.positions)
    metrics = compute_metrics(found)
    leak_free = None if unknown else metrics["leak_free"]
    return {
        "data": data.name,
        "given": item.given,
        "root": data.root,
        "fingerprint": faces.fingerprint,
        "split": split,
        "split_origin": _origin(data, split),
        "n": metrics["n"],
        "classes": names,
        "lacking": [name for name in known if name not in names],
        "left_out": dict(sorted(others.items())),
        **{key: metrics[key] for key in _METRICS},
        "ci95": {key: (metrics["ci95"] or {}).get(key) for key in _METRICS},
        "leak_free_acc": leak_free and leak_free["acc"],
        "leak_free_acc_ci95": leak_free and (leak_free["ci95"] or {}).get("acc"),
        "leak_free_n": leak_free and leak_free["n"],
        "leak_free_reason": unknown or None,
        "notes": list(data.notes),
    }


def _origin(data: FERDataModule, split: str) -> str:
    if split == "all":
        return "all images"
    return "dealt" if is_dealt(data.source, split) else "official"


def make_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table for the terminal: percentages, with their 95 % intervals below them."""
    table = Table(box=SIMPLE_HEAD, caption="in %, 95 % CI below; classes: shared with the network")
    for name in ("data set", "split"):
        table.add_column(name)
    for name in ("images", "classes", *_METRICS.values(), "leak-free acc"):
        table.add_column(name, justify="right")
    for row in rows:
        num_classes = len(row["classes"])
        place = Path(row["given"].partition(":")[2]).name
        table.add_row(
            Text(f"{row['data']}\n{place}" if place not in ("", row["data"]) else row["data"]),
            f"{row['split']}\n{row['split_origin']}" if row["split"] != "all" else "all",
            f"{row['n']:,}",
            f"{num_classes} of {num_classes + len(row['lacking'])}",
            *(_with_interval(row[key], row["ci95"][key]) for key in _METRICS),
            _with_interval(row["leak_free_acc"], row["leak_free_acc_ci95"]),
        )
    return table


def _with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    if value is None or interval is None:
        return percent(value)
    return f"{percent(value)}\n{percent(interval[0])}-{percent(interval[1])}"


def notes_of(row: Mapping[str, Any]) -> list[str]:
    """Say what a row leaves out, and what is not known."""
    notes: list[str] = []
    if row["lacking"]:
        notes.append(f"has no images of {', '.join(row['lacking'])}: left out of the probabilities")
    if row["left_out"]:
        counts = ", ".join(f"{count:,} of {name}" for name, count in row["left_out"].items())
        notes.append(f"images of classes that the network lacks are left out: {counts}")
    if row["split_origin"] == "dealt":
        notes.append(f"has no {row['split']} split of its own; a part of its images was dealt out for it")
    if row["leak_free_n"] == 0:
        notes.append(
            "no leak-free accuracy: each image, or a duplicate of it, trained or selected the network"
        )
    if row["leak_free_reason"]:
        notes.append(f"no leak-free accuracy: {row['leak_free_reason']}")
    if row["data"] == "synthetic":
        notes.append("synthetic faces: results do not transfer to photographs")
    return [*notes, *(note for note in row["notes"] if _NO_IMAGES not in note)]


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write one line per data set, with a column for each bound of an interval."""
    text = io.StringIO()
    flat = [_flat(row) for row in rows]
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat = {key: row[key] for key in ("data", "given", "split", "split_origin", "n")}
    flat |= {"classes": " ".join(row["classes"]), "lacking": " ".join(row["lacking"])}
    flat["left_out"] = sum(row["left_out"].values())
    intervals = {key: row["ci95"][key] for key in _METRICS} | {"leak_free_acc": row["leak_free_acc_ci95"]}
    for key, interval in intervals.items():
        low, high = interval or (None, None)
        flat |= {key: row[key], f"{key}_ci95_low": low, f"{key}_ci95_high": high}
    return flat | {"leak_free_n": row["leak_free_n"], "fingerprint": row["fingerprint"]}
