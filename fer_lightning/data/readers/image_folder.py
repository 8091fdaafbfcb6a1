"""Any images in class folders, with or without split folders."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import check_channels
from fer_lightning.data.faces import Record
from fer_lightning.data.readers.class_folders import (
    SPLIT_FOLDERS,
    class_folders,
    decode_file,
    listing_key,
    scan,
)
from fer_lightning.data.readers.files import File, Folder, check_place

_Labelled = tuple[int, str, File]  # label, file name, file


class ImageFolder:
    """A source for a folder, zip or tar with one sub-folder per class, or such folders for each split.

    Split folders are ``train``, ``val`` and ``test``. A split without a folder is split off from the training
    images by its ratio: class by class, seeded, independent of the order of the files on disk, and with
    identical files kept together. So class folders alone yield all three splits, and ``train`` with ``test``
    yield a val split; a ratio of 0 omits the split.

    Args:
        root: The folder, zip or tar; may start with ``~``.
        classes: The class list that labels refer to. Folders are matched by name, synonyms included.
        image_size: Side of an image, in pixels; images are resized to it.
        channels: 1 for grey, 3 for colour.
        val_ratio: The part of each class's training images to validate on, in [0, 1).
        test_ratio: The part to test on, in [0, 1); the sum of both must be below 1.
        split_seed: The seed of the split.
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
    ) -> None:
        self.path = Path(root).expanduser()
        self.classes = classes
        self.image_size = image_size
        check_channels(channels)
        self.channels = channels
        self.ratios = {"test": test_ratio, "val": val_ratio}
        self.split_seed = split_seed
        for key, value in (("val_ratio", val_ratio), ("test_ratio", test_ratio), ("split_seed", split_seed)):
            whole = key == "split_seed"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                expected = "a whole number" if whole else "a number in [0, 1)"
                raise FERError(f"data.source.{key}={value}: expected {expected}")
        if min(val_ratio, test_ratio) < 0 or val_ratio + test_ratio >= 1:
            raise FERError(
                f"data.source.val_ratio={val_ratio}, data.source.test_ratio={test_ratio}: expected "
                "numbers of at least 0 with a sum below 1"
            )
        check_place(self.path, "class folders of images")

    @cached_property
    def _root(self) -> Folder:
        return scan(self.path)

    @property
    def num_images(self) -> int:
        """The number of files, before anything is decoded."""
        return sum(1 for _ in self._root.walk())

    def cache_key(self) -> str:
        """Hash the settings, and the listing of the folder or the path, size and time of the archive."""
        root = self._root if self.path.is_dir() else None
        return listing_key(self.path, root, self.ratios, self.split_seed)

    def records(self) -> Iterator[Record]:
        """List every image, split by split.

        Raises:
            FERError: If a class or split folder is missing, unknown, duplicated or empty.
        """
        folders = self._split_folders()
        parts = {split: self._list_images(folder) for split, folder in folders.items()}
        parts |= self._split_off(parts["train"], [split for split in self.ratios if split not in parts])
        for split, images in parts.items():
            for label, name, file in images:
                pixels = partial(decode_file, file, size=self.image_size, exact=False, channels=self.channels)
                yield Record(f"{split}/{self.classes[label]}/{name}", split, label, file.where, pixels)

    def _split_folders(self) -> dict[str, Folder]:
        root = self._root
        if not any(name.lower() in SPLIT_FOLDERS for name in root.folders):
            return {"train": root}
        found: dict[str, Folder] = {}
        for name, folder in root.folders.items():
            split = SPLIT_FOLDERS.get(name.lower())
            if split is None:
                raise FERError(f"{folder.where}: unexpected folder next to split folders (train, val, test)")
            if split in found:
                raise FERError(f"{folder.where}: a second {split} folder, after {found[split].where}")
            found[split] = folder
        if "train" not in found:
            raise FERError(f"{root.where}: no folder train, found {', '.join(sorted(root.folders))}")
        return found

    def _list_images(self, folder: Folder) -> list[_Labelled]:
        return [
            (label, name, file)
            for label, below in class_folders(folder, self.classes).items()
            for name, file in sorted(below.files.items())
        ]

    def _split_off(self, images: list[_Labelled], splits: list[str]) -> dict[str, list[_Labelled]]:
        """Split off from the training images the splits that have no folder."""
        ratios = {split: self.ratios[split] for split in splits if self.ratios[split]}
        if not ratios:
            return {"train": images}
        parts: dict[str, list[_Labelled]] = {"train": [], **{split: [] for split in ratios}}
        by_class: dict[int, list[list[_Labelled]]] = defaultdict(list)
        for group in _duplicate_groups(images):
            by_class[group[0][0]].append(group)
        for label, class_name in enumerate(self.classes):
            groups = by_class[label]
            if len(groups) <= len(ratios):
                raise FERError(
                    f"{self._root.where}: class {class_name} has {len(groups)} different images, too few "
                    f"to split into train, {', '.join(ratios)}; add some, or set data.source.val_ratio and "
                    "test_ratio to 0"
                )
            groups.sort(key=self._rank)
            total = sum(map(len, groups))
            for others, (split, ratio) in zip(range(len(ratios), 0, -1), ratios.items(), strict=True):
                wanted = max(1, round(total * ratio))
                taken = 0
                while taken < wanted and len(groups) > others:
                    group = groups.pop()
                    parts[split] += group
                    taken += len(group)
            for group in groups:
                parts["train"] += group
        return parts

    def _rank(self, group: list[_Labelled]) -> bytes:
        """Sort by hashed names, a shuffle that adding an image hardly changes."""
        label, name, _ = group[0]
        return hashlib.blake2b(f"{self.split_seed}/{self.classes[label]}/{name}".encode()).digest()


def _duplicate_groups(images: list[_Labelled]) -> list[list[_Labelled]]:
    """Group files of equal bytes; a file that cannot be read is a group of one."""
    sizes = Counter(file.stamp[0] for _, _, file in images)
    groups: dict[object, list[_Labelled]] = {}
    for image in images:
        label, name, file = image
        key: object = (label, name)
        if sizes[file.stamp[0]] > 1:  # only files of one size can be equal
            with suppress(FERError):  # reported when the image is decoded
                key = hashlib.blake2b(file.read()).digest()
        groups.setdefault(key, []).append(image)
    return list(groups.values())
