"""The command ``python -m fer_lightning.predict IMAGE... [--checkpoint PATH]``."""

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fer_lightning.core.errors import FERError, printable, sentences_for_errors
from fer_lightning.core.program import command_line
from fer_lightning.core.text import writable
from fer_lightning.data.readers.leftovers import is_leftover
from fer_lightning.inference.predictor import predict
from fer_lightning.runs.folder import read_record
from fer_lightning.training.checkpoint import find_checkpoint

log = logging.getLogger(__name__)


def newest_checkpoint(outputs: Path) -> Path:
    """Find the best checkpoint of the newest finished run below ``outputs``.

    Raises:
        FERError: If there is none.
    """
    checkpoints = sorted(
        [*outputs.glob("*/*/best.ckpt"), *outputs.glob("sweeps/*/*/best.ckpt")],
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for checkpoint in checkpoints:
        try:
            record = read_record(checkpoint.parent)
        except FERError as error:
            log.warning("WARNING: %s; this run is passed over", error)
            continue
        if record is not None and record.get("state") == "finished":
            return checkpoint
    raise FERError(f"--checkpoint: not given, and {outputs}/ holds no finished run; train one or name one")


def _most_probable(probs: dict[str, float]) -> str:
    return max(probs, key=lambda name: probs[name])


def _shown(path: Path) -> str:
    return printable(writable(str(path)))


def _lines(images: Sequence[Path], predictions: Sequence[dict[str, float]]) -> Iterator[str]:
    """Write the table as lines, for a terminal that is too narrow for it."""
    for path, probs in zip(images, predictions, strict=True):
        falling = sorted(probs, key=lambda name: -probs[name])
        shown = ", ".join(f"{name} {100 * probs[name]:.1f} %" for name in falling)
        yield f"{_shown(path)}: {shown}"


def _table(images: Sequence[Path], predictions: Sequence[dict[str, float]]) -> Table:
    table = Table()
    table.add_column("image")
    table.add_column("expression")
    for name in predictions[0]:
        table.add_column(Text(name), justify="right")
    for path, probs in zip(images, predictions, strict=True):
        best = _most_probable(probs)
        cells = [
            Text(f"{100 * prob:.1f} %", style="bold" if name == best else "") for name, prob in probs.items()
        ]
        table.add_row(Text(_shown(path)), Text(best, style="bold"), *cells)
    return table


@sentences_for_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(
        prog=command_line("predict"), description="Probabilities for images of faces."
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image, cropped to a single face"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="a checkpoint or a run folder (default: the newest finished run in outputs/)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose networks the checkpoint may name, besides this one",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    images = [path for path in options.images if not is_leftover(path.name)]
    if not images:
        raise FERError(
            f"{options.images[0]}: left by a file manager or an operating system, no image; name an image"
        )
    checkpoint = (
        find_checkpoint(options.checkpoint) if options.checkpoint else newest_checkpoint(Path("outputs"))
    )
    predictions = predict(images, checkpoint, trust=options.trust)
    if options.json:
        rows = [
            {"image": writable(str(path)), "expression": _most_probable(probs), "probs": probs}
            for path, probs in zip(images, predictions, strict=True)
        ]
        print(json.dumps({"checkpoint": writable(str(checkpoint)), "predictions": rows}, indent=2))  # noqa: T201
    else:
        print(f"Predictions from {_shown(checkpoint)}:")  # noqa: T201
        console, table = Console(highlight=False), _table(images, predictions)
        if (
            Console(width=10_000).measure(table).maximum <= console.width
        ):  # which measures up to its own width
            console.print(table)
        else:
            for line in _lines(images, predictions):
                console.print(line, markup=False, soft_wrap=not console.is_terminal)
    return 0
