"""AffectNet in both of its releases, tested on its official validation set: the test set is not public.

Mollahosseini, Hasani and Mahoor 2017, "AffectNet: A Database for Facial Expression, Valence, and Arousal
Computing in the Wild", arXiv:1708.03985.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.array_files import UNREADABLE
from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import decode_crop
from fer_lightning.data.readers.class_folders import decode_file
from fer_lightning.data.readers.csv_columns import Box, parse_box
from fer_lightning.data.readers.files import File, Folder, is_image_name, reading
from fer_lightning.data.readers.packed import open_unpacked
from fer_lightning.data.readers.published import Item, PublishedSource, bad_image, check_counts
from fer_lightning.data.readers.tables import read_header, read_lines, read_rows

# The codes are the positions; 8 to 10 have no expression: none, uncertain, no face.
EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
NUM_CODES = 11
COUNTS = {
    "train": dict(zip(EXPRESSIONS, (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750), strict=True)),
    "test": dict.fromkeys(EXPRESSIONS, 500),
}
NOTE = "AffectNet: the test split is the official validation set, because the test set is not public"

_WORDS = {"train": "training images", "test": "images of the official validation set"}
_SPLITS = {"train_set": "train", "val_set": "test", "training.csv": "train", "validation.csv": "test"}
_LABEL = re.compile(r"(?:.*/)?(train_set|val_set)/annotations/(\d+)_exp\.npy")
_IMAGE = re.compile(r"(?:.*/)?(train_set|val_set)/images/(\d+)\.\w+")
_TABLE = re.compile(r"(?:.*/)?(?:manually_)?(training\.csv|validation\.csv)", re.IGNORECASE)
_COLUMNS = ("subDirectory_filePath", "expression")
_BOX = ("face_x", "face_y", "face_width", "face_height")
_EXPECTED = (
    "train_set/images/0.jpg, train_set/annotations/0_exp.npy and val_set/ (the newer release), or "
    "training.csv, validation.csv and the folders of Manually_Annotated_Images (the older one); a table of "
    "another layout is read by data=csv, as with data.source.path=pth"
)


class _Label(NamedTuple):
    """A label: where it is, its split, the key of its image, its code, and the cells of a box."""

    where: str
    split: str
    key: str
    code: int
    box: list[str] | None


class AffectNet(PublishedSource):
    """A source for the manually annotated images of AffectNet; the test split is its official validation set.

    Args:
        root: The folder that has ``train_set`` and ``val_set``, or ``training.csv``, ``validation.csv`` and
            the images, below it; or a zip or tar.
        classes: Seven or eight expressions, by name, in the order of the labels; possibly fewer.
        image_size: Side of an image, in pixels; images are resized to it.
        channels: 1 for grey, 3 for colour.
        crop: Whether to cut out the box of the face that the CSVs of the older release have; the images of
            the newer one are used as they are.
        partial: Whether a class may have no images, for an evaluation.
    """

    name = "affectnet"
    title = "AffectNet"
    expressions = EXPRESSIONS

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        channels: int = 1,
        crop: bool = True,
        partial: bool = False,
    ) -> None:
        if not isinstance(crop, bool):
            raise FERError(f"data.source.crop={crop}: expected true or false")
        self.crop = crop
        super().__init__(
            root=root, classes=classes, image_size=image_size, channels=channels, partial=partial
        )

    def _settings(self) -> list[object]:
        return [self.crop]

    def _list_items(self, root: Folder) -> tuple[list[Item], list[str]]:
        images: dict[str, File] = {}
        labels: list[tuple[str, File]] = []
        tables: list[tuple[str, File]] = []
        for path, file in root.paths():
            if is_image_name(path):
                found = _IMAGE.fullmatch(path)
                key = f"{found[1]}/{found[2]}" if found else "/".join(path.split("/")[-2:])
                if key in images:
                    raise FERError(
                        f"{file.where}: a second image {key}, after {images[key].where}; remove one"
                    )
                images[key] = file
            elif _LABEL.fullmatch(path):
                labels.append((path, file))
            elif _TABLE.fullmatch(path):
                tables.append((path, file))
        if bool(labels) == bool(tables):
            found_both = "both releases" if labels else "no labels of AffectNet"
            raise FERError(f"{root.where}: {found_both}, expected {_EXPECTED}")
        listed = map(_read_label, sorted(labels)) if labels else self._read_tables(tables)
        items, nameless, unlisted = [], Counter[str](), set(images)
        for label in listed:
            unlisted.discard(label.key)
            if label.code < len(EXPRESSIONS):
                items.append(_item(label, images.get(label.key)))
            else:
                nameless[_WORDS[label.split]] += 1
        notes = [
            f"AffectNet: {count:,} {what} without an expression (none, uncertain or no face), left out"
            for what, count in nameless.items()
        ]
        if unlisted:
            notes.append(f"AffectNet: {len(unlisted):,} images without a label, left out")
        return items, [NOTE, *notes, *check_counts(items, COUNTS, self.title, words=_WORDS)]

    def _read_tables(self, tables: list[tuple[str, File]]) -> Iterator[_Label]:
        """List the rows of the CSVs of the older release."""
        seen: dict[str, str] = {}
        for path, file in sorted(tables, key=lambda named: named[0]):
            found = _TABLE.fullmatch(path)
            assert found is not None
            split = _SPLITS[found[1].lower()]
            if split in seen:
                raise FERError(f"{file.where}: a second table of this split, after {seen[split]}; remove one")
            seen[split] = file.where
            with reading(f"{file.where}: "), file.lock, open_unpacked(file) as binary:
                lines = read_lines(binary, file.where)
                columns = (*_COLUMNS, *(_BOX if self.crop else ()))
                header = read_header(lines, file.where, columns, "AffectNet's CSVs", _advise)
                places = [header.names.index(name.lower()) for name in columns]
                for line, cells in read_rows(lines, header, file.where):
                    where = f"{file.where}:{line}"
                    if len(cells) != len(header.names):
                        raise FERError(f"{where}: {len(cells)} columns, expected {len(header.names)}")
                    name, code, *box = (cells[place].strip() for place in places)
                    key = "/".join(re.split(r"[/\\]", name)[-2:])
                    yield _Label(f"{where}: {name}", split, key, _to_code(code, where), box or None)


def _advise(missing: Collection[str]) -> str:
    return "; data.source.crop=false does without boxes" if set(_BOX) & set(missing) else ""


def _read_label(named: tuple[str, File]) -> _Label:
    """Read a file of the newer release, which holds one number."""
    path, file = named
    found = _LABEL.fullmatch(path)
    assert found is not None
    try:
        value = np.load(BytesIO(file.read()), allow_pickle=False)
        text = str(value.reshape(-1)[0]) if value.size == 1 else f"{value.size} numbers"
    except FERError as error:
        raise FERError(f"{file.where}: {error}") from error
    except UNREADABLE as error:
        reason = " ".join(str(error).split())[:200]
        raise FERError(f"{file.where}: not a NumPy file with one number ({reason})") from error
    key = f"{found[1]}/{found[2]}"
    return _Label(file.where, _SPLITS[found[1]], key, _to_code(text, file.where), None)


def _to_code(text: str, where: str) -> int:
    try:
        code = float(text)
    except ValueError:
        code = -1.0
    if code not in range(NUM_CODES):
        raise FERError(
            f"{where}: expression {text[:40]!r}, expected a number from 0 (neutral) to 10 (no face)"
        )
    return int(code)


def _item(label: _Label, image: File | None) -> Item:
    decode = partial(bad_image, f"no image {label.key}")
    name = label.key.rpartition("/")[2] if label.box is None else label.key
    if image is not None:
        decode = partial(decode_file, image, exact=False)
        name = image.where.rpartition("/")[2] if label.box is None else label.key
    if image is not None and label.box is not None:
        try:
            decode = partial(_decode_face, image, parse_box(label.box))
        except FERError as error:
            decode = partial(bad_image, str(error))
    return Item(label.split, EXPRESSIONS[label.code], name, label.where, decode)


def _decode_face(file: File, box: Box, *, size: int, channels: int) -> NDArray[np.uint8]:
    return decode_crop(file.read(), box, size=size, channels=channels)
