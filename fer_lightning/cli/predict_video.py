"""The videos and cameras of ``fer-lightning predict``."""

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fer_lightning.cli.predict_output import ImageWriter, Writer
from fer_lightning.core.errors import FERError, printable
from fer_lightning.core.signals import StopSignals
from fer_lightning.core.text import writable
from fer_lightning.inference.predictor import FERPredictor
from fer_lightning.inference.results import FaceList, ImageResult
from fer_lightning.inference.tracks import SMOOTHING
from fer_lightning.inference.video import is_camera
from fer_lightning.inference.video_predictor import FPS, FrameResult, VideoPrediction
from fer_lightning.inference.video_writer import SUFFIX, AnnotatedVideo


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that concern videos."""
    group = parser.add_argument_group("videos and cameras")
    group.add_argument(
        "--fps",
        type=_positive,
        default=FPS,
        metavar="N",
        help=f"frames per second that are predicted (default: {FPS:g}); all of a video that has fewer",
    )
    group.add_argument(
        "--smoothing",
        type=_seconds,
        default=SMOOTHING,
        metavar="SECONDS",
        help=f"time constant of the mean over a face's frames (default: {SMOOTHING:g}; 0 for none)",
    )
    group.add_argument(
        "--seconds",
        type=_positive,
        default=math.inf,
        metavar="N",
        help="stop after N seconds of a video; a camera also ends with Ctrl-C",
    )


def _positive(text: str) -> float:
    value = _seconds(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of 0 or more")
    return value


def predict_video(
    name: str,
    predictor: FERPredictor,
    options: argparse.Namespace,
    writers: Sequence[Writer],
    stop: StopSignals,
) -> tuple[int, str | None]:
    """Predict a video or a camera until its end, or a signal; give the writers what is found.

    Returns:
        The number of faces over time, and why the video could not be read to its end, with its name; None if
        it could.
    """
    shown = writable(name)
    try:
        video = predictor.video(
            int(name) if is_camera(name) else Path(name).expanduser(),
            fps=options.fps,
            smoothing=options.smoothing,
            seconds=options.seconds,
            every_frame=options.save is not None,
        )
    except FERError as error:
        problem = str(error).removeprefix(f"{writable(str(Path(name).expanduser()))}: ")
        for writer in writers:
            writer.write(ImageResult(shown, FaceList(), problem))
        return 0, f"{shown}: {problem}"
    with _annotated(video, writers) as saved, _progress(video, options.seconds) as frames:
        for frame in frames:
            if saved is not None:
                saved.write(frame)
            if frame.is_predicted:
                for writer in writers:
                    writer.write_frame(frame)
            if stop.received is not None:
                break
    for writer in writers:
        writer.write_video(video)
    return len(video.tracks), None if video.problem is None else f"{shown}: {video.problem}"


@contextmanager
def _annotated(video: VideoPrediction, writers: Sequence[Writer]) -> Iterator[AnnotatedVideo | None]:
    """Open the annotated video, if annotated images are wanted; it has its name once it is whole."""
    folder = next((writer for writer in writers if isinstance(writer, ImageWriter)), None)
    if folder is None:
        yield None
        return
    saved = AnnotatedVideo(folder.path_for(Path(video.name).stem, SUFFIX), video.reader.rate)
    try:
        yield saved
        saved.close()
    except BaseException:
        saved.abandon()
        raise


@contextmanager
def _progress(video: VideoPrediction, seconds: float) -> Iterator[Iterator[FrameResult]]:
    """Show on a terminal how many seconds are done, and how many frames are predicted in a second."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield iter(video)
        return
    total = min(video.reader.length or math.inf, seconds)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[shown]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(printable(video.name), total=None if math.isinf(total) else total, shown="")

        def counted() -> Iterator[FrameResult]:
            start, num_predicted = time.monotonic(), 0
            for frame in video:
                num_predicted += frame.is_predicted
                speed = num_predicted / max(time.monotonic() - start, 1e-3)
                length = "" if math.isinf(total) else f" of {total:.0f}"
                shown = f"{frame.seconds:.0f}{length} seconds, {speed:.0f} frames/s"
                bar.update(task, completed=frame.seconds, shown=shown)
                yield frame

        yield counted()
