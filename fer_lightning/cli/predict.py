"""The command ``fer-lightning predict PATH...``, also ``python -m fer_lightning.predict``."""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fer_lightning.cli.predict_inputs import STDIN, expand_paths, named_photos
from fer_lightning.cli.predict_output import (
    CSVWriter,
    ImageWriter,
    JSONWriter,
    TerminalWriter,
    Writer,
    open_csv,
)
from fer_lightning.cli.predict_video import add_video_options, predict_video
from fer_lightning.core.errors import FERError, printable, sentences_for_errors
from fer_lightning.core.program import command_line
from fer_lightning.core.signals import StopSignals
from fer_lightning.inference.explain import METHODS
from fer_lightning.inference.faces import DETECTORS
from fer_lightning.inference.predictor import FERPredictor
from fer_lightning.inference.results import ImageResult
from fer_lightning.inference.video import is_video

log = logging.getLogger(__name__)

NO_FACE = 3  # exit code
MIN_FOR_PROGRESS = 20  # images; fewer are predicted at once
AUTO = "auto"  # --explain without a method
MAX_NAMED = 10  # unreadable images in the message


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_line("predict"),
        description="Find faces in photographs and videos, and predict their expressions.",
        epilog="Exit code 3: no face was found in any image or video.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a photograph or video, a folder of both, a pattern in quotes, the number of a camera (unless a "
        "file has this name), or - for a photograph on standard input",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="a checkpoint, a run folder, or a file of export (default: the network of the package)",
    )
    parser.add_argument(
        "--detector",
        choices=DETECTORS,
        help="how faces are found; none takes each image as a single face that fills it (default: yunet)",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="CSV",
        help="the boxes of the faces, in place of a detector: columns image, x, y, width, height",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row for each face and frame, too")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the annotated images and videos, too")
    parser.add_argument(
        "--explain",
        nargs="?",
        const=AUTO,
        type=_method,
        metavar="METHOD",
        help="draw what the network looked at into the images of --save: grad-cam or occlusion (default: "
        "grad-cam if the network ends in convolutions)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose networks the checkpoint may name, besides this one",
    )
    add_video_options(parser)
    return parser


def _method(text: str) -> str:
    if text not in (AUTO, *METHODS):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected {' or '.join(METHODS)}, or the option after the last PATH"
        )
    return text


@sentences_for_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.boxes is not None and options.detector is not None:
        parser.error("--boxes and --detector exclude each other")
    if str(options.csv) == "-":
        parser.error("--csv needs the name of a file; --json prints to standard output")
    if options.explain is not None and options.save is None:
        parser.error("--explain draws into the annotated images, so it needs --save DIR")
    images = expand_paths(options.paths)
    predictor = FERPredictor.load(
        options.checkpoint,
        detector=options.detector or "yunet",
        boxes=options.boxes,
        trust=options.trust,
    )
    if options.explain is not None:
        if videos := [name for name in images if _is_video(name)]:
            raise FERError(f"--explain: {videos[0]} is a video, expected photographs")
        options.explain = predictor.choose_method(None if options.explain == AUTO else options.explain)
    num_faces, problems = 0, []
    stop = StopSignals()
    with ExitStack() as stack:
        writers = _writers(options, predictor, images, stack)
        if any(map(_is_video, images)):
            stack.enter_context(stop)  # what was predicted up to a signal is printed and saved
        for found, problem in _results(images, predictor, options, writers, stop):
            num_faces += found
            if problem is not None:
                problems.append(problem)
            if stop.received is not None:
                break
        for writer in writers:
            writer.close()
    stop.check()
    if problems:
        more = f"; and {len(problems) - MAX_NAMED:,} more" if len(problems) > MAX_NAMED else ""
        raise FERError("; ".join(problems[:MAX_NAMED]) + more)
    if not num_faces:
        _report_no_face(images, options.boxes)
        return NO_FACE
    return 0


def _is_video(name: str) -> bool:
    return name != STDIN and is_video(name)


def _results(
    images: Sequence[str],
    predictor: FERPredictor,
    options: argparse.Namespace,
    writers: Sequence[Writer],
    stop: StopSignals,
) -> Iterator[tuple[int, str | None]]:
    """Predict one input after another; yield the number of its faces, and what is wrong with it."""
    for are_videos, group in groupby(images, key=_is_video):
        names = list(group)
        if are_videos:
            yield from (predict_video(name, predictor, options, writers, stop) for name in names)
        else:
            yield from _predict_photos(names, predictor, options, writers)


def _predict_photos(
    images: Sequence[str], predictor: FERPredictor, options: argparse.Namespace, writers: Sequence[Writer]
) -> Iterator[tuple[int, str | None]]:
    results = predictor.stream_named(
        named_photos(images), keep_images=options.save is not None, explain=options.explain
    )
    with _progress(results, len(images)) as shown:
        for result in shown:
            for writer in writers:
                writer.write(result)
            if any("blank" in face.flags for face in result.faces):
                log.warning(
                    "%s: blank, all its pixels are equal; the prediction means nothing",
                    printable(result.name),
                )
            yield len(result.faces), None if result.problem is None else f"{result.name}: {result.problem}"


def _writers(
    options: argparse.Namespace, predictor: FERPredictor, images: Sequence[str], stack: ExitStack
) -> list[Writer]:
    network = str(predictor.network.path)
    writers: list[Writer] = []
    if options.save is not None:
        writers.append(ImageWriter(options.save, images))
    if options.csv is not None:
        if options.csv.absolute() in {Path(name).absolute() for name in images}:
            raise FERError(f"--csv={options.csv}: one of the images")
        if options.boxes is not None and options.csv.absolute() == options.boxes.absolute():
            raise FERError(f"--csv={options.csv}: the file of --boxes; choose another name")
        writers.append(CSVWriter(stack.enter_context(open_csv(options.csv)), predictor.classes))
    if options.json:
        detector = str(options.boxes) if options.boxes is not None else options.detector or "yunet"
        return [*writers, JSONWriter(network, detector)]
    shown = (
        network if options.checkpoint else f"{predictor.network.path.stem}, which comes with fer_lightning"
    )
    return [*writers, TerminalWriter(shown, predictor.classes)]


def _report_no_face(images: Sequence[str], boxes: Path | None) -> None:
    where = f"in {images[0]}" if len(images) == 1 else f"in any of {len(images):,} images"
    advice = (
        "if each image is cropped to a single face, add --detector none, and if you know where the faces "
        "are, --boxes FILE.csv"
    )
    if boxes is not None:
        them = "it" if len(images) == 1 else "them"
        advice = (
            f"--boxes={boxes} has no row for {them}; its column image holds paths as given here, or relative "
            "to it"
        )
    message = f"no face was found {where}; {advice}"
    print(printable(message), file=sys.stderr)  # noqa: T201


@contextmanager
def _progress(results: Iterator[ImageResult], num_images: int) -> Iterator[Iterator[ImageResult]]:
    """Show on a terminal how many images are done."""
    console = Console(stderr=True)
    if num_images < MIN_FOR_PROGRESS or not console.is_terminal:
        yield results
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Lines for a file must not be redirected to this console.
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task("images", total=num_images)

        def counted() -> Iterator[ImageResult]:
            for result in results:
                bar.advance(task)
                yield result

        yield counted()
