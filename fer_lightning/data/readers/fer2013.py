"""FER-2013 in every published form, recognised by content and not by name.

Class folders in a folder, zip or tar (msambare/fer2013 of Kaggle), ``fer2013.csv``, ``icml_face_data.csv``,
each plain, packed, or in a zip or tar, such as ``fer2013.tar.gz`` of the challenge. A fault of the data set
raises ``FERError`` while records are listed; a fault of one image (a file, a CSV row) raises when the
``pixels`` of its record is called, so that ``data.on_bad=skip`` can skip it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import check_channels
from fer_lightning.data.faces import Record
from fer_lightning.data.readers.class_folders import (
    class_folders,
    decode_file,
    enter,
    listing_key,
    lone_folder,
    scan_root,
)
from fer_lightning.data.readers.fer2013_csv import COLUMNS, USAGES, count_columns, read_csv
from fer_lightning.data.readers.files import File, Folder, check_place, disk_file, is_image_name, scan_folder
from fer_lightning.data.readers.packed import describe_kind, kind_of

LOOKED_FOR = (
    "looked for train/<class>/ and test/<class>/ (as a folder or in a zip or tar), and for a CSV with the "
    "columns emotion, pixels, Usage (plain or packed)"
)
HOW_TO_GET = (
    "Three ways to get FER-2013: (1) download msambare/fer2013 from kaggle.com manually and save it as "
    "data/fer2013/archive.zip; (2) let kagglehub download it (data.download=true and a network); (3) put "
    "fer2013.csv or icml_face_data.csv of the 2013 Kaggle challenge into data/fer2013/"
)


class Fer2013:
    """A source for FER-2013 in one file or folder, which ``open_fer2013`` finds.

    Args:
        path: A zip, a tar, a CSV, or a folder of split folders.
        classes: The class list that labels refer to.
        image_size: Side of an image, in pixels; images of any other size are bad.
        channels: 1 for grey, 3 for the grey levels repeated three times.
    """

    name = "fer2013"
    parallel = True

    def __init__(self, path: Path, *, classes: Sequence[str], image_size: int, channels: int = 1) -> None:
        self.path = path
        self.classes = classes
        self.image_size = image_size
        check_channels(channels)
        self.channels = channels

    @cached_property
    def _listing(self) -> Folder:
        return scan_root(self.path)

    @cached_property
    def _root(self) -> Folder:
        return enter(self._listing)

    def cache_key(self) -> str:
        """Hash the path, size and time of a file, or the listing of a folder."""
        return listing_key(self.path, self._root if self.path.is_dir() else None)

    def records(self) -> Iterator[Record]:
        """List every image; one with an invalid label or split has label -1 and raises in ``pixels``.

        Raises:
            FERError: If the data set as a whole has a fault.
        """
        counts: Counter[tuple[str, int]] = Counter()
        where, found = self._find_records()
        for record in found:
            counts[record.split, record.label] += 1
            yield record
        for usage, split in USAGES.items():
            if not any(counted == split for counted, _ in counts):
                raise FERError(f"{where}: the {split} split ({usage}) is empty")
        for label, name in enumerate(self.classes):
            if not counts["train", label]:
                raise FERError(f"{where}: the train split (Training) has no image of class {name}")

    def _find_records(self) -> tuple[str, Iterator[Record]]:
        file = self.csv_file()
        if file is None:
            return self._root.where, self._read_folders(self._root)
        return file.where, read_csv(
            file, classes=self.classes, image_size=self.image_size, channels=self.channels
        )

    def csv_file(self) -> File | None:
        """Return the CSV on disk or in an archive; None for split folders."""
        if not self.path.is_dir() and not _is_archive(file := disk_file(self.path)):
            return file
        if _has_split_folders(self._root):
            return None
        files = [file for file in self._listing.walk() if not is_image_name(file.where)]
        return _choose(self._listing, [file for file in files if count_columns(file)])

    def _read_folders(self, root: Folder) -> Iterator[Record]:
        splits = {name.lower(): folder for name, folder in root.folders.items()}
        for name in ("train", "test"):
            if name not in splits:
                raise FERError(f"{root.where}: no folder {name}/, expected train/ and test/")
        for name, folder in splits.items():
            if name not in ("train", "test"):
                raise FERError(f"{folder.where}: unexpected folder, expected only train/ and test/")
        for part, allowed, rule in (("train", ("train",), "not"), ("test", ("val", "test"), "all")):
            for label, folder in class_folders(splits[part], self.classes).items():
                for name, file in sorted(folder.files.items()):
                    split = USAGES.get(name.split("_")[0], "train" if part == "train" else "")
                    if split not in allowed:
                        raise FERError(
                            f"{file.where}: files of {part}/ must {rule} begin with PublicTest_ (val) or "
                            "PrivateTest_ (test); for other splits use data=image_folder"
                        )
                    pixels = partial(
                        decode_file, file, size=self.image_size, exact=True, channels=self.channels
                    )
                    yield Record(f"{split}/{self.classes[label]}/{name}", split, label, file.where, pixels)


def _has_split_folders(folder: Folder) -> bool:
    return any(name.lower() in ("train", "test") for name in folder.folders)


def _is_archive(file: File) -> bool:
    return kind_of(file) in ("zip", "tar")


def _choose(folder: Folder, candidates: Sequence[File]) -> File:
    """Choose the one file of a folder that is the data set.

    A complete CSV goes before the archives next to it: the challenge has the same images in both. One that
    lacks columns is chosen if there is nothing else, since its reader says what it lacks.
    """
    by_columns: dict[int, list[File]] = {}
    for file in candidates:
        by_columns.setdefault(count_columns(file), []).append(file)
    whole = by_columns.get(len(COLUMNS)) or by_columns.get(0) or []  # complete CSVs, else archives
    if len(whole) > 1:
        names = ", ".join(sorted(file.where for file in whole))
        raise FERError(
            f"{folder.where}: contains more than one data set ({names}); give one of them as the root"
        )
    if not candidates:
        names = ", ".join(sorted([*folder.folders, *folder.files])[:10]) or "nothing"
        raise FERError(f"{folder.where}: not FER-2013; {LOOKED_FOR}, found {names}. {HOW_TO_GET}")
    return whole[0] if whole else max(candidates, key=count_columns)


def open_fer2013(
    *, root: str | Path, classes: Sequence[str], image_size: int = 48, channels: int = 1
) -> Fer2013:
    """Find FER-2013 below a root, in any form.

    At most the first bytes of files are read, so a start with a warm cache is fast; the content of an archive
    is checked when its records are listed. Split folders take precedence over a CSV, and a CSV over archives.

    Args:
        root: A zip, a tar, a CSV, a folder of split folders, or a folder that holds one of these; may start
            with ``~``.
        classes: The class list that labels refer to.
        image_size: Side of an image, in pixels.
        channels: 1 for grey, 3 for the grey levels repeated three times.

    Returns:
        A source for ``load_faces``.

    Raises:
        FERError: If no usable form is found.
    """
    path = Path(root).expanduser()
    check_place(path, f"FER-2013; {LOOKED_FOR}. {HOW_TO_GET}")
    if path.is_dir():
        path = _find_below(path)
    elif not _is_archive(file := disk_file(path)) and not count_columns(file):
        found = describe_kind(file) or "neither a zip, a tar nor a CSV"
        raise FERError(f"{file.where}: not FER-2013, {found}; {LOOKED_FOR}. {HOW_TO_GET}")
    return Fer2013(path, classes=classes, image_size=image_size, channels=channels)


def _find_below(path: Path) -> Path:
    """Find the split folders, or the file that is the data set, in a folder or in lone folders below it."""
    folder = scan_folder(path, depth=0)
    while True:
        if _has_split_folders(folder):
            return Path(folder.key)
        files = [file for name, file in folder.files.items() if not is_image_name(name)]
        files = [file for file in files if _is_archive(file) or count_columns(file)]
        inner = lone_folder(folder)
        if files or inner is None:
            return Path(_choose(folder, files).key)
        folder = inner
