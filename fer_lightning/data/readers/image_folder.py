"""Any images in class folders, with or without split folders."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import check_channels
from fer_lightning.data.faces import Holdout, Record
from fer_lightning.data.readers.class_folders import (
    SPLIT_FOLDERS,
    class_folders,
    decode_file,
    listing_key,
    scan,
)
from fer_lightning.data.readers.files import File, Folder, check_place
from fer_lightning.data.readers.groups import open_grouping
from fer_lightning.data.readers.ratios import check_ratios

_NESTED = 8  # levels of folders that are listed where class folders may contain folders


class ImageFolder:
    """A source for a folder, zip or tar with one sub-folder per class, or such folders for each split.

    Split folders are ``train``, ``val`` and ``test``. A split without a folder is split off from the training
    images by its ratio after decoding, see ``dealing.split_off``: class by class, seeded, independent of the
    order of the files on disk, with duplicates, near-duplicates and groups kept together. So class folders
    alone yield all three splits, and ``train`` with ``test`` yield a val split; a ratio of 0 omits the split.

    Args:
        root: The folder, zip or tar; may start with ``~``.
        classes: The class list that labels refer to. Folders are matched by name, synonyms included.
        image_size: Side of an image, in pixels; images are resized to it.
        channels: 1 for grey, 3 for colour.
        val_ratio: The part of each class's training images to validate on, in [0, 1).
        test_ratio: The part to test on, in [0, 1); the sum of both must be below 1.
        split_seed: The seed of the split.
        group: What images of one person, or of one video, have in common: a regular expression, searched for
            in the id (``train/class/name`` for images without a split folder), whose first group, or else
            whole match, is the group; ``folder:1`` for the folders below the class folders, ``folder:2`` for
            those below these; or ``{csv: FILE, column: NAME}``, whose rows name images by id, class and name,
            path or file name. With it, class folders may contain folders.
        partial: Whether to take what is there, for an evaluation: a missing split or class is no error, and
            unknown classes are left out; ``left_out`` says so.
    """

    name = "image_folder"
    parallel = True

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        channels: int = 1,
        val_ratio: float = 0.1,
        test_ratio: float = 0.1,
        split_seed: int = 0,
        group: str | Mapping[str, str] | None = None,
        partial: bool = False,
    ) -> None:
        self.path = Path(root).expanduser()
        self.classes = classes
        self.image_size = image_size
        check_channels(channels)
        self.channels = channels
        self.ratios = {"test": test_ratio, "val": val_ratio}
        self.split_seed = split_seed
        self.partial = partial
        check_ratios(val_ratio, test_ratio, split_seed)
        self._grouping = open_grouping(group)
        check_place(self.path, "class folders of images")

    @cached_property
    def _root(self) -> Folder:
        return scan(self.path, depth=3 if self._grouping is None else _NESTED)

    @property
    def num_images(self) -> int:
        """The number of files, before anything is decoded."""
        return sum(1 for _ in self._root.walk())

    def cache_key(self) -> str:
        """Hash the settings, and the listing of the folder or the path, size and time of the archive."""
        root = self._root if self.path.is_dir() else None
        grouping = None if self._grouping is None else self._grouping.settings()
        incomplete = ["partial"] if self.left_out or "train" not in self._split_folders() else []
        return listing_key(self.path, root, self.ratios, self.split_seed, grouping, *incomplete)

    def holdout(self) -> Holdout | None:
        """Return the splits that have no folder, with their ratios; None if there are none."""
        folders = self._split_folders()
        if "train" not in folders:
            return None
        ratios = {split: ratio for split, ratio in self.ratios.items() if ratio and split not in folders}
        return Holdout(ratios, self.split_seed, self._root.where) if ratios else None

    def records(self) -> Iterator[Record]:
        """List every image, split by split; those of a split without a folder are in train.

        Raises:
            FERError: If a class or split folder is missing, unknown, duplicated or empty, or an image has no
                group.
        """
        for split, folder in self._split_folders().items():
            for label, name, path, file in self._list_images(folder):
                image_id = f"{split}/{self.classes[label]}/{name}"
                pixels = partial(decode_file, file, size=self.image_size, exact=False, channels=self.channels)
                group = None if self._grouping is None else self._grouping.group_of(image_id, path)
                yield Record(image_id, split, label, file.where, pixels, group=group)

    @cached_property
    def left_out(self) -> tuple[str, ...]:
        """What of the folder is not used, and which classes have no images; empty unless ``partial``."""
        notes: list[str] = []
        if self.partial:
            for folder in self._split_folders(notes).values():
                self._class_folders(folder, notes)
        return tuple(notes)

    def _class_folders(self, folder: Folder, left_out: list[str] | None = None) -> dict[int, Folder]:
        notes = [] if left_out is None and self.partial else left_out
        return class_folders(folder, self.classes, nested=self._grouping is not None, left_out=notes)

    def _split_folders(self, left_out: list[str] | None = None) -> dict[str, Folder]:
        root = self._root
        if not any(name.lower() in SPLIT_FOLDERS for name in root.folders):
            return {"train": root}
        found: dict[str, Folder] = {}
        for name, folder in root.folders.items():
            split = SPLIT_FOLDERS.get(name.lower())
            if split is None and self.partial:
                if left_out is not None:
                    left_out.append(f"{folder.where}: a folder next to split folders, left out")
                continue
            if split is None:
                raise FERError(f"{folder.where}: unexpected folder next to split folders (train, val, test)")
            if self.partial and not any(True for _ in folder.walk()):
                continue
            if split in found:
                raise FERError(f"{folder.where}: a second {split} folder, after {found[split].where}")
            found[split] = folder
        if "train" not in found and not self.partial:
            raise FERError(f"{root.where}: no folder train, found {', '.join(sorted(root.folders))}")
        return found

    def _list_images(self, folder: Folder) -> Iterator[tuple[int, str, str, File]]:
        """List the images of a split: label, name in the class folder, path below the root, and file."""
        above = "" if folder is self._root else f"{_path_in(self._root, folder)}/"
        for label, below in self._class_folders(folder).items():
            path = f"{above}{_path_in(folder, below)}/"
            for name, file in sorted(below.paths(), key=lambda named: named[0]):
                yield label, name, path + name, file


def _path_in(folder: Folder, below: Folder) -> str | None:
    """Return the path from a folder to one below it; None if it is not below."""
    for name, each in folder.folders.items():
        if each is below:
            return name
        if (rest := _path_in(each, below)) is not None:
            return f"{name}/{rest}"
    return None
