import bz2
import gzip
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.faces import Record
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers import files, zips
from fer_lightning.data.readers.fer2013 import Fer2013, open_fer2013
from fer_lightning.data.readers.fer2013_csv import parse_pixels

FORMS: dict[str, Callable[[Any], Path]] = {
    "folder": lambda forms: forms.folder(),
    "zip": lambda forms: forms.zip(),
    "zip below a top folder": lambda forms: forms.zip(top="fer2013/images/"),
    "fer2013.csv": lambda forms: forms.csv(),
    "icml_face_data.csv": lambda forms: forms.icml_csv(),
    "zipped csv": lambda forms: pack(forms.csv(), "challenge/fer2013.csv"),
    "tar": lambda forms: forms.tar("archive.tar"),
    "tar.gz below a top folder": lambda forms: forms.tar("archive.tar.gz", top="fer2013/images"),
    "tar.bz2": lambda forms: forms.tar("archive.tar.bz2"),
    "tar.xz": lambda forms: forms.tar("archive.tar.xz"),
    "fer2013.tar.gz": lambda forms: pack_tar(forms.csv()),
    "csv.gz": lambda forms: squeeze(forms.csv(), gzip.compress),
    "csv.bz2": lambda forms: squeeze(forms.icml_csv(), bz2.compress),
    "csv.xz": lambda forms: squeeze(forms.csv(), lzma.compress),
    **{
        dialect: lambda forms, change=change: rewrite(forms.csv(), change)
        for dialect, change in {
            "quoted": lambda text: re.sub(r"([^,\n]+)", r'"\1"', text),
            "semicolons": lambda text: text.replace(",", ";"),
            "tabs": lambda text: text.replace(",", "\t"),
            "blank first lines": lambda text: "\n ,, \n" + text,
            "CRLF and a byte order mark": lambda text: "\ufeff" + text.replace("\n", "\r\n"),
            "other case and spaces": lambda text: text.replace(
                "emotion,pixels,Usage", " EMOTION ,Pixels , usage"
            ),
            "Excel's first line": lambda text: "sep=;\n" + text.replace(",", ";"),
            "an index column": lambda text: re.sub(r"(?m)^(?=.)", "7,", text).replace(
                "7,emotion", ",emotion"
            ),
        }.items()
    },
}


def rewrite(path: Path, change: Callable[[str], str]) -> Path:
    path.write_bytes(change(path.read_text()).encode())
    return path


def squeeze(path: Path, compress: Callable[[bytes], bytes]) -> Path:
    packed = path.with_suffix(".packed")
    packed.write_bytes(compress(path.read_bytes()))
    path.unlink()
    return packed


def pack_tar(file: Path) -> Path:
    """Pack a CSV as the challenge packs it, with files that are no data set."""
    path = file.with_name("fer2013.tar.gz")
    (file.parent / "README").write_text("hello")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(file, "fer2013/fer2013.csv")
        archive.add(file.parent / "README", "fer2013/README")
    file.unlink()
    (file.parent / "README").unlink()
    return path


def pack(file: Path, name: str) -> Path:
    path = file.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, name)
    file.unlink()
    return path


def opened(root: Path) -> Fer2013:
    return open_fer2013(root=root, classes=EXPRESSIONS)


def listed(root: Path) -> list[Record]:
    return list(opened(root).records())


def content(root: Path) -> set[tuple[str, str, bytes]]:
    return {(r.split, EXPRESSIONS[r.label], r.pixels().tobytes()) for r in listed(root)}


def fault(root: Path) -> str:
    with pytest.raises(FERError) as caught:
        listed(root)
    return str(caught.value)


def bad_rows(root: Path) -> dict[str, str]:
    """Where and why of each record whose pixels raise."""
    bad = {}
    for record in listed(root):
        try:
            record.pixels()
        except FERError as error:
            bad[record.where] = str(error)
    return bad


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels_labels_and_splits(forms: Any, form: str) -> None:
    splits = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
    expected = {(splits[usage], name, pixels.tobytes()) for usage, name, _, pixels in forms.faces}
    assert content(FORMS[form](forms)) == expected


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_unique_and_read_split_class_name(forms: Any, form: str) -> None:
    records = listed(FORMS[form](forms))
    assert len({record.id for record in records}) == len(records) == 28
    for record in records:
        assert record.id.startswith(f"{record.split}/{EXPRESSIONS[record.label]}/")


@pytest.mark.parametrize("form", FORMS)
def test_file_names_do_not_matter(forms: Any, form: str, tmp_path: Path) -> None:
    path = FORMS[form](forms)
    renamed = path.rename(tmp_path / "download (1)")
    assert len(listed(renamed)) == 28


@pytest.mark.parametrize("form", [form for form in FORMS if form != "folder"])
def test_folder_with_one_data_set_is_opened(forms: Any, form: str, tmp_path: Path) -> None:
    path = FORMS[form](forms)
    below = tmp_path / "place" / "below"
    below.mkdir(parents=True)
    path.rename(below / path.name)
    (below / ".DS_Store").write_bytes(b"junk")
    (below / "LICENSE").write_text("free")
    assert len(listed(tmp_path / "place")) == 28


def test_labels_follow_names_in_any_class_order(forms: Any) -> None:
    classes = tuple(reversed(EXPRESSIONS))
    for path in (forms.folder(), forms.csv()):
        for record in open_fer2013(root=path, classes=classes).records():
            assert classes[record.label] == record.id.split("/")[1]


def test_class_folders_may_use_synonyms(forms: Any) -> None:
    root = forms.folder()
    for part in ("train", "test"):
        (root / part / "happy").rename(root / part / "Happiness")
    assert sum(record.id.startswith("train/happy/") for record in listed(root)) == 2


def test_files_left_by_operating_systems_are_ignored(forms: Any) -> None:
    root = forms.folder()
    for junk in (".DS_Store", "train/Thumbs.db", "train/angry/desktop.ini", "test/sad/._PublicTest_0.jpg"):
        (root / junk).write_bytes(b"junk")
    (root / "__MACOSX" / "train").mkdir(parents=True)
    assert len(listed(root)) == 28
    shutil.copytree(root, forms.root / "packed")
    assert len(listed(forms.zip())) == 28


def test_pixels_can_be_read_from_many_threads(forms: Any) -> None:
    records = listed(forms.zip()) * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda record: record.pixels().tobytes(), records))
    assert found == found[:28] * 20


@pytest.mark.parametrize("form", ["folder", "zip", "fer2013.csv"])
def test_cache_key_changes_only_with_the_source(forms: Any, form: str) -> None:
    path = FORMS[form](forms)
    key = opened(path).cache_key()
    assert opened(path).cache_key() == key
    touched = path / "train" / "sad" / "Training_1.jpg" if path.is_dir() else path
    status = touched.stat()
    os.utime(touched, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))
    assert opened(path).cache_key() != key


def test_cache_key_does_not_open_a_zip(forms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = forms.zip()
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("opened"))
    assert opened(path).cache_key()


def drop(path: str) -> Callable[[Path], object]:
    return lambda root: shutil.rmtree(root / path)


def put(path: str, data: bytes = b"x") -> Callable[[Path], object]:
    def write(root: Path) -> None:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)

    return write


def drop_all(pattern: str) -> Callable[[Path], object]:
    return lambda root: [file.unlink() for file in root.glob(pattern)]


FOLDER_FAULTS = {
    "train/fear: an empty class folder, expected images": drop_all("train/fear/*"),
    "train: no folder of class fear; expected one for each class": drop("train/fear"),
    "test: no folder of class fear, sad; expected one for each class": lambda root: (
        drop("test/fear")(root),
        drop("test/sad")(root),
    ),
    "train/contempt: unknown class 'contempt', expected one of: angry, disgust": put("train/contempt/a.jpg"),
    "a second folder of class angry": put("train/anger/a.jpg"),
    "train/angry/more: a folder, expected the files of one class": put("train/angry/more/a.jpg"),
    "train/a.JPG: an image outside the class folders": put("train/a.JPG"),
    "no folder test/, expected train/ and test/": drop("test"),
    "no folder train/, expected train/ and test/": drop("train"),
    "valid: unexpected folder, expected only train/ and test/": put("valid/angry/a.jpg"),
    "test/sad/face.jpg: files of test/ must all begin with PublicTest_ (val) or": put("test/sad/face.jpg"),
    "test/sad/Training_9.jpg: files of test/ must all begin": put("test/sad/Training_9.jpg"),
    "train/sad/PublicTest_9.jpg: files of train/ must not begin": put("train/sad/PublicTest_9.jpg"),
    "the val split (PublicTest) is empty": drop_all("test/*/PublicTest*"),
    "the test split (PrivateTest) is empty": drop_all("test/*/PrivateTest*"),
}


@pytest.mark.parametrize("sentence", FOLDER_FAULTS)
def test_folder_fault_is_reported_also_in_a_zip(forms: Any, sentence: str) -> None:
    root = forms.folder()
    FOLDER_FAULTS[sentence](root)
    assert sentence in fault(root)
    assert fault(root).startswith(str(root))
    archive = forms.root / "broken.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in sorted(root.rglob("*")):
            packed.write(file, file.relative_to(root))
    assert sentence in fault(archive)
    assert fault(archive).startswith(str(archive))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"no image", "not an image (expected JPEG, PNG, WebP, BMP, GIF, TIFF, AVIF, JPEG 2000 or PPM)"),
        (None, "truncated image"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_file_is_a_fault_of_one_image(forms: Any, data: bytes | None, reason: str, packed: bool) -> None:
    root = forms.folder("packed")
    file = root / "train/happy/Training_0.jpg"
    data = file.read_bytes()[:1000] if data is None else data
    file.write_bytes(data)
    if packed:
        path = forms.root / "archive.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for member in sorted(root.rglob("*")):
                archive.write(member, member.relative_to(root))
        assert bad_rows(path) == {f"{path}: train/happy/Training_0.jpg": reason}
    else:
        assert bad_rows(root) == {str(file): reason}


def test_image_of_another_size_is_bad(forms: Any) -> None:
    forms.faces[0] = (*forms.faces[0][:3], np.zeros((100, 100), np.uint8))
    assert list(bad_rows(forms.folder()).values()) == ["100x100 pixels, expected 48x48"]


def test_broken_link_and_pipe_are_bad_images(forms: Any) -> None:
    root = forms.folder()
    (root / "train/sad/link.jpg").symlink_to(root / "nowhere")
    os.mkfifo(root / "train/sad/pipe.jpg")
    assert set(bad_rows(root).values()) == {"cannot be read (not a regular file)"}


def test_oversized_image_file_is_not_read(forms: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_IMAGE_BYTES", 1000)
    assert "bytes, more than the 1,000 allowed for an image" in next(iter(bad_rows(forms.zip()).values()))


def edited(forms: Any, number: int, edit: Callable[[str], str]) -> Path:
    """The CSV with one line changed; lines count from 1, as in messages."""
    path: Path = forms.csv()
    lines = path.read_text().splitlines()
    lines[number - 1] = edit(lines[number - 1])
    path.write_text("\n".join(lines) + "\n")
    return path


def with_pixel(word: str) -> Callable[[str], str]:
    return lambda line: " ".join([*line.split(" ")[:4], word, *line.split(" ")[5:]])


ROW_FAULTS: dict[str, Callable[[str], str]] = {
    "2303 pixels, expected 2304": lambda line: line.replace(",", ",\t", 1).replace(" ", "_", 1),
    "0 pixels, expected 2304": lambda line: "0,,Training",
    "pixel 5 is '256', expected a whole number from 0 to 255": with_pixel("256"),
    "pixel 5 is '-1', expected a whole number from 0 to 255": with_pixel("-1"),
    "pixel 5 is '7.5', expected a whole number from 0 to 255": with_pixel("7.5"),
    "pixel 5 is 'nan', expected a whole number from 0 to 255": with_pixel("nan"),
    "unknown label '7', expected 0 to 6 or one of: angry, disgust": lambda line: "7" + line[1:],
    "unknown label '', expected 0 to 6": lambda line: line[1:],
    "unknown label 'bored', expected 0 to 6": lambda line: "bored" + line[1:],
    "unknown Usage 'Testing', expected one of: Training, PublicTest, PrivateTest": lambda line: line.replace(
        "Training", "Testing"
    ),
    "2 columns, expected 3 (a truncated line?)": lambda line: line[:1000],
    "4 columns, expected 3": lambda line: line + ",more",
}


@pytest.mark.parametrize("reason", ROW_FAULTS)
@pytest.mark.parametrize("number", [3, 15])
def test_csv_row_fault_is_a_fault_of_one_image(forms: Any, reason: str, number: int) -> None:
    path = edited(forms, number, ROW_FAULTS[reason])
    ((where, found),) = bad_rows(path).items()
    assert where == f"{path}:{number}"
    assert found.startswith(reason)


def test_truncated_last_csv_line_is_reported(forms: Any) -> None:
    path = forms.csv()
    path.write_bytes(path.read_bytes()[:-4000])
    assert bad_rows(path) == {f"{path}:29": "2 columns, expected 3 (a truncated line?)"}
    path = forms.icml_csv()
    path.write_bytes(path.read_bytes()[:-4000])
    ((where, reason),) = bad_rows(path).items()
    assert where == f"{path}:29"
    assert reason.endswith("pixels, expected 2304")


def test_csv_with_bom_blank_lines_crlf_and_names_is_read(forms: Any) -> None:
    expected = content(forms.csv())
    path = edited(forms, 4, lambda line: "disgust" + line[1:])
    text = path.read_text().replace("\n", "\r\n\r\n").replace("emotion", "\ufeffEmotion")
    path.write_text(text + "\r\n,,\r\n", newline="")
    assert content(path) == expected


CSV_FAULTS: dict[str, Callable[[bytes], bytes]] = {
    ":1: no column Usage, found: emotion, pixels; expected emotion, pixels, Usage": lambda data: data.replace(
        b",Usage", b""
    ),
    ":1: no column emotion, found: pixels, usage": lambda data: data.replace(b"emotion,", b""),
    ":3: NUL bytes; the file is damaged or not UTF-8 text": lambda data: data[:9000] + b"\0" + data[9000:],
    ":3: not UTF-8 text": lambda data: data[:9000] + b"\xff" + data[9000:],
    ":3: not CSV (field larger than field limit": lambda data: data[:9000] + b"1 " * 100_000 + data[9000:],
    ":3: a line of over 1,048,576 bytes": lambda data: data[:9000] + b"1 " * 1_000_000 + data[9000:],
    "the val split (PublicTest) is empty": lambda data: data.replace(b"PublicTest", b"Training"),
    "the train split (Training) has no image of class fear": lambda data: data.replace(b"\n2,", b"\n3,"),
    "the train split (Training) is empty": lambda data: b"emotion,pixels,Usage\n" * 0 + data[:21],
}


@pytest.mark.parametrize("sentence", CSV_FAULTS)
def test_csv_fault_is_one_sentence(forms: Any, sentence: str) -> None:
    path = forms.csv()
    path.write_bytes(CSV_FAULTS[sentence](path.read_bytes()))
    found = fault(path)
    assert found.startswith(str(path))
    assert sentence in found
    assert "fer2013.csv" in fault(pack(path, "fer2013.csv"))


def test_challenge_files_without_labels_are_skipped(forms: Any) -> None:
    forms.icml_csv()
    (forms.root / "train.csv").write_text("emotion,pixels\n0,1 2 3\n")
    (forms.root / "test.csv").write_text("pixels\n1 2 3\n")
    assert len(listed(forms.root)) == 28


def test_challenge_files_alone_lack_a_column(forms: Any) -> None:
    (forms.root / "train.csv").write_text("emotion,pixels\n0,1 2 3\n")
    assert f"{forms.root / 'train.csv'}:1: no column Usage" in fault(forms.root)


def test_the_whole_download_of_the_challenge_is_read(forms: Any) -> None:
    """Its folder has train.csv, test.csv and the same images in a tar next to ``icml_face_data.csv``."""
    pack_tar(forms.csv())
    (forms.root / "train.csv").write_text("emotion,pixels\n0,1 2 3\n")
    (forms.root / "test.csv").write_text("pixels\n1 2 3\n")
    (forms.root / "example_submission.csv").write_text("7\n7\n")
    forms.icml_csv()
    assert len(listed(forms.root)) == 28


def test_two_data_sets_in_one_folder_are_refused(forms: Any) -> None:
    names = f"{forms.csv()}, {forms.icml_csv()}"
    assert f"contains more than one data set ({names})" in fault(forms.root)


@pytest.mark.parametrize("place", ["missing", "text", "holiday", "empty.zip", "holiday.zip"])
def test_unusable_root_lists_forms_and_ways_to_get_the_data(tmp_path: Path, place: str) -> None:
    (tmp_path / "text").write_text("hello")
    (tmp_path / "holiday" / "beach").mkdir(parents=True)
    (tmp_path / "holiday" / "beach.jpg").write_bytes(b"x")
    zipfile.ZipFile(tmp_path / "empty.zip", "w").close()
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        archive.writestr("beach.jpg", "x")
    found = fault(tmp_path / place)
    assert found.startswith(str(tmp_path / place))
    assert "looked for train/<class>/ and test/<class>/" in found
    assert all(way in found for way in ("archive.zip", "kagglehub", "icml_face_data.csv"))
    if place.startswith("holiday"):
        assert "found beach" in found


def rewritten(path: Path, change: Callable[[zipfile.ZipInfo], object]) -> Path:
    """The zip with one member's header changed."""
    other = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w") as target:
        for number, member in enumerate(source.infolist()):
            data = b"" if member.is_dir() else source.read(member)
            if number == 5:
                change(member)
            target.writestr(member, data)
    return other


def named(name: str) -> Callable[[zipfile.ZipInfo], object]:
    return lambda member: setattr(member, "filename", name)


ZIP_FAULTS: dict[str, Callable[[zipfile.ZipInfo], object]] = {
    "../evil.jpg: a path outside the zip; do not trust this file": named("../evil.jpg"),
    "train/../../evil.jpg: a path outside the zip": named("train/../../evil.jpg"),
    "/etc/evil.jpg: a path outside the zip": named("/etc/evil.jpg"),
    "C:/evil.jpg: a path outside the zip": named("C:\\evil.jpg"),
    "a symbolic link; pack the zip with the files themselves": lambda member: setattr(
        member, "external_attr", (stat.S_IFLNK | 0o777) << 16
    ),
}


@pytest.mark.parametrize("sentence", ZIP_FAULTS)
def test_hostile_zip_is_refused(forms: Any, sentence: str) -> None:
    path = rewritten(forms.zip(), ZIP_FAULTS[sentence])
    assert sentence in fault(path)
    assert fault(path).startswith(f"{path}: ")


def test_duplicate_zip_member_is_refused(forms: Any) -> None:
    path = forms.zip()
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("train/sad/Training_0.jpg", b"x")
    assert f"{path}: train/sad/Training_0.jpg: occurs twice in the zip" in fault(path)


def test_encrypted_zip_is_refused(forms: Any) -> None:
    path = forms.zip()
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 8] |= 1  # the flag of the second member in the central directory
    path.write_bytes(data)
    assert "encrypted; unpack the zip with its password" in fault(path)


def test_zip_above_the_size_limit_is_refused(forms: Any) -> None:
    path = forms.zip()
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    for _ in range(3):
        entry = data.index(b"PK\x01\x02", entry + 1)
        data[entry + 24 : entry + 28] = struct.pack("<I", 2**32 - 2)
    path.write_bytes(data)
    assert "bytes, more than the 8,589,934,592 allowed" in fault(path)


@pytest.mark.parametrize("keep", [0.5, 0.999])
def test_truncated_zip_is_refused(forms: Any, keep: float) -> None:
    path = forms.zip()
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert fault(path).startswith(f"{path}: broken zip (")


def test_damaged_zip_member_is_a_fault_of_one_image(forms: Any) -> None:
    path = forms.zip()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("train/sad/Training_0.jpg")
    data = bytearray(path.read_bytes())
    data[member.header_offset + 1000] ^= 255
    path.write_bytes(data)
    ((where, reason),) = bad_rows(path).items()
    assert where == f"{path}: train/sad/Training_0.jpg"
    assert reason.startswith("damaged within the zip")


def test_damaged_member_of_any_compression_is_one_bad_image(forms: Any) -> None:
    path = forms.zip()
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()}
        packed = path.with_name(f"packed{method}.zip")
        with zipfile.ZipFile(packed, "w", method) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        with zipfile.ZipFile(packed) as archive:
            member = archive.getinfo("train/sad/Training_0.jpg")
        start = member.header_offset + 30 + len(member.filename)
        data = bytearray(packed.read_bytes())
        data[start + 200 : start + 220] = bytes([255]) * 20  # behind the headers of each method
        packed.write_bytes(data)
        ((where, reason),) = bad_rows(packed).items()
        assert where == f"{packed}: train/sad/Training_0.jpg"
        assert reason.startswith(("damaged within the zip", "cannot be read (Invalid data stream)")), method


def test_member_with_invalid_utf8_name_is_a_bad_image(forms: Any) -> None:
    path = forms.zip()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("train/sad/Training_0.jpg")
    data = bytearray(path.read_bytes())
    data[member.header_offset + 7] |= 8  # says that the name is UTF-8
    data[member.header_offset + 30] = 255
    path.write_bytes(data)
    ((where, reason),) = bad_rows(path).items()
    assert where == f"{path}: train/sad/Training_0.jpg"
    assert reason.startswith("damaged within the zip ('utf-8' codec")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_member_larger_than_declared_takes_no_memory(tmp_path: Path, method: int) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a/x.png", bytes(100_000_000))
    data = bytearray(path.read_bytes())
    directory = data.rindex(b"PK\1\2")
    data[directory + 24 : directory + 28] = struct.pack("<I", 100)
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(FERError, match="damaged within the zip"):
            zips.scan_zip(path).folders["a"].files["x.png"].read()
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
    finally:
        tracemalloc.stop()


def test_pixels_are_parsed_row_by_row() -> None:
    assert parse_pixels("0 1 2 255", size=2).tolist() == [[0, 1], [2, 255]]


@pytest.mark.skipif(not os.environ.get("FER2013_ROOT"), reason="needs FER2013_ROOT")
def test_fer2013_has_its_published_counts() -> None:
    records = listed(Path(os.environ["FER2013_ROOT"]))
    counts = {
        split: [sum(r.split in split and r.label == label for r in records) for label in range(7)]
        for split in ("train", "val test", "val", "test")
    }
    assert counts["train"] == [3995, 436, 4097, 7215, 4965, 4830, 3171]
    assert counts["val test"] == [958, 111, 1024, 1774, 1233, 1247, 831]
    assert [sum(counts[split]) for split in ("train", "val", "test")] == [28_709, 3_589, 3_589]
