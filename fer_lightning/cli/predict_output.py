"""Where predictions go: tables on the terminal, JSON, a CSV file, annotated images."""

import csv
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fer_lightning.cli.predict_tracks import describe_video, track_line, track_table
from fer_lightning.core.errors import FERError, printable
from fer_lightning.core.files import check_not_special, naming, replacing
from fer_lightning.core.text import writable
from fer_lightning.inference.annotate import ANNOTATED, annotate, is_annotated
from fer_lightning.inference.heat_maps import add_explanations
from fer_lightning.inference.results import Box, Face, ImageResult
from fer_lightning.inference.video_predictor import FrameResult, VideoPrediction

MAX_TABLE = 200  # rows; more are printed as lines while they come


class Writer(Protocol):
    """Takes the results of one image or video after another."""

    def write(self, result: ImageResult) -> None:
        """Take the next result of an image, or of a video that cannot be opened."""
        ...

    def write_frame(self, frame: FrameResult) -> None:
        """Take the next predicted frame of a video."""
        ...

    def write_video(self, video: VideoPrediction) -> None:
        """Take a video whose frames were taken."""
        ...

    def close(self) -> None:
        """Write what waits; not called if the command fails."""
        ...


class TerminalWriter:
    """Prints a table, or lines where there is no room for one.

    Args:
        network: What predicts, for the first line.
        classes: The names of the columns.
    """

    def __init__(self, network: str, classes: Sequence[str]) -> None:
        self._network, self._classes = network, classes
        self._waiting: list[ImageResult] = []
        self._num_rows = 0
        self._console = Console(highlight=False)

    def write(self, result: ImageResult) -> None:
        """Keep the rows of a table; print lines once there are too many."""
        self._print_head()
        rows = max(1, len(result.faces))
        self._num_rows += rows
        self._waiting.append(result)
        if self._num_rows > MAX_TABLE:
            self._print_lines()

    def write_frame(self, frame: FrameResult) -> None:
        """Wait for the whole video."""

    def write_video(self, video: VideoPrediction) -> None:
        """Print what was found in a video: one row for each face."""
        self.close()  # of the images before it
        self._print_head()
        self._num_rows += 1
        self._print(describe_video(video))
        tracks = video.tracks
        if tracks:
            self._print_fitting(
                lambda: track_table(tracks, self._classes),
                (track_line(track) for track in tracks),
                len(tracks),
            )

    def close(self) -> None:
        """Print the table."""
        if any(result.problem is None for result in self._waiting):
            lines = (line for result in self._waiting for line in _lines(result))
            self._print_fitting(self._table, lines, self._num_rows)
        self._waiting = []

    def _print_head(self) -> None:
        if self._num_rows == 0:
            self._console.print(f"Predictions from {printable(self._network)}:", markup=False, soft_wrap=True)

    def _print_fitting(self, make_table: Callable[[], Table], lines: Iterable[str], num_rows: int) -> None:
        """Print a table, or lines if it is too wide or too long."""
        if num_rows <= MAX_TABLE:
            table = make_table()
            # A console measures up to its own width.
            if Console(width=10_000).measure(table).maximum <= self._console.width:
                self._console.print(table)
                return
        for line in lines:
            self._print(line)

    def _print_lines(self) -> None:
        for result in self._waiting:
            for line in _lines(result):
                self._print(line)
        self._waiting = []

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=not self._console.is_terminal)

    def _table(self) -> Table:
        results = [result for result in self._waiting if result.problem is None]
        faces = [face for result in results for face in result.faces]
        has_boxes, has_flags = any(face.box for face in faces), any(face.flags for face in faces)
        table = Table()
        for title in ("image", *(["box"] if has_boxes else []), "expression"):
            table.add_column(title)
        for name in self._classes:
            table.add_column(Text(name), justify="right")
        if has_flags:
            table.add_column("flags")
        for result in results:
            if not result.faces:
                empty = [""] if has_boxes else []
                table.add_row(Text(printable(result.name)), *empty, "no face found")
            for face in result.faces:
                cells = [Text(printable(face.image)), *([Text(_shown_box(face))] if has_boxes else [])]
                cells.append(Text(face.expression, style="bold"))
                for name, prob in face.probs.items():
                    style = "bold" if name == face.expression else ""
                    cells.append(Text(f"{100 * prob:.1f} %", style=style))
                table.add_row(*cells, *([", ".join(face.flags)] if has_flags else []))
        return table


def _shown_box(face: Face) -> str:
    box = face.box
    return "" if box is None else f"{box.x:.0f}, {box.y:.0f}, {box.width:.0f} x {box.height:.0f}"


def _lines(result: ImageResult) -> Iterator[str]:
    name = printable(result.name)
    if result.problem is None and not result.faces:
        yield f"{name}: no face found"
    for face in result.faces:
        falling = sorted(face.probs, key=lambda each: -face.probs[each])
        shown = ", ".join(f"{each} {100 * face.probs[each]:.1f} %" for each in falling)
        box = f" ({_shown_box(face)})" if face.box else ""
        flags = f" [{', '.join(face.flags)}]" if face.flags else ""
        yield f"{name}{box}: {shown}{flags}"


class JSONWriter:
    """Prints one JSON object, face by face.

    Args:
        network: The file of the network.
        detector: Its name, or the file of the boxes.
    """

    def __init__(self, network: str, detector: str) -> None:
        head = json.dumps({"checkpoint": writable(network), "detector": writable(detector)}, indent=2)
        self._head = head.removesuffix("\n}") + ',\n  "predictions": ['
        self._num_rows = 0
        self._no_face: list[str] = []
        self._unreadable: list[dict[str, str]] = []
        self._videos: list[dict[str, Any]] = []

    def write(self, result: ImageResult) -> None:
        """Print the faces of an image."""
        if result.problem is not None:
            self._unreadable.append({"image": result.name, "problem": result.problem})
        elif not result.faces:
            self._no_face.append(result.name)
        for face in result.faces:
            text = textwrap.indent(json.dumps(face.to_dict(), indent=2), "    ")
            print(f"{',' if self._num_rows else self._head}\n{text}", end="")  # noqa: T201
            self._num_rows += 1

    def write_frame(self, frame: FrameResult) -> None:
        """Leave the single frames to the CSV file."""

    def write_video(self, video: VideoPrediction) -> None:
        """Keep the tracks of a video."""
        tracks = [track.to_dict() for track in video.tracks]
        self._videos.append({**video.summary(), "tracks": tracks})
        if video.problem is not None:
            self._unreadable.append({"image": video.name, "problem": video.problem})
        elif not tracks:
            self._no_face.append(video.name)

    def close(self) -> None:
        """Print what follows the faces."""
        rest = json.dumps(
            {"videos": self._videos, "no_face": self._no_face, "unreadable": self._unreadable}, indent=2
        )
        start = "\n  " if self._num_rows else self._head
        print(f"{start}],{rest.removeprefix('{')}")  # noqa: T201


class CSVWriter:
    """Writes one row for each face, as it is found; and one for each image without.

    Args:
        file: Opened for writing.
        classes: The names of the last columns.
    """

    def __init__(self, file: IO[str], classes: Sequence[str]) -> None:
        columns = [
            "image",
            "seconds",
            "track",
            *Box._fields,
            "score",
            "expression",
            "probability",
            "flags",
            *classes,
        ]
        self._file = file
        self._rows = csv.DictWriter(file, columns)
        self._rows.writeheader()

    def write(self, result: ImageResult) -> None:
        """Write the rows of an image."""
        rows = [face.to_row() for face in result.faces]
        if not rows:
            reason = "no_face" if result.problem is None else "unreadable"
            rows = [{"image": result.name, "flags": reason}]
        self._write(rows)

    def write_frame(self, frame: FrameResult) -> None:
        """Write the rows of a frame; one without a face has none."""
        self._write([face.to_row() for face in frame.faces])

    def write_video(self, video: VideoPrediction) -> None:
        """Write a row that says so if a video has no faces, or breaks off."""
        if video.problem is not None:
            seconds = round(video.reader.seconds, 3)
            self._write([{"image": video.name, "seconds": seconds, "flags": "unreadable"}])
        elif not video.tracks:
            self._write([{"image": video.name, "flags": "no_face"}])

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        with naming(Path(self._file.name)):
            self._rows.writerows(rows)
            self._file.flush()

    def close(self) -> None:
        """Do nothing more: all rows are written."""


def _is_own_table(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline(1000).startswith(f"image,seconds,track,{','.join(Box._fields)},".encode())


@contextmanager
def open_csv(path: Path) -> Iterator[IO[str]]:
    """Open a CSV file for rows that are complete whenever the command ends.

    Raises:
        OSError: With the name of the file.
    """
    check_not_special(path)
    if path.is_dir():
        raise FERError(f"--csv={path}: a folder, expected a file")
    if path.exists() and path.stat().st_size and not _is_own_table(path):
        raise FERError(f"--csv={path}: exists, and is no table of this command; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
    try:
        yield file
    finally:
        with naming(path):
            file.close()  # which writes what a full disk did not take before


def is_replaceable(path: Path) -> bool:
    """Return whether a file that is to be written is absent, or an image annotated before."""
    return not path.exists() or (path.suffix == ".jpg" and is_annotated(path))


class ImageWriter:
    """Writes ``FOLDER/<name>_faces.jpg`` for each image with faces.

    It replaces images that it wrote before, and no others; their comment says so.

    Args:
        folder: Made if it does not exist.
        images: The paths that were given.
    """

    def __init__(self, folder: Path, images: Sequence[str]) -> None:
        if folder.exists() and not folder.is_dir():
            raise FERError(f"--save={folder}: a file, expected a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._used = {Path(name).expanduser().absolute() for name in images}

    def write(self, result: ImageResult) -> None:
        """Save the annotated image."""
        if result.image is None or not result.faces:
            return
        path = self.path_for(Path(result.name).stem if result.name != "-" else "stdin", ".jpg")
        content = BytesIO()  # into a file Pillow writes itself, and does not see what a full disk left out
        drawn = add_explanations(annotate(result.image, result.faces), result.image, result.explanations)
        drawn.save(content, "JPEG", quality=92, comment=ANNOTATED)
        with replacing(path) as file:
            file.write(content.getbuffer())

    def write_frame(self, frame: FrameResult) -> None:
        """Do nothing: see ``AnnotatedVideo``."""

    def write_video(self, video: VideoPrediction) -> None:
        """Do nothing: see ``AnnotatedVideo``."""

    def path_for(self, stem: str, suffix: str) -> Path:
        """Choose the file of an annotated image or video; none that was given, or chosen before."""
        path, number = self._folder / f"{stem}_faces{suffix}", 1
        while path.absolute() in self._used or not is_replaceable(path):
            number += 1
            path = self._folder / f"{stem}_faces-{number}{suffix}"
        self._used.add(path.absolute())
        return path

    def close(self) -> None:
        """Do nothing more: all images are written."""
