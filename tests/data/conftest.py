"""The same few images in every published form of FER-2013."""

import csv
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.data.labels import EXPRESSIONS, FER2013_CODES

Face = tuple[str, str, str, NDArray[np.uint8]]  # usage, class, file name, pixels

USAGES = ("Training", "PublicTest", "PrivateTest")


def make_faces() -> list[Face]:
    """Make two images of each class in Training, one in each other split."""
    random = np.random.default_rng(0)
    faces = []
    for usage in USAGES:
        for name in EXPRESSIONS:
            for number in range(2 if usage == "Training" else 1):
                pixels = random.integers(0, 256, (48, 48), dtype=np.uint8)
                # File names repeat in every class, as some do in the real data set.
                faces.append((usage, name, f"{usage}_{number}.jpg", pixels))
    return faces


class Forms:
    """Write the images in each published form, below one temporary folder."""

    def __init__(self, root: Path, faces: list[Face]) -> None:
        self.root = root
        self.faces = faces

    def folder(self, name: str = "kaggle") -> Path:
        for usage, label, file_name, pixels in self.faces:
            folder = self.root / name / ("train" if usage == "Training" else "test") / label
            folder.mkdir(parents=True, exist_ok=True)
            # PNG data, because a second JPEG pass would change pixels; the reader ignores the suffix.
            Image.fromarray(pixels).save(folder / file_name, "PNG")
        return self.root / name

    def zip(self, name: str = "archive.zip", *, top: str = "") -> Path:
        folder = self.folder("packed")
        with zipfile.ZipFile(self.root / name, "w") as archive:
            for file in sorted(folder.rglob("*")):
                archive.write(file, top + file.relative_to(folder).as_posix())
        return self.root / name

    def tar(self, name: str = "archive.tar.gz", *, top: str = "") -> Path:
        kind = name.rpartition(".")[2]
        with tarfile.open(self.root / name, f"w:{'' if kind == 'tar' else kind}") as archive:
            archive.add(self.folder("packed"), top or ".")
        return self.root / name

    def rows(self) -> list[tuple[str, str, str]]:
        return [
            (str(FER2013_CODES.index(label)), " ".join(map(str, pixels.ravel().tolist())), usage)
            for usage, label, _, pixels in self.faces
        ]

    def csv(self, name: str = "fer2013.csv") -> Path:
        with (self.root / name).open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([("emotion", "pixels", "Usage"), *self.rows()])
        return self.root / name

    def icml_csv(self, name: str = "icml_face_data.csv") -> Path:
        rows = [(emotion, usage, pixels) for emotion, pixels, usage in self.rows()]
        with (self.root / name).open("w", newline="") as file:
            csv.writer(file).writerows([("emotion", " Usage", " pixels"), *rows])
        return self.root / name


@pytest.fixture(scope="session")
def faces() -> list[Face]:
    return make_faces()


@pytest.fixture
def forms(tmp_path: Path, faces: list[Face]) -> Forms:
    return Forms(tmp_path, list(faces))


@pytest.fixture
def logged() -> list[str]:
    """Every sentence passed to ``log``."""
    return []


@pytest.fixture
def log(logged: list[str]) -> Callable[[str], None]:
    return logged.append
