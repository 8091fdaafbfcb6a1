"""What readers of published data sets share: classes by name, known class counts, what is left out."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import check_channels
from fer_lightning.data.faces import Record
from fer_lightning.data.labels import label_or_none
from fer_lightning.data.readers.class_folders import listing_key, scan_root
from fer_lightning.data.readers.files import File, Folder, check_place

_DEPTH = 6  # levels of folders that are listed
_WORDS = {"train": "training images", "val": "validation images", "test": "test images"}


class Item(NamedTuple):
    """An image as a data set lists it.

    Attributes:
        split: A name in ``SPLITS``.
        expression: One of the expressions of the data set.
        name: Within its class, for the id.
        where: The file (and line) to name in a message.
        decode: Called with ``size`` and ``channels``; the text of its ``FERError`` is the reason alone.
        group: What it shows, such as a person; None if that is not known.
    """

    split: str
    expression: str
    name: str
    where: str
    decode: Callable[..., NDArray[np.uint8]]
    group: str | None = None


class PublishedSource:
    """The part of a source that is the same for every published data set.

    A reader sets the attributes and ``_list_items``.

    Args:
        root: The folder, zip or tar; may start with ``~``.
        classes: The class list that labels refer to, in any order: expressions are matched by name. Images
            of expressions that it lacks are left out, and counted in ``left_out``.
        image_size: Side of an image, in pixels; images are resized to it.
        channels: 1 for grey, 3 for colour.
        partial: Whether to take what is there, for an evaluation: a class without images is no error.

    Attributes:
        name: As in ``Source``.
        title: The name for people.
        expressions: The classes of the data set.
    """

    name: str
    title: str
    expressions: tuple[str, ...]
    parallel = True

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        channels: int = 1,
        partial: bool = False,
    ) -> None:
        self.path = Path(root).expanduser()
        self.classes = classes
        self.image_size = image_size
        check_channels(channels)
        self.channels = channels
        self.partial = partial
        self._labels = {name: label_or_none(name, classes) for name in self.expressions}
        unknown = [name for label, name in enumerate(classes) if label not in self._labels.values()]
        if unknown and not partial:
            raise FERError(
                f"data.classes=[{','.join(classes)}]: {self.title} has no class {', '.join(unknown)}; "
                f"expected some of {', '.join(self.expressions)}"
            )
        check_place(self.path, f"the folder of {self.title}")

    def _list_items(self, root: Folder) -> tuple[list[Item], list[str]]:
        """List every image, and sentences on what was found."""
        raise NotImplementedError

    def _settings(self) -> list[object]:
        """Return further JSON values on which the images depend."""
        return []

    @property
    def num_images(self) -> int:
        """The number of images that are used, before anything is decoded."""
        return len(self._read[0])

    @property
    def left_out(self) -> tuple[str, ...]:
        """What was found that is not as in the whole data set, and which images are not used."""
        return self._read[1]

    def cache_key(self) -> str:
        """Hash the settings, and the listing of the folder or the path, size and time of the archive."""
        root = self._root if self.path.is_dir() else None
        # For training nothing is read: the labels of AffectNet are in 290,000 files.
        incomplete = ["partial"] if self.partial and self._missing_classes(self._read[0]) else []
        return listing_key(self.path, root, self.title, *self._settings(), *incomplete)

    def records(self) -> Iterator[Record]:
        """List every image that is used.

        Raises:
            FERError: If a file is missing or listed twice, if a label is none, or if a class has no training
                image.
        """
        for item in self._read[0]:
            label = self._labels[item.expression]
            assert label is not None, item
            yield Record(
                f"{item.split}/{self.classes[label]}/{item.name}",
                item.split,
                label,
                item.where,
                partial(item.decode, size=self.image_size, channels=self.channels),
                group=item.group,
            )

    @cached_property
    def _root(self) -> Folder:
        return scan_root(self.path, depth=_DEPTH)

    @cached_property
    def _read(self) -> tuple[list[Item], tuple[str, ...]]:
        items, notes = self._list_items(self._root)
        seen: dict[tuple[str, ...], str] = {}
        for item in items:
            if (before := seen.setdefault(item[:3], item.where)) != item.where:
                raise FERError(f"{item.where}: {item.name} is also in {before}; remove one of them")
        used = [item for item in items if self._labels[item.expression] is not None]
        unused = Counter(item.expression for item in items if self._labels[item.expression] is None)
        notes += [
            f"{self.title}: {count:,} images of class {name}, which data.classes does not name, left out"
            for name, count in sorted(unused.items())
        ]
        lacking = self._missing_classes(used)
        if lacking and (not self.partial or not used):
            raise FERError(
                f"{self.path}: no training image of class {', '.join(lacking)}; expected the folder of "
                f"{self.title}, with images of each class"
            )
        if lacking:
            notes.append(f"{self.title}: no images of class {', '.join(lacking)}")
        return used, tuple(notes)

    def _missing_classes(self, used: Sequence[Item]) -> list[str]:
        """List the classes without images, or, but for an evaluation, without training images."""
        present = {self._labels[item.expression] for item in used if self.partial or item.split == "train"}
        return [name for label, name in enumerate(self.classes) if label not in present]


def check_counts(
    items: Sequence[Item],
    known: Mapping[str, Mapping[str, int]],
    title: str,
    *,
    words: Mapping[str, str] = _WORDS,
) -> list[str]:
    """Compare class counts with those of the whole data set: the order of the labels must be right.

    Args:
        items: The images.
        known: The images of each expression in each split of the whole data set.
        title: Of the data set.
        words: What to call the images of a split.

    Returns:
        A sentence for each split that has another number of images, and thus cannot be checked.

    Raises:
        FERError: If a split has as many images as the whole data set, but others of some class.
    """
    notes = []
    for split, expected in known.items():
        found = Counter(item.expression for item in items if item.split == split)
        whole, images = sum(expected.values()), words[split]
        if found.total() != whole:
            notes.append(
                f"{title}: {found.total():,} {images}, and {whole:,} in the whole data set, so the order of "
                "the labels could not be checked by their counts"
            )
        elif wrong := [name for name in expected if found[name] != expected[name]]:
            raise FERError(
                f"{title}: {whole:,} {images}, as in the whole data set, but {found[wrong[0]]:,} of class "
                f"{wrong[0]}, expected {expected[wrong[0]]:,}; the labels are in another order, or altered"
            )
    return notes


def read_lines(file: File) -> list[str]:
    """Read the lines of a small text file.

    Raises:
        FERError: If it cannot be read, or is not UTF-8 text.
    """
    try:
        return file.read().decode("utf-8-sig").splitlines()
    except FERError as error:
        raise FERError(f"{file.where}: {error}") from error
    except UnicodeDecodeError as error:
        raise FERError(f"{file.where}: not UTF-8 text ({error.reason})") from error


def bad_image(reason: str, *, size: int, channels: int) -> NDArray[np.uint8]:  # noqa: ARG001 - as others
    """Raise the error of an image that is listed, but missing or unusable."""
    raise FERError(reason)
