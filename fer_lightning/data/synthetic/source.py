"""The source of synthetic faces: labelled drawings for trying everything without a data set."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import check_channels
from fer_lightning.data.faces import SPLITS, Record
from fer_lightning.data.labels import EXPRESSIONS, canonical_name
from fer_lightning.data.synthetic.face import draw_face

GENERATOR_VERSION = 1  # part of the cache key: raise it with every change of a pixel

# Images of each class in the training split of FER-2013 (Goodfellow et al. 2013).
_FER2013_COUNTS = {
    "angry": 3995,
    "disgust": 436,
    "fear": 4097,
    "happy": 7215,
    "neutral": 4965,
    "sad": 4830,
    "surprise": 3171,
}

# (256, 3): the colour of each grey level, a skin tone of the same luma but for the lightest levels.
_TONES = np.minimum(np.rint(np.outer(np.arange(256), (1.12, 0.97, 0.85))), 255).astype(np.uint8)

ClassBalance = Literal["fer2013", "uniform"]


class SyntheticFaces:
    """A source of synthetic faces, each a function of its split, its index and the settings but the sizes.

    A larger split begins with the images of a smaller one. Labels are never wrong.

    Args:
        root: Ignored, since there is no file to read.
        classes: Some of the seven expressions, by name, in the order of the labels.
        image_size: Side of every image, in pixels, at least 16.
        channels: 1 for grey, 3 for the same drawings in one skin tone.
        num_train: Images in the train split, at least 1.
        num_val: Images in the val split, at least 1.
        num_test: Images in the test split, at least 1.
        seed: A number of at least 0; another seed draws other faces.
        class_balance: ``fer2013`` for the class shares of the FER-2013 training split, ``uniform`` for equal
            ones. Either way, a split with at least as many images as classes holds every class.
        difficulty: A number from 0 (strong expressions, frontal, clean) to 1 (faint expressions, turned
            heads, grain, hands in front of faces).
    """

    name = "synthetic"
    parallel = False  # many small NumPy calls, which hold the GIL

    def __init__(
        self,
        *,
        root: str | None = None,  # noqa: ARG002 - every source takes it
        classes: Sequence[str],
        image_size: int = 48,
        channels: int = 1,
        num_train: int = 7000,
        num_val: int = 1000,
        num_test: int = 1000,
        seed: int = 0,
        class_balance: ClassBalance = "fer2013",
        difficulty: float = 0.5,
    ) -> None:
        self.classes: Sequence[str] = tuple(map(str, classes))
        self._expressions = tuple(map(canonical_name, self.classes))
        if not self.classes or not set(self._expressions) <= set(EXPRESSIONS):
            raise FERError(
                f"data.classes=[{','.join(self.classes)}]: the synthetic faces show "
                f"{', '.join(EXPRESSIONS)}; name some of these, or choose another data set"
            )
        if len(set(self._expressions)) < len(self.classes):
            raise FERError(f"data.classes=[{','.join(self.classes)}]: name each expression once")
        self.image_size = _whole_number("data.image_size", image_size, at_least=16)
        check_channels(channels)
        self.channels = channels
        sizes = {"num_train": num_train, "num_val": num_val, "num_test": num_test}
        self._sizes = [_whole_number(f"data.source.{key}", size, at_least=1) for key, size in sizes.items()]
        self._seed = _whole_number("data.source.seed", seed, at_least=0)
        if class_balance not in get_args(ClassBalance):
            expected = " or ".join(get_args(ClassBalance))
            raise FERError(f"data.source.class_balance={class_balance}: expected {expected}")
        self._class_balance = class_balance
        if type(difficulty) not in (int, float) or not 0 <= difficulty <= 1:
            raise FERError(f"data.source.difficulty={difficulty}: expected a number from 0 to 1")
        self._difficulty = float(difficulty)

    @property
    def num_images(self) -> int:
        """The number of images of all splits."""
        return sum(self._sizes)

    def cache_key(self) -> str:
        """Hash the settings and the version of the generator."""
        look = (self.image_size, self._seed, self._class_balance, self._difficulty)
        settings = (GENERATOR_VERSION, self.classes, self._sizes, look)
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()

    def records(self) -> Iterator[Record]:
        """List every image, split by split; each is drawn when its ``pixels`` is called."""
        for split, size in zip(SPLITS, self._sizes, strict=True):
            for index, label in enumerate(self._labels(size)):
                yield Record(
                    id=f"{split}/{self.classes[label]}/{index:06d}",
                    split=split,
                    label=label,
                    where=f"synthetic {split} image {index}",
                    pixels=partial(self._draw, split, index, self._expressions[label]),
                )

    def _labels(self, size: int) -> list[int]:
        # Adams' apportionment: the next image goes to the class with the smallest count relative to its
        # share. Each class comes once before any comes twice, and every prefix has the balance of the whole.
        uniform = self._class_balance == "uniform"
        shares = np.array([1 if uniform else _FER2013_COUNTS[name] for name in self._expressions])
        labels, counts = np.divmod(np.arange(len(shares) * size), size)
        ordered: list[int] = labels[np.lexsort((labels, counts / shares[labels]))][:size].tolist()
        return ordered

    def _draw(self, split: str, index: int, expression: str) -> NDArray[np.uint8]:
        key = np.random.SeedSequence(self._seed, spawn_key=(SPLITS.index(split), index))
        grey = draw_face(np.random.default_rng(key), expression, self.image_size, self._difficulty)
        return grey if self.channels == 1 else _TONES[grey]


def _whole_number(setting: str, value: int, *, at_least: int) -> int:
    if type(value) is not int or value < at_least:  # True is an int to isinstance
        raise FERError(f"{setting}={value}: expected a whole number of at least {at_least}")
    return value
