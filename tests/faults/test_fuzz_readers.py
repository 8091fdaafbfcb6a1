"""Random damage to data sets in every form: a correct read or one sentence, nothing else, and no hang."""

import bz2
import gzip
import io
import lzma
import os
import signal
import struct
import tarfile
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.decode import decode, formats
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.image_folder import ImageFolder
from tests.faults.test_fuzz import broken, fuzzed, only_sentences, picture, table


@pytest.fixture(autouse=True)
def no_hang():
    signal.alarm(240)
    yield
    signal.alarm(0)


def read_all(root):
    """List and decode a data set by both readers."""
    for open_source in (
        lambda: open_fer2013(root=root, classes=EXPRESSIONS, image_size=8),
        lambda: ImageFolder(root=root, classes=EXPRESSIONS, image_size=8, val_ratio=0, test_ratio=0),
    ):
        only_sentences(lambda make=open_source: decode_all(make()))


def decode_all(source):
    source.cache_key()
    for record in source.records():
        record.id.encode()
        record.where.encode()
        only_sentences(record.pixels)


def list_records(root):
    return list(open_fer2013(root=root, classes=EXPRESSIONS, image_size=8).records())


def tree():
    """The files of a small FER-2013."""
    return {
        f"top/{split}/{name}/{prefix}_{number}.png": picture("PNG")
        for split, prefix in (("train", "Training"), ("test", "PublicTest"), ("test", "PrivateTest"))
        for number, name in enumerate(EXPRESSIONS)
    }


def tar(members, kind=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


LONG = {f"{'long' * 40}é/{name}": content for name, content in tree().items()}
TARS = {
    "plain": tar(tree()),
    "long names (pax)": tar(LONG),
    "long names (GNU)": tar(LONG, tarfile.GNU_FORMAT),
    "gzip": gzip.compress(tar(tree())),
    "bzip2": bz2.compress(tar(tree())),
    "xz": lzma.compress(tar(tree())),
    "csv": gzip.compress(tar({"fer2013/fer2013.csv": table()})),
}


@pytest.mark.parametrize("kind", TARS)
@fuzzed
@given(drawn=st.data())
def test_tars(kind, drawn, tmp_path):
    (tmp_path / "archive").write_bytes(drawn.draw(broken(TARS[kind])))
    read_all(tmp_path / "archive")


@st.composite
def altered_headers(draw, whole):
    """A tar of which some headers say something else, with a checksum that fits."""
    data = bytearray(whole)
    headers = [at for at in range(0, len(data) - 512, 512) if data[at + 257 : at + 262] == b"ustar"]
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(headers))
        kind = draw(st.sampled_from(["size", "type", "name", "any"]))
        if kind == "size":
            big = struct.pack(">q", draw(st.integers(-(2**62), 2**62))).rjust(12, b"\xff")
            data[at + 124 : at + 136] = draw(
                st.sampled_from([b"\x80" + bytes(3) + big[4:], big, b"77777777777\0"])
            )
        elif kind == "type":
            data[at + 156] = draw(st.sampled_from(b"0123456789xgLKSD\0"))
        elif kind == "name":
            data[at : at + 12] = draw(st.binary(min_size=12, max_size=12))
        else:
            data[at + draw(st.integers(0, 511))] = draw(st.integers(0, 255))
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return bytes(data)


@pytest.mark.parametrize("kind", ["plain", "long names (pax)", "long names (GNU)"])
@fuzzed
@given(drawn=st.data())
def test_tars_whose_headers_say_something_else(kind, drawn, tmp_path):
    (tmp_path / "archive.tar").write_bytes(drawn.draw(altered_headers(TARS[kind])))
    read_all(tmp_path / "archive.tar")


def dialect(separator=",", quote='"', start="", end="\n", encoding="utf-8"):
    rows = [line.split(",") for line in table().decode().splitlines()]
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    return (start + end.join([*lines, ""])).encode(encoding)


TABLES = {
    "quoted": dialect(),
    "semicolons": dialect(";", ""),
    "tabs": dialect("\t", "", end="\r\n"),
    "byte order mark": dialect(start="\ufeff\n\n"),
    "Excel": dialect(";", "", start="sep=;\n"),
    "UTF-16": dialect(encoding="utf-16"),
    "carriage returns": dialect(quote="", end="\r"),
    "gzip": gzip.compress(dialect(quote="")),
    "bzip2": bz2.compress(dialect(quote="")),
    "xz": lzma.compress(dialect(quote="")),
}


@pytest.mark.parametrize("kind", TABLES)
@fuzzed
@given(drawn=st.data())
def test_tables_of_any_dialect(kind, drawn, tmp_path):
    (tmp_path / "fer2013.csv").write_bytes(drawn.draw(broken(TABLES[kind])))
    read_all(tmp_path / "fer2013.csv")


@pytest.mark.parametrize("kind", [*TARS, *TABLES])
def test_whole_forms_are_read(kind, tmp_path):
    """What the tests above damage is no damage in itself."""
    (tmp_path / "data").write_bytes((TARS | TABLES)[kind])
    if kind in ("UTF-16", "carriage returns"):
        with pytest.raises(FERError):
            list_records(tmp_path / "data")
        return
    records = list_records(tmp_path / "data")
    assert len(records) == 21
    assert all(record.pixels().shape == (8, 8) for record in records)


NAMES = st.binary(min_size=1, max_size=12).filter(lambda name: b"/" not in name and b"\0" not in name)


@fuzzed
@given(paths=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=6), links=st.booleans())
def test_folders_of_any_bytes(paths, links, tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    for parts in paths:
        path = root.joinpath(*(os.fsdecode(part) for part in parts if part not in (b".", b"..")), "x.png")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            if links:
                path.with_name("loop").symlink_to(root)
                os.mkfifo(path.with_name("pipe"))
            path.write_bytes(picture("PNG"))
    read_all(root)


@st.composite
def renamed_members(draw, whole):
    """A zip whose names are any bytes, with or without the flag of UTF-8, and with an extra field."""
    data = bytearray(whole)
    name = b"Training_0.png"
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := data.find(mark, start)) >= 0:
            if draw(st.booleans()):
                data[start + flags + 1] ^= 0x08
            start += 4
    for _ in range(draw(st.integers(1, 3))):
        at = data.rfind(name)
        if at >= 0:
            data[at : at + len(name)] = draw(st.binary(min_size=len(name), max_size=len(name)))
    return bytes(data)


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in tree().items():
            member = zipfile.ZipInfo(name)
            raw = name.encode()
            member.extra = struct.pack("<HHBI", 0x7075, 5 + len(raw), 1, zlib.crc32(raw)) + raw
            archive.writestr(member, content)
    return buffer.getvalue()


@fuzzed
@given(drawn=st.data())
def test_zips_of_any_names(drawn, tmp_path):
    (tmp_path / "archive.zip").write_bytes(drawn.draw(renamed_members(zipped())))
    read_all(tmp_path / "archive.zip")


def encoded(form):
    buffer = io.BytesIO()
    levels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(levels).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PPM", "JPEG2000", "AVIF", "GIF", "TIFF"])
@fuzzed
@given(drawn=st.data())
def test_images_of_more_formats(form, drawn):
    if form not in formats():
        pytest.skip("this Pillow has no such format")
    only_sentences(decode, drawn.draw(broken(encoded(form))), size=8, exact=False, channels=3)
