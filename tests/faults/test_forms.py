"""Data sets in unusual, damaged and hostile forms; settings of data that are none; special files."""

import gzip
import io
import json
import os
import shutil
import tarfile

import numpy as np
import pytest
import yaml
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.readers.image_folder import ImageFolder
from fer_lightning.training.checkpoint import KEY
from tests.commands import TINY, run, succeed
from tests.faults.conftest import SMALL, copy_as_stopped
from tests.faults.test_hostile import CLASSES, face, faces, tamper
from tests.slow import slow_except

SETTINGS = {
    "items that are null": "data.classes=[happy,null]",
    "items that are settings": "data.classes=[happy,{a:1}]",
    "one class": "data.classes=[happy]",
    "a class twice": "data.classes=[happy,sad,happy]",
    "an empty class": "data.classes=[happy,'']",
    "a long class": f"data.classes=[happy,{'a' * 300}]",
    "classes that are null": "data.classes=null",
    "settings for classes": "data.classes={a:1}",
    "no reader": "data.source=null",
    "a number as a reader": "data.source=5",
    "no name": "data.name=null",
    "a number as a cache": "data.cache_dir=5",
    "an empty root": "data.root=''",
    "huge images": "data.image_size=5000",
    "no size": "data.image_size=null",
    "no target": "data._target_=null",
}


@pytest.mark.parametrize(
    "kind", slow_except(("no reader", "a number as a cache", "huge images", "no target"), SETTINGS)
)
def test_data_setting_that_is_none_is_refused(kind, fault_row, cache, tmp_path):
    fault_row.check(run("train.py", *SMALL, SETTINGS[kind], cwd=tmp_path, cache=cache))
    assert not list(tmp_path.iterdir())


def test_numbers_are_names_of_classes(cache, tmp_path):
    """Folders are often named so: the names are text wherever they are used."""
    for name in ("0", "1"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(12):
            (tmp_path / "faces" / name / f"{number}.png").write_bytes(face(20 * int(name) + number, 16))
    data = ("data=image_folder", "data.root=faces", "data.classes=[0,1]", "data.num_classes=2")
    small = ("model=mlp", "model.hidden=[8]", "logger=none", "trainer=smoke", "num_threads=1")
    succeed("train.py", *small, *data, "data.image_size=16", "hydra.run.dir=run", cwd=tmp_path, cache=cache)
    assert [*json.loads((tmp_path / "run/metrics.json").read_text())["test"]["per_class"]] == ["0", "1"]


def test_data_set_without_a_root_is_refused(fault_row, cache, tmp_path):
    (tmp_path / "my_conf/data").mkdir(parents=True)
    mine = "defaults: [image_folder@_here_, _self_]\nname: mine\n"
    (tmp_path / "my_conf/data/mine.yaml").write_text(mine)
    command = ("train.py", "--config-dir", "my_conf", "model=mlp", "data=mine", "data.root=null")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))
    assert [path.name for path in tmp_path.iterdir()] == ["my_conf"]


def refusal_of(path, cache, source=None):
    """What train.py says of a data set, in this process."""

    def load():
        load_faces(
            source or open_fer2013(root=path, classes=CLASSES, image_size=48), cache_dir=cache, log=print
        )

    with pytest.raises(FERError) as caught:
        load()
    return f"error: {caught.value}"


HEADERS = {
    "test.csv": "pixels\n1 2 3\n",
    "train.csv": "emotion,pixels\n0,1 2 3\n",
    "other columns": "label;image\n1;2\n",
    "no header": f"0,{' '.join(['7'] * 2304)},Training\n",
    "empty": "",
    "twice": "emotion,pixels,pixels,Usage\n",
    "UTF-16": "\ufeffemotion,pixels,Usage\n",
    "one column": "emotion:pixels:Usage\n",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_header_that_is_none_says_what_was_found(kind, fault_row, tmp_path):
    content = HEADERS[kind].encode("utf-16-le" if kind == "UTF-16" else "utf-8")
    (tmp_path / "data.csv").write_bytes(content)
    fault_row.check_text(refusal_of(tmp_path / "data.csv", tmp_path / "cache"))


def test_commands_name_the_file_without_labels(fault_row, cache, tmp_path):
    (tmp_path / "test.csv").write_text("pixels\n" + " ".join(["7"] * 2304) + "\n")
    command = ("train.py", "model=mlp", "logger=none", "trainer=smoke", "data=fer2013", "data.root=test.csv")
    fault_row.check(run(*command, cwd=tmp_path, cache=cache))


def write_tar(path, members, extra=None, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        if extra is not None:
            archive.addfile(extra)


def special_member(kind, target=""):
    member = tarfile.TarInfo("train/happy/special.png")
    member.type, member.linkname = kind, target
    return member


def twice(path):
    write_tar(path, faces(), mode="w")
    write_tar(path, {"train/happy/Training_3.png": face(5)}, mode="a")


def packed_bomb(path):
    """300 MB of zeros in 300 kB: it is not unpacked to its end."""
    path.write_bytes(gzip.compress(tar_of({"train/happy/Training_0.png": bytes(300_000_000)}), 1))


def tar_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def damaged_header(path):
    """tarfile alone would take it for the end, and leave out what follows."""
    data = bytearray(tar_of(faces()))
    data[4 * tarfile.BLOCKSIZE] ^= 1
    path.write_bytes(data)


TARS = {
    "outside": lambda path: write_tar(path, faces() | {"../../escaped.png": face()}),
    "absolute": lambda path: write_tar(path, faces() | {"/escaped.png": face()}),
    "symbolic link": lambda path: write_tar(path, faces(), special_member(tarfile.SYMTYPE, "/etc/passwd")),
    "hard link": lambda path: write_tar(path, faces(), special_member(tarfile.LNKTYPE, "/etc/passwd")),
    "device": lambda path: write_tar(path, faces(), special_member(tarfile.CHRTYPE)),
    "pipe": lambda path: write_tar(path, faces(), special_member(tarfile.FIFOTYPE)),
    "twice": twice,
    "bomb": packed_bomb,
    "damaged header": damaged_header,
    "truncated": lambda path: path.write_bytes(tar_of(faces())[:3000]),
    "truncated gzip": lambda path: path.write_bytes(gzip.compress(tar_of(faces()))[:-200]),
    "deep": lambda path: write_tar(path, faces() | {"a/" * 100 + "a.png": face()}),
}


@pytest.mark.parametrize("kind", TARS)
def test_hostile_tar_is_refused(kind, fault_row, tmp_path):
    TARS[kind](tmp_path / "archive.tar.gz")
    fault_row.check_text(refusal_of(tmp_path / "archive.tar.gz", tmp_path / "cache"))
    assert not list(tmp_path.parent.rglob("escaped.png"))


def test_full_disk_while_a_tar_is_unpacked_is_reported(fault_row, tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    write_tar(tmp_path / "archive.tar.gz", faces())
    monkeypatch.setattr("tempfile.TemporaryFile", Full)
    fault_row.check_text(refusal_of(tmp_path / "archive.tar.gz", tmp_path / "cache"))


KINDS = {
    "rar": b"Rar!\x1a\x07\x01\x00 and so on",
    "7z": b"7z\xbc\xaf'\x1c and so on",
    "page": b"<html><body>",
}


@pytest.mark.parametrize("kind", KINDS)
def test_file_of_another_kind_is_named(kind, fault_row, tmp_path):
    (tmp_path / "faces.zip").write_bytes(KINDS[kind])
    fault_row.check_text(refusal_of(tmp_path / "faces.zip", tmp_path / "cache"))
    with pytest.raises(FERError) as caught:
        list(ImageFolder(root=tmp_path / "faces.zip", classes=CLASSES, image_size=48).records())
    assert "expected a folder, or a zip or tar of it" in str(caught.value)


def one_image(content):
    def write(path):
        for name in ("happy", "sad"):
            (path / name).mkdir(parents=True)
            (path / name / "0.png").write_bytes(face())
        (path / "sad" / "bad.png").write_bytes(content)

    return write


def png(size):
    buffer = io.BytesIO()
    Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {
    "thin": png((1, 1_000_000)),
    "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "jxl": b"\xff\x0a and so on",
    "text": b"no image",
}


@pytest.mark.parametrize("kind", IMAGES)
def test_image_that_is_not_decoded_says_why(kind, fault_row, tmp_path):
    one_image(IMAGES[kind])(tmp_path / "faces")
    source = ImageFolder(
        root=tmp_path / "faces", classes=("happy", "sad"), image_size=48, val_ratio=0, test_ratio=0
    )
    fault_row.check_text(refusal_of(None, tmp_path / "cache", source))


def test_images_that_fit_on_no_disk_are_refused_by_the_command(fault_row, cache, tmp_path):
    huge = ("data.image_size=2048", "data.source.num_train=10000000", "model.hidden=[1]")
    fault_row.check(run("train.py", "model=mlp", "logger=none", *TINY, *huge, cwd=tmp_path, cache=cache))


@pytest.mark.slow
def test_names_of_any_bytes_go_through_every_command(cache, tmp_path):
    """A class folder, images and run folders with names in Latin-1 and in NFD."""
    folders = {"happy": "fro\u0308hlich", "sad": "sad"}
    for number, name in enumerate(folders.values()):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for copy in range(12):
            path = tmp_path / "faces" / name / f"caf\udce9{copy}.png"
            path.write_bytes(face(20 + 40 * number + copy, 16))
    small = ("model=mlp", "model.hidden=[8]", "logger=csv", "trainer=smoke", "num_threads=1")
    data = ("data=image_folder", "data.root=faces", 'data.classes=["fröhlich",sad]', "data.num_classes=2")
    where = ("data.image_size=16", 'hydra.run.dir="r\udce9"')
    succeed("train.py", *small, *data, *where, cwd=tmp_path, cache=cache)
    succeed("eval.py", 'checkpoint="r\udce9"', 'hydra.run.dir="e\udce9"', cwd=tmp_path, cache=cache)
    done = succeed("train.py", 'resume="r\udce9"', cwd=tmp_path, cache=cache)
    assert r"r\xe9: this run is finished" in done.stdout + done.stderr
    images = sorted((tmp_path / "faces/sad").iterdir())
    where = ("--detector", "none", "--checkpoint", tmp_path / "r\udce9")
    command = ("-m", "fer_lightning.predict", *images, *where)
    assert r"caf\xe90.png" in succeed(*command, cwd=tmp_path, cache=cache).stdout
    for name in ("report.html", "audit.json", "train.log", "run.json", "config.yaml"):
        (tmp_path / "r\udce9" / name).read_text(encoding="utf-8")
    with np.load(tmp_path / "e\udce9/predictions_test.npz") as predictions:
        assert {name.split("/")[1] for name in predictions["ids"].tolist()} == {"fröhlich", "sad"}
        assert all(r"/caf\xe9" in name for name in predictions["ids"].tolist())


# Special files


@pytest.fixture
def stopped(trained, tmp_path):
    """A copy of a run whose state says that it was stopped."""
    return copy_as_stopped(trained, tmp_path / "run")


PIPES = {
    "data.root": ("train.py", "model=mlp", "data=image_folder", "data.root=pipe"),
    "checkpoint": ("eval.py", "checkpoint=pipe"),
    "resume": ("train.py", "resume=pipe"),
    "init_from": ("train.py", *SMALL, "init_from=pipe"),
    "sample": ("eval.py", "checkpoint=run", "sample=pipe"),
    "predict": ("-m", "fer_lightning.predict", "pipe", "--detector", "none", "--checkpoint", "run"),
    "audit": ("-m", "fer_lightning.data.audit", "--root", "pipe"),
    "config": ("train.py", "--config-dir", "my_conf", "model=mlp"),
}


@pytest.mark.parametrize("place", PIPES)
def test_pipe_is_refused_wherever_a_path_is_given(place, stopped, fault_row, cache, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "my_conf/model").mkdir(parents=True)
    os.mkfifo(tmp_path / "my_conf/model/mine.yaml")
    fault_row.check(run(*PIPES[place], cwd=tmp_path, cache=cache, timeout=60))


@pytest.mark.parametrize("name", ["metrics.csv", "config.yaml", "figures/samples.png"])
def test_pipe_in_a_run_folder_is_refused(name, stopped, fault_row, cache, tmp_path):
    (stopped / name).unlink()
    os.mkfifo(stopped / name)
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=cache, timeout=60))


# What a file of someone else names


def caches_in(folder):
    return [path for path in folder.rglob("*") if path.name.startswith((".building", "synthetic-"))]


@pytest.mark.slow
@pytest.mark.parametrize("door", ["resume", "eval"])
def test_cache_folder_of_a_file_is_not_followed(door, stopped, cache, tmp_path):
    theirs = tmp_path / "theirs"
    (theirs / ".building-mine").mkdir(parents=True)
    config = yaml.safe_load((stopped / "config.yaml").read_text())
    config["data"]["cache_dir"] = str(theirs)
    (stopped / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("best.ckpt", "last.ckpt"):
        tamper(stopped / name, lambda content: content[KEY]["config"]["data"].update(cache_dir=str(theirs)))
    command = {"resume": ("train.py", "resume=run"), "eval": ("eval.py", "checkpoint=run")}[door]
    succeed(*command, cwd=tmp_path, cache=cache)
    assert [path.name for path in theirs.iterdir()] == [".building-mine"]


@pytest.mark.slow
@pytest.mark.parametrize("command", [("train.py", "resume=run"), ("eval.py", "checkpoint=run")])
def test_cache_folder_on_the_command_line_is_used(command, stopped, cache, tmp_path):
    succeed(*command, "data.cache_dir=mine", cwd=tmp_path, cache=cache)
    assert caches_in(tmp_path / "mine")


@pytest.mark.parametrize("name", ["figures", "csv", "last.ckpt", "wandb"])
def test_link_that_leads_out_of_a_run_folder_is_refused(name, stopped, fault_row, cache, tmp_path):
    outside = tmp_path / "outside"
    if name == "last.ckpt":
        (stopped / name).rename(outside)
    else:
        outside.mkdir()
        shutil.rmtree(stopped / name, ignore_errors=True)
    (stopped / name).symlink_to(outside)
    before = outside.stat().st_mtime_ns
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=cache))
    assert outside.stat().st_mtime_ns == before


@pytest.mark.slow
def test_run_says_where_the_config_of_a_file_sends_it(stopped, fault_row, cache, tmp_path):
    config = yaml.safe_load((stopped / "config.yaml").read_text())
    wandb = {"_target_": "fer_lightning.training.loggers.wandb.FailsafeWandbLogger", "entity": "their-lab"}
    config["logger"] = {"wandb": wandb | {"run_dir": str(stopped), "project": "faces", "mode": "offline"}}
    (stopped / "config.yaml").write_text(yaml.safe_dump(config))
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=cache))
    again = run("train.py", "resume=run", "logger=none", cwd=tmp_path, cache=cache)
    assert "their-lab" not in again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners of files")
def test_cache_that_others_can_write_is_not_trusted(trained, fault_row, cache, tmp_path):
    succeed("train.py", *SMALL, "trainer=smoke", "data.cache_dir=mine", cwd=tmp_path, cache=cache)
    (folder,) = (tmp_path / "mine").glob("synthetic-*")
    images = np.load(folder / "images.npy")
    np.save(folder / "images.npy", images)
    (folder / "images.npy").chmod(0o666)
    fault_row.check(
        run("train.py", *SMALL, "trainer=smoke", "data.cache_dir=mine", cwd=tmp_path, cache=cache)
    )
    assert (folder / "images.npy").stat().st_mode & 0o777 == 0o600
