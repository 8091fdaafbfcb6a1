"""The command ``fer-lightning export CHECKPOINT``, also ``python -m fer_lightning.export``."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fer_lightning.core.errors import printable, sentences_for_errors
from fer_lightning.core.program import command_line
from fer_lightning.evaluation.checkpoint_predictor import folder_name
from fer_lightning.inference.export.export import Exported, export
from fer_lightning.inference.export.formats import FORMATS
from fer_lightning.inference.export.verify import TOLERANCE
from fer_lightning.inference.network import load_network

OUT = Path("outputs/export")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_line("export"),
        description="Write a trained network for other programs, with its model card. The files are read "
        "again and "
        "compared with the network on 512 images; a probability that differs by more than "
        f"{TOLERANCE:g} is an error.",
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        metavar="CHECKPOINT",
        help="a run folder, a checkpoint or a file of safetensors (default: the network of the package)",
    )
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"a new or empty folder (default: {OUT}/NAME-FORMAT)"
    )
    parser.add_argument(
        "--data",
        metavar="ROOT",
        help="where the network's data set is (default: where it was in training, or $FER2013_ROOT)",
    )
    parser.add_argument(
        "--ort",
        metavar="PATH",
        help="with --format web: the files of onnxruntime-web, a folder or a .tgz (default: the user's "
        "cache, or npm's registry)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose networks the checkpoint may name, besides this one",
    )
    return parser


@sentences_for_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(arguments)
    network = load_network(options.checkpoint, trust=options.trust)
    name = re.sub(r"[^\w.-]", "_", folder_name(network.path))
    folder = options.out or OUT / f"{name}-{options.format}"
    console = Console(highlight=False, soft_wrap=True, markup=False)
    shown = (
        printable(str(network.path))
        if options.checkpoint
        else f"{network.path.stem}, which comes with fer_lightning"
    )
    console.print(f"Exporting {shown}")
    _report(
        console,
        export(network, options.format, folder, root=options.data, trust=options.trust, ort=options.ort),
    )
    return 0


def _report(console: Console, done: Exported) -> None:
    found = done.verification
    for size, value in found.differences.items():
        console.print(f"batch {size:<3} largest difference {value:.2e} of {found.images}")
    if found.resized is not None:
        console.print(f"resized   largest difference {found.resized:.2e} of faces of other sizes")
    console.print(f"same answers: {100 * found.same_answers:.2f} %")
    if done.int8 is not None:
        low, high = done.int8["difference_ci95"]
        console.print(
            f"{done.int8['split']} accuracy: int8 {100 * done.int8['acc_int8']:.2f} %, float32 "
            f"{100 * done.int8['acc_float32']:.2f} % of {done.int8['n']:,}; difference "
            f"{100 * done.int8['difference']:+.2f} points (95 % CI {100 * low:+.2f} to "
            f"{100 * high:+.2f}), exact "
            f"McNemar p = {done.int8['p_value']:.2g}"
        )
        for size, times in done.int8["ms_per_face"].items():
            console.print(
                f"batch {size:<3} ms per face: " + ", ".join(f"{k} {v:.3f}" for k, v in times.items())
            )
    for name in done.names:
        console.print(printable(str(done.folder / name)))
