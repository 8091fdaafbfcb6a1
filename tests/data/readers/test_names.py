"""Names of files and folders: any depth, any bytes, any normal form, leftovers of file managers."""

import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.core.text import normalized, writable
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import Faces
from fer_lightning.data.readers.image_folder import ImageFolder

Tree = dict[str, bytes]  # path -> content
CLASSES = ("fröhlich", "sad")


def images(top: str = "", classes: tuple[str, ...] = CLASSES) -> Tree:
    """Six different images for each class."""
    tree = {}
    for position, name in enumerate(classes):
        for number in range(6):
            file = BytesIO()
            levels = np.random.default_rng([position, number]).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(levels).save(file, "PNG")
            tree[f"{top}{name}/{number}.png"] = file.getvalue()
    return tree


def as_folder(tree: Tree, place: Path) -> Path:
    for name, content in tree.items():
        path = place / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return place / "folder"


def as_zip(tree: Tree, place: Path) -> Path:
    with zipfile.ZipFile(place / "faces.zip", "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return place / "faces.zip"


def as_tar(tree: Tree, place: Path) -> Path:
    with tarfile.open(place / "faces.tar.gz", "w:gz") as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return place / "faces.tar.gz"


FORMS: dict[str, Callable[[Tree, Path], Path]] = {"folder": as_folder, "zip": as_zip, "tar": as_tar}


def read(root: Path, classes: tuple[str, ...] = CLASSES) -> list[str]:
    source = ImageFolder(root=root, classes=classes, image_size=8, val_ratio=0.2, test_ratio=0.2)
    records = list(source.records())
    assert all(record.pixels().shape == (8, 8) for record in records)
    return sorted(record.id for record in records)


def outcome(tree: Tree, form: str, place: Path) -> object:
    """The ids of a data set, or the sentence that refuses it, without the place."""
    place.mkdir()
    root = FORMS[form](tree, place)
    try:
        return read(root)
    except FERError as error:
        if "folders deep" in str(error):
            return "too deep"
        return str(error).replace(f"{root}: ", "").replace(f"{root}/", "").replace(str(root), "ROOT")


PLAIN = images()
TREES: dict[str, Tree] = {
    "class folders": PLAIN,
    "one lone folder": images("images/"),
    "three lone folders": images("a/b/c/"),
    "lone folders above splits": {**images("a/b/train/"), **images("a/b/test/")},
    "lone folders above and below splits": {**images("a/b/train/c/d/"), **images("a/b/test/e/")},
    "a text next to the lone folder": {**images("images/"), "README.md": b"hello", "LICENSE": b"free"},
    "an image next to the lone folder": {**images("images/"), "logo.png": b""},
    "a folder in a class": {**PLAIN, "sad/more/1.png": b""},
    "an unknown class far below": {**images("a/b/"), "a/b/bored/x/1.png": b""},
    "thirty-three lone folders": images("a/" * 33),
    "two tops": {**images("one/"), **images("two/")},
    "nothing": {"notes.txt": b""},
}


@pytest.mark.parametrize("tree", TREES)
def test_folder_and_archives_are_read_alike_at_every_depth(tmp_path: Path, tree: str) -> None:
    found = [outcome(TREES[tree], form, tmp_path / form) for form in FORMS]
    assert found[0] == found[1] == found[2]
    reads = (
        *("class folders", "one lone folder", "three lone folders", "lone folders above splits"),
        *("lone folders above and below splits", "a text next to the lone folder"),
    )
    assert isinstance(found[0], list) == (tree in reads), found[0]


LEFTOVERS = (
    *("System Volume Information/WPSettings.dat", "$RECYCLE.BIN/S-1/desktop.ini", "lost+found/x", "Icon\r"),
    *("@eaDir/0.png/SYNOFILE_THUMB_M.jpg", "__MACOSX/sad/._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"),
    *(".ipynb_checkpoints/0.png", ".git/config", "._0.png", "0.png:Zone.Identifier", ".Trash-1000/0.png"),
)


@pytest.mark.parametrize("form", FORMS)
def test_leftovers_of_file_managers_are_passed_over(tmp_path: Path, form: str) -> None:
    left = {f"{place}{name}": b"junk" for place in ("", "images/", "images/sad/") for name in LEFTOVERS}
    assert read(FORMS[form](images("images/") | left, tmp_path)) == read(as_folder(PLAIN, tmp_path / "plain"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("of_names", "of_config"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_accents_are_compared_in_one_normal_form(
    tmp_path: Path, form: str, of_names: str, of_config: str
) -> None:
    name, given = (unicodedata.normalize(kind, "fröhlich") for kind in (of_names, of_config))  # type: ignore[arg-type]
    root = FORMS[form](images(classes=(name, "sad")), tmp_path)
    assert len(read(root, (given, "sad"))) == 12


def bytes_folder(place: Path) -> Path:
    """A class folder whose files have names in Latin-1, and one that looks like such a name escaped."""
    root = as_folder(PLAIN, place)
    for name in (b"caf\xe9.png", b"caf\xe8.png", b"\\xe9.png"):
        with open(os.fsencode(root / "sad") + b"/" + name, "wb") as file:  # noqa: PTH123 - bytes
            file.write(PLAIN["sad/0.png"])
    return root


def bytes_tar(place: Path) -> Path:
    with tarfile.open(place / "faces.tar", "w") as archive:
        archive.add(bytes_folder(place), "")
    return place / "faces.tar"


@pytest.mark.parametrize("make", [bytes_folder, bytes_tar])
def test_names_that_are_not_utf8_are_read_and_written(
    tmp_path: Path, make: Callable[[Path], Path], log: Callable[[str], None]
) -> None:
    source = ImageFolder(root=make(tmp_path), classes=CLASSES, image_size=8, val_ratio=0, test_ratio=0)
    faces: Faces = load_faces(source, cache_dir=tmp_path / "caches", log=log)
    names = {identity.split("/")[2] for identity in faces.ids.tolist() if "sad" in identity}
    assert names == {*(f"{n}.png" for n in range(6)), r"caf\xe9.png", r"caf\xe8.png", r"\x5cxe9.png"}
    "\n".join(faces.ids.tolist()).encode()


def test_bad_image_of_any_name_is_named(tmp_path: Path, log: Callable[[str], None]) -> None:
    root = bytes_folder(tmp_path)
    with open(os.fsencode(root / "sad") + b"/caf\xe9.png", "wb"):  # noqa: PTH123 - bytes
        pass
    source = ImageFolder(root=root, classes=CLASSES, image_size=8, val_ratio=0, test_ratio=0)
    with pytest.raises(FERError) as caught:
        load_faces(source, cache_dir=tmp_path / "caches", log=log)
    assert str(caught.value).endswith(r"sad/caf\xe9.png: 0 bytes")
    faces = load_faces(source, cache_dir=tmp_path / "caches", on_bad="skip", log=log)
    assert faces.skipped[0].endswith(r"sad/caf\xe9.png: 0 bytes")


def test_utf8_names_without_the_flag_of_a_zip_are_read(tmp_path: Path) -> None:
    """As macOS packs them: zipfile would read them as cp437."""
    path = as_zip(PLAIN, tmp_path)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := data.find(mark, start)) >= 0:
            data[start + flags + 1] &= ~0x08
            start += 4
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert any("├" in name for name in archive.namelist())
    assert len(read(path)) == 12


def test_different_names_stay_different() -> None:
    names = [
        "caf\udce9",
        r"caf\xe9",
        r"caf\x5cxe9",
        r"caf\x5cx5cxe9",
        "caf\ud8e9",
        r"caf\ud8e9",
        "café",
        "a\\b",
    ]
    assert len({writable(name) for name in names}) == len(names)
    for name in names:
        writable(name).encode()
    assert writable("café") == "café"
    assert normalized("cafe\u0301") == "café"


def test_special_file_is_refused_as_a_data_set(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "faces")
    for root in (tmp_path / "faces", Path("/dev/zero")):
        with pytest.raises(FERError, match="(a named pipe|a device), expected a file or a folder"):
            read(root)
