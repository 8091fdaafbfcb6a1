"""RAF-DB, the basic expressions: aligned faces in colour, with one of seven classes.

Li, Deng and Du 2017, "Reliable Crowdsourcing and Deep Locality-Preserving Learning for Expression Recognition
in the Wild", CVPR. The list of labels has the name ``list_patition_label.txt``, with that spelling.
"""

import re
from functools import partial

from fer_lightning.core.errors import FERError
from fer_lightning.data.readers.class_folders import decode_file
from fer_lightning.data.readers.files import File, Folder, is_image_name
from fer_lightning.data.readers.published import (
    Item,
    PublishedSource,
    bad_image,
    check_counts,
    read_lines,
)

LISTS = ("list_patition_label.txt", "list_partition_label.txt")

# The codes are the positions, from 1.
EXPRESSIONS = ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
COUNTS = {
    "train": dict(zip(EXPRESSIONS, (1290, 281, 717, 4772, 1982, 705, 2524), strict=True)),
    "test": dict(zip(EXPRESSIONS, (329, 74, 160, 1185, 478, 162, 680), strict=True)),
}

_LINE = re.compile(r"((train|test)_\d+)(\.\w+)?[\s,]+([1-7])")
_NUMBERED = re.compile(r"(?:.*/)?(train|test)/([1-7])/([^/]+)\.\w+")
_EXPECTED = (
    "EmoLabel/list_patition_label.txt and Image/aligned/train_00001_aligned.jpg, ... of the basic set, or "
    "folders train/1 to train/7 and test/1 to test/7"
)


class RAFDB(PublishedSource):
    """A source for the basic expressions of RAF-DB: 12,271 images in train, 3,068 in test, and no val split.

    Args:
        root: The folder that has ``EmoLabel`` and ``Image`` below it, or the folders ``train/1`` to
            ``test/7`` of a common copy; or a zip or tar of it.
        classes: The seven expressions, by name, in the order of the labels; possibly fewer.
        image_size: Side of an image, in pixels; the aligned images have 100.
        channels: 1 for grey, 3 for colour.
        partial: Whether a class may have no images, for an evaluation.
    """

    name = "rafdb"
    title = "RAF-DB"
    expressions = EXPRESSIONS

    def _list_items(self, root: Folder) -> tuple[list[Item], list[str]]:
        file = _find_list(root)
        if file is None and (numbered := _in_numbered_folders(root)):
            return numbered, check_counts(numbered, COUNTS, self.title)
        if file is None:
            raise FERError(f"{root.where}: no {LISTS[0]}, expected {_EXPECTED}")
        images = _aligned_images(root)
        if not images:
            raise FERError(
                f"{root.where}: no aligned image, expected {_EXPECTED}; unpack "
                "Image/aligned.zip if it is packed"
            )
        items: dict[str, Item] = {}
        for number, line in enumerate(read_lines(file), 1):
            if not line.strip():
                continue
            where, found = f"{file.where}:{number}", _LINE.fullmatch(line.strip())
            if found is None:
                raise FERError(
                    f"{where}: {line.strip()[:60]!r}, expected an image and a class from 1 to 7, as in "
                    "train_00001.jpg 5"
                )
            stem, split = found[1], found[2]
            if stem in items:
                raise FERError(f"{where}: {stem} is also in {items[stem].where}; remove one of the lines")
            image = images.get(stem)
            items[stem] = Item(
                split,
                EXPRESSIONS[int(found[4]) - 1],
                stem,
                f"{where}: {stem}",
                partial(bad_image, f"no image {stem}_aligned.jpg")
                if image is None
                else partial(decode_file, image, exact=False),
            )
        listed = list(items.values())
        notes = check_counts(listed, COUNTS, self.title)
        if unlisted := len(images.keys() - items.keys()):
            notes.append(f"{file.where}: no label for {unlisted:,} of the aligned images, left out")
        return listed, notes


def _aligned_images(root: Folder) -> dict[str, File]:
    """Map the names of the list, without ending, to the aligned images."""
    found: dict[str, File] = {}
    for path, file in root.paths():
        folder, _, name = path.rpartition("/")
        stem = name.rpartition(".")[0]
        if is_image_name(name) and (
            stem.endswith("_aligned") or folder.rpartition("/")[2].lower() == "aligned"
        ):
            if "compound" in folder.lower().split("/"):
                continue
            stem = stem.removesuffix("_aligned")
            if stem in found:
                raise FERError(f"{file.where}: a second image {stem}, after {found[stem].where}; remove one")
            found[stem] = file
    return found


def _find_list(root: Folder) -> File | None:
    """Find the list of the basic expressions; the compound ones have a list of the same name."""
    found = [
        file
        for path, file in root.paths()
        if path.rpartition("/")[2].lower() in LISTS and "compound" not in path.lower().split("/")
    ]
    if len(found) > 1:
        raise FERError(f"{found[1].where}: a second list of labels, after {found[0].where}; remove one")
    return found[0] if found else None


def _in_numbered_folders(root: Folder) -> list[Item]:
    """List the images of folders such as ``train/1``, whose names are the codes."""
    return [
        Item(
            found[1],
            EXPRESSIONS[int(found[2]) - 1],
            found[3].removesuffix("_aligned"),
            file.where,
            partial(decode_file, file, exact=False),
        )
        for path, file in root.paths()
        if is_image_name(path) and (found := _NUMBERED.fullmatch(path)) is not None
    ]
