"""FER+: the images of FER-2013 with ten votes for eight classes.

Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label
Distribution", arXiv:1608.01041. Votes are processed as by the authors' ``src/ferplus.py``
(https://github.com/microsoft/FERPlus, commit 06447e0), modes ``crossentropy``, ``probability`` and
``majority``: single votes count as outliers, and images without a clear answer, of an unknown expression or
without a face are left out.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special
from fer_lightning.data.decode import check_channels
from fer_lightning.data.faces import SPLITS, Record
from fer_lightning.data.labels import label_or_none
from fer_lightning.data.readers import tables
from fer_lightning.data.readers.class_folders import listing_key
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.fer2013_csv import USAGES, Row, read_rows
from fer_lightning.data.readers.files import disk_file, reading
from fer_lightning.data.readers.packed import open_unpacked
from fer_lightning.data.readers.tables import read_header, read_lines

LABELS_FILE = "fer2013new.csv"
EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
_COLUMNS = (*EMOTIONS, "unknown", "NF")  # NF: not a face

_KEPT_SHARE = 0.75  # of the votes: the classes with the most votes that together have it are kept
_MAX_CLASSES = 3  # with votes; an image with more is left out

Targets = Literal["votes", "probability", "majority"]


class _Votes(NamedTuple):
    """One line of the votes: where it is, its split, and ``(10,)`` float32 votes for ``_COLUMNS``."""

    where: str
    split: str
    votes: NDArray[np.float32]


class FERPlus:
    """A source for FER+, from ``fer2013.csv`` and the votes for its rows.

    Args:
        root: ``fer2013.csv`` or ``icml_face_data.csv``, also in a zip, or its folder; may start with ``~``.
        classes: The eight classes, by name, in the order of the labels.
        image_size: Side of an image, in pixels; images of any other size are bad.
        channels: 1 for grey, 3 for the grey levels repeated three times.
        labels: ``fer2013new.csv``; None for the file of this name in the folder of ``root``.
        targets: ``votes`` gives each image the distribution of its votes as a soft target; ``probability``
            does, too, and trains on one class that is drawn from it for each batch; ``majority`` gives
            labels only, of the images with more than half of the votes for one class.
        partial: Whether to take what is there, for an evaluation: images of a class that ``classes`` lacks
            are left out, and counted in ``left_out``; a class or split without images is no error.

    Raises:
        FERError: If a file is missing, or if FER-2013 is there in a form without rows.
    """

    name = "ferplus"
    parallel = True

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        image_size: int = 48,
        channels: int = 1,
        labels: str | Path | None = None,
        targets: Targets = "votes",
        partial: bool = False,
    ) -> None:
        check_channels(channels)
        if targets not in ("votes", "probability", "majority"):
            raise FERError(f"data.source.targets={targets}: expected votes, probability or majority")
        self.classes = classes
        self.partial = partial
        self._left_out: Counter[str] = Counter()
        found = {column: label_or_none(name, classes) for column, name in enumerate(EMOTIONS)}
        self._label_of = {column: label for column, label in found.items() if label is not None}
        self._others = [column for column, label in found.items() if label is None]
        if not partial and (len(classes) != len(EMOTIONS) or self._others):
            raise FERError(
                f"data.classes=[{','.join(classes)}]: FER+ has eight classes, {', '.join(EMOTIONS)}; name "
                "each once"
            )
        self.image_size = image_size
        self.channels = channels
        self.targets = targets
        self.draws_labels = targets == "probability"
        self._fer2013 = open_fer2013(root=root, classes=classes, image_size=image_size)
        file = self._fer2013.csv_file()
        if file is None:
            raise FERError(
                f"{self._fer2013.path}: FER+ is joined with FER-2013 row by row, and the files of class "
                "folders have no order that is known; give fer2013.csv or icml_face_data.csv of the 2013 "
                "Kaggle challenge as data.root"
            )
        self._file = file
        folder = self._fer2013.path if self._fer2013.path.is_dir() else self._fer2013.path.parent
        self.labels = _find_votes(folder) if labels is None else Path(labels).expanduser()
        check_not_special(self.labels, given=f"data.source.labels={self.labels}")
        if not self.labels.is_file():
            raise FERError(
                f"data.source.labels={self.labels}: no such file; download {LABELS_FILE} from "
                "github.com/microsoft/FERPlus"
            )

    def cache_key(self) -> str:
        """Hash paths, sizes and times of both files, and the kind of targets."""
        kind = "votes" if self.draws_labels else self.targets
        known = [list(self.classes)] if self._others else []
        return listing_key(self.labels, None, self._fer2013.cache_key(), kind, *known)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What ``records`` has left out; empty unless ``partial``."""
        return tuple(
            f"FER+: {count:,} images of class {name}, which data.classes does not name, left out"
            for name, count in sorted(self._left_out.items())
        )

    def records(self) -> Iterator[Record]:
        """List the images that are kept, in the order of the rows.

        Raises:
            FERError: If the two files do not match, or if a class has no training image.
        """
        counts: Counter[tuple[str, int]] = Counter()
        self._left_out.clear()
        for row, line in self._pairs():
            if row.fault:
                yield Record(f"?/?/{row.name}", "", -1, row.where, self._decoder(row))
                continue
            if row.split != line.split:
                raise FERError(
                    f"{line.where}: a {line.split} image, but {row.where} is a {row.split} image; expected "
                    "the rows of both files in the same order"
                )
            votes = keep_majority(line.votes) if self.targets == "majority" else keep_votes(line.votes)
            if votes is None:
                continue
            target = np.zeros(len(self.classes), np.float32)
            target[[*self._label_of.values()]] = votes[[*self._label_of]]
            if (other := self._other_emotion(votes, float(target.max()))) is not None:
                self._left_out[other] += 1
                continue
            label = int(target.argmax())
            counts[row.split, label] += 1
            yield Record(
                f"{row.split}/{self.classes[label]}/{row.name}",
                row.split,
                label,
                row.where,
                self._decoder(row),
                None if self.targets == "majority" else target,
            )
        if not self.partial:
            self._check_counts(counts)
        elif not counts:
            raise FERError(f"{self.labels}: no image of class {', '.join(self.classes)} is left")

    def _other_emotion(self, votes: NDArray[np.float32], most: float) -> str | None:
        """Return an emotion without a class that has at least ``most`` votes; None if there is none."""
        if not self._others:
            return None
        column = max(self._others, key=votes.__getitem__)
        return EMOTIONS[column] if votes[column] >= most else None

    def _check_counts(self, counts: Counter[tuple[str, int]]) -> None:
        for label, name in enumerate(self.classes):
            if not counts["train", label]:
                raise FERError(f"{self.labels}: no training image of class {name} is left")
        for split in SPLITS:
            if not any(counted == split for counted, _ in counts):
                raise FERError(f"{self.labels}: no image of the {split} split is left")

    def _decoder(self, row: Row) -> Callable[[], NDArray[np.uint8]]:
        return partial(row.decode, size=self.image_size, channels=self.channels)

    def _pairs(self) -> Iterator[tuple[Row, _Votes]]:
        """Join images and votes by their order."""
        where = self._file.where
        for row, line in zip_longest(read_rows(self._file), _read_votes(self.labels)):
            if row is None or line is None:
                shorter, longer = (where, self.labels) if row is None else (self.labels, where)
                raise FERError(f"{shorter}: fewer rows than {longer}; expected the same number")
            yield row, line


def _find_votes(folder: Path) -> Path:
    """Find the file of the votes in any case; else return where it is expected."""
    found = [each for each in sorted(folder.iterdir()) if each.name.lower() == LABELS_FILE]
    return found[0] if found else folder / LABELS_FILE


def keep_votes(votes: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Keep the votes for the classes that most people chose.

    Single votes are dropped. Classes are taken by their votes, most first and equal ones together, until they
    have ``_KEPT_SHARE`` of the rest, or number ``_MAX_CLASSES``, or unknown or NF is next, whose votes are
    dropped.

    Args:
        votes: ``(10,)`` float32 votes for the eight classes, unknown and NF.

    Returns:
        ``(8,)`` float32 votes; None if unknown or NF comes first, if more than ``_MAX_CLASSES`` classes are
        taken, or if those taken have half of the votes or less.
    """
    left = np.where(votes > 1, votes, 0)
    total = left.sum()
    kept = np.zeros(len(votes), np.float32)
    while kept.sum() < _KEPT_SHARE * total and np.count_nonzero(kept) < _MAX_CLASSES:
        first = int(left.argmax())
        equal = np.flatnonzero(left == left[first])
        faces = equal[equal < len(EMOTIONS)]
        kept[faces] = left[first]
        if len(faces) < len(equal):  # unknown or NF is among them
            break
        left[equal] = 0
    enough = kept.sum() > 0.5 * total and np.count_nonzero(kept) <= _MAX_CLASSES
    return kept[: len(EMOTIONS)] if enough else None


def keep_majority(votes: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Keep the votes for the class with more than half of them, without single votes.

    Args:
        votes: ``(10,)`` float32 votes for the eight classes, unknown and NF.

    Returns:
        ``(8,)`` float32 votes of one class; None if no class has more than half.
    """
    left = np.where(votes > 1, votes, 0)
    first = int(left.argmax())
    if first >= len(EMOTIONS) or left[first] <= 0.5 * left.sum():
        return None
    kept = np.zeros(len(EMOTIONS), np.float32)
    kept[first] = left[first]
    return kept


def _read_votes(path: Path) -> Iterator[_Votes]:
    """List the lines of ``fer2013new.csv``."""
    file = disk_file(path)
    where = file.where
    with reading(f"{where}: "), open_unpacked(file) as binary:
        lines = read_lines(binary, where)
        header = read_header(lines, where, ("Usage", *_COLUMNS), LABELS_FILE)
        usage = header.names.index("usage")
        columns = [header.names.index(name.lower()) for name in _COLUMNS]
        for line, row in tables.read_rows(lines, header, where):
            place = f"{where}:{line}"
            if len(row) != len(header.names):
                raise FERError(f"{place}: {len(row)} columns, expected {len(header.names)}")
            if row[usage].strip() not in USAGES:
                raise FERError(f"{place}: unknown Usage {row[usage]!r}, expected one of: {', '.join(USAGES)}")
            yield _Votes(place, USAGES[row[usage].strip()], _parse([row[index] for index in columns], place))


def _parse(cells: list[str], where: str) -> NDArray[np.float32]:
    try:
        votes = np.array([float(cell) for cell in cells], np.float32)
    except ValueError:
        votes = np.full(len(cells), np.nan, np.float32)
    if not np.isfinite(votes).all() or votes.min() < 0:
        raise FERError(f"{where}: votes {', '.join(cells)}, expected numbers of at least 0")
    return votes
