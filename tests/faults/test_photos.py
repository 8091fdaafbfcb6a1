"""Faults of ``fer-lightning predict``: detectors, boxes, photographs, networks in safetensors."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from fer_lightning.inference.network import SHIPPED
from tests.commands import run

PREDICT = ("-m", "fer_lightning.predict")
NONE = ("--detector", "none")


@pytest.fixture
def here(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    return tmp_path


@pytest.fixture
def network(here):
    """A copy of the shipped network: its path."""
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), here / f"copy{suffix}")
    return here / "copy.safetensors"


@pytest.mark.slow
def test_missing_opencv_names_the_command_that_installs_it(here, cache, fault_row):
    (here / "cv2.py").write_text("raise ImportError('no cv2')\n")  # shadows the library
    fault_row.check(run(*PREDICT, "face.png", cwd=here, cache=cache, fresh=True))


def test_photographs_without_a_face_end_with_code_3(here, cache, fault_row):
    (here / "boxes.csv").write_text("image,x,y,width,height\n")
    shutil.copy(here / "face.png", here / "other.png")
    done = run(*PREDICT, "face.png", "other.png", "--boxes", "boxes.csv", cwd=here, cache=cache)
    fault_row.check(done)
    assert done.stdout.count("no face found") == 2


def test_unreadable_photographs_are_named_and_the_others_predicted(here, cache, fault_row):
    (here / "a.png").write_text("hello")
    (here / "c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    images = ("a.png", "face.png", "b.png", "c.heic")
    done = run(*PREDICT, *images, *NONE, "--csv", "faces.csv", cwd=here, cache=cache)
    fault_row.check(done)
    assert "face.png" in done.stdout
    rows = (here / "faces.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == list(images)


@pytest.mark.parametrize(
    "table",
    [
        pytest.param("image,x,y,width,height\nface.png,left,1,8,8\n", id="number"),
        pytest.param("image,left,top\nface.png,1,1\n", id="columns"),
        pytest.param("image,x,y,width,height\nface.png,900,1,8,8\n", id="outside"),
    ],
)
def test_wrong_file_of_boxes_is_refused_with_its_line(table, here, cache, fault_row):
    (here / "boxes.csv").write_text(table)
    fault_row.check(run(*PREDICT, "face.png", "--boxes", "boxes.csv", cwd=here, cache=cache))


def test_file_as_the_folder_of_annotated_images_is_refused(here, cache, fault_row):
    before = (here / "face.png").read_bytes()
    fault_row.check(run(*PREDICT, "face.png", *NONE, "--save", "face.png", cwd=here, cache=cache))
    assert (here / "face.png").read_bytes() == before


def test_empty_standard_input_is_reported(here, cache, fault_row):
    fault_row.check(run(*PREDICT, "-", *NONE, cwd=here, cache=cache))


def test_damaged_network_is_refused(network, here, cache, fault_row):
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    done = run(*PREDICT, "face.png", *NONE, "--checkpoint", "copy.safetensors", cwd=here, cache=cache)
    fault_row.check(done)


def test_description_of_a_network_that_names_what_to_run_is_refused(network, here, cache, fault_row):
    path = network.with_suffix(".json")
    description = json.loads(path.read_text())
    description["checkpoint"]["config"]["model"]["_target_"] = "os.mkdir"
    path.write_text(json.dumps(description))
    done = run(*PREDICT, "face.png", *NONE, "--checkpoint", "copy.safetensors", cwd=here, cache=cache)
    fault_row.check(done)


def test_grad_cam_of_a_network_without_convolutions_is_refused(here, cache, make_checkpoint, fault_row):
    checkpoint, _ = make_checkpoint()
    explain = ("--explain", "grad-cam", "--save", "drawn", "--checkpoint", checkpoint)
    fault_row.check(run(*PREDICT, "face.png", *NONE, *explain, cwd=here, cache=cache))
    assert not list(here.glob("drawn/*"))
    done = run(*PREDICT, "face.png", *NONE, "--explain", *explain[2:], cwd=here, cache=cache)
    assert (done.returncode, len(list(here.glob("drawn/*")))) == (0, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("face.png", "--explain"), id="no folder"),
        pytest.param(("--explain", "face.png", "--save", "drawn"), id="path"),
    ],
)
def test_wrong_use_of_explain_is_reported(arguments, here, cache, fault_row):
    fault_row.check(run(*PREDICT, *arguments, *NONE, cwd=here, cache=cache))
    assert not (here / "drawn").exists()
