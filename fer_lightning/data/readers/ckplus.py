"""CK+: posed expressions in sequences of frames, split by subject.

Lucey et al. 2010, "The Extended Cohn-Kanade Dataset (CK+)". A sequence begins with a neutral face and ends
with the expression that its label names, so only its last frames are used. They are near-copies of each
other, and a person has several sequences: all images of a person get the same split.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Holdout
from fer_lightning.data.labels import class_index
from fer_lightning.data.readers.class_folders import decode_file
from fer_lightning.data.readers.files import File, Folder, is_image_name
from fer_lightning.data.readers.published import (
    Item,
    PublishedSource,
    bad_image,
    check_counts,
    read_lines,
)
from fer_lightning.data.readers.ratios import check_ratios

# The codes are the positions, from 1; 0 is neutral, which no sequence has.
EXPRESSIONS = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
SEQUENCES = dict(zip(EXPRESSIONS, (45, 18, 59, 25, 69, 28, 83), strict=True))
FRAMES = 3  # of a sequence: the usual 981 images

_LABEL = re.compile(r"(S\d+)_(\d+)_\d+_emotion\.txt", re.IGNORECASE)
_FRAME = re.compile(r"(S\d+)_(\d+)_(\d{1,18})\b.*", re.IGNORECASE)
_EXPECTED = (
    "Emotion/S005/001/S005_001_00000011_emotion.txt and cohn-kanade-images/S005/001/S005_001_00000011.png, "
    "or class folders such as anger/S010_004_00000017.png"
)


class CKPlus(PublishedSource):
    """A source for CK+, as published or as class folders of frames; all splits are dealt out by subject.

    Args:
        root: The folder that has ``cohn-kanade-images`` and ``Emotion`` below it, or class folders whose
            images have names such as ``S010_004_00000017.png``; also a zip or tar.
        classes: The seven expressions, by name, in the order of the labels; possibly fewer.
        image_size: Side of an image, in pixels; the whole image is resized to it.
        channels: 1 for grey, 3 for colour.
        frames: How many frames of a sequence are used, from its end; class folders are used as they are.
        val_ratio: The part of each class to validate on, in [0, 1).
        test_ratio: The part to test on, in [0, 1); the sum of both must be below 1.
        split_seed: The seed of the splits.
        partial: Whether a class may have no images, for an evaluation.
    """

    name = "ckplus"
    title = "CK+"
    expressions = EXPRESSIONS

    def __init__(
        self,
        *,
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        channels: int = 1,
        frames: int = FRAMES,
        val_ratio: float = 0.1,
        test_ratio: float = 0.1,
        split_seed: int = 0,
        partial: bool = False,
    ) -> None:
        check_ratios(val_ratio, test_ratio, split_seed)
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise FERError(f"data.source.frames={frames}: expected a whole number of at least 1")
        self.frames = frames
        self.ratios = {"test": test_ratio, "val": val_ratio}
        self.split_seed = split_seed
        super().__init__(
            root=root, classes=classes, image_size=image_size, channels=channels, partial=partial
        )

    def _settings(self) -> list[object]:
        return [self.frames, self.ratios, self.split_seed]

    def holdout(self) -> Holdout | None:
        """Return all splits with their ratios; None if both are 0."""
        ratios = {split: ratio for split, ratio in self.ratios.items() if ratio}
        return Holdout(ratios, self.split_seed, str(self.path)) if ratios else None

    def _list_items(self, root: Folder) -> tuple[list[Item], list[str]]:
        files = sorted(root.paths(), key=lambda named: named[0])
        labels = [file for path, file in files if _LABEL.fullmatch(path.rpartition("/")[2])]
        images = [(path, file) for path, file in files if is_image_name(path)]
        if labels:
            items, notes, frames = *self._list_sequences(labels, images), self.frames
        else:
            items, notes, frames = self._list_class_folders(root, images), [], FRAMES
        known = {"train": {name: count * frames for name, count in SEQUENCES.items()}}
        return items, [*notes, *check_counts(items, known, self.title, words={"train": "images"})]

    def _list_sequences(
        self, labels: list[File], images: list[tuple[str, File]]
    ) -> tuple[list[Item], list[str]]:
        """List the last frames of each sequence that has a label."""
        sequences: dict[tuple[str, str], list[tuple[int, File]]] = defaultdict(list)
        for path, file in images:
            if found := _FRAME.fullmatch(path.rpartition("/")[2]):
                sequences[found[1].upper(), found[2]].append((int(found[3]), file))
        items: list[Item] = []
        seen: dict[tuple[str, str], File] = {}
        for file in labels:
            found = _LABEL.fullmatch(_name(file))
            assert found is not None
            sequence = (found[1].upper(), found[2])
            if sequence in seen:
                raise FERError(f"{file.where}: a second label, after {seen[sequence].where}; remove one")
            seen[sequence] = file
            expression = _read_label(file)
            frames = sorted(sequences.get(sequence, []), key=lambda numbered: numbered[0])[-self.frames :]
            items += [_item(expression, _name(frame), frame, sequence[0]) for _, frame in frames]
            if not frames:
                name = "_".join(sequence)
                lacking = partial(bad_image, f"no image {name}_*.png of this sequence")
                items.append(Item("train", expression, name, file.where, lacking, sequence[0]))
        unlabelled = len(sequences.keys() - seen.keys())
        notes = [f"{self.title}: {unlabelled:,} sequences have no label, left out"] if unlabelled else []
        return items, notes

    def _list_class_folders(self, root: Folder, images: list[tuple[str, File]]) -> list[Item]:
        """List the images of class folders; their names begin with the subject."""
        items: list[Item] = []
        for path, file in images:
            folder, _, name = path.rpartition("/")
            try:
                label = class_index(folder.rpartition("/")[2] or root.where, EXPRESSIONS)
            except FERError as error:
                raise FERError(
                    f"{file.where}: neither a label of its sequence nor a class folder; expected {_EXPECTED}"
                ) from error
            frame = _FRAME.fullmatch(name)
            if frame is None:
                raise FERError(
                    f"{file.where}: no subject in the name, expected one such as S010_004_00000017.png; "
                    "images of other names are read by data=image_folder"
                )
            items.append(_item(EXPRESSIONS[label], name, file, frame[1].upper()))
        if not items:
            raise FERError(f"{root.where}: no images of CK+, expected {_EXPECTED}")
        return items


def _name(file: File) -> str:
    return re.split(r"[/\\]", file.where)[-1]


def _item(expression: str, name: str, file: File, subject: str) -> Item:
    return Item("train", expression, name, file.where, partial(decode_file, file, exact=False), subject)


def _read_label(file: File) -> str:
    """Read the number in a file of a label, such as 3.0000000e+00."""
    text = " ".join(read_lines(file)).strip()
    try:
        code = float(text)
    except ValueError:
        code = 0.0
    if code not in range(1, len(EXPRESSIONS) + 1):
        raise FERError(f"{file.where}: {text[:40]!r}, expected a number from 1 (anger) to 7 (surprise)")
    return EXPRESSIONS[int(code) - 1]
