"""The network that the package holds, and files of its form."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fer_lightning.core.errors import FERError
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.calibration import calibrate, describe_calibration
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.inference.described_weights import half_precision
from fer_lightning.inference.export.images import batch_of
from fer_lightning.inference.model_card import write_card
from fer_lightning.inference.network import SHIPPED, load_network

ANSWERS = Path(__file__).with_name("resnet15_answers.npz")
MAX_SHIPPED = 7_000_000  # bytes
DESCRIPTION = json.loads(SHIPPED.with_suffix(".json").read_text())


def copied(folder, change=lambda description: None):
    for suffix in (".safetensors", ".json"):
        shutil.copy(SHIPPED.with_suffix(suffix), folder)
    path = folder / SHIPPED.name
    change(description := json.loads(path.with_suffix(".json").read_text()))
    path.with_suffix(".json").write_text(json.dumps(description))
    return path


def test_shipped_network_is_small_and_of_half_precision():
    assert SHIPPED.stat().st_size <= MAX_SHIPPED
    weights = load_file(SHIPPED)
    assert {value.dtype for value in weights.values()} == {torch.float16, torch.float32, torch.int64}
    assert sum(value.numel() for name, value in weights.items() if "backbone" in name) >= 3_388_583


def test_shipped_network_is_ready_to_predict():
    network = load_network()
    assert network.classifier.classes == tuple(DESCRIPTION["classes"]) == EXPRESSIONS
    assert not network.classifier.training
    assert network.classifier.tta == "flip"
    assert network.classifier(torch.zeros(2, 1, 48, 48)).shape == (2, 7)
    assert network.calibration.temperature == DESCRIPTION["calibration"]["temperature"]
    assert network.metadata.fingerprint == "f6998d1d1c42417aaf1d80ab0d7e2f85"


def test_model_card_is_made_of_the_description():
    assert SHIPPED.with_suffix(".md").read_text() == write_card(DESCRIPTION)


def test_description_names_no_path_of_a_machine():
    assert "/" not in json.dumps(DESCRIPTION).replace("val/acc", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda it: it.update(sha256="0"), "its sha256 is not the one in the JSON"),
        (lambda it: it.update(schema=2), "schema 2, expected 1"),
        (lambda it: it.pop("checkpoint"), "incomplete ('checkpoint')"),
        (lambda it: it["calibration"].update(temperature=0.0), "temperature=0.0"),
        (lambda it: it["calibration"].update(threshold="x"), "threshold=x"),
        (
            lambda it: it["checkpoint"]["config"]["model"].update(_target_="os.mkdir"),
            "os.mkdir is not allowed",
        ),
        (lambda it: it["checkpoint"]["config"]["model"].update(depth=34), "weights do not fit its config"),
        (lambda it: it["checkpoint"].update(classes=["a"]), "names 1 classes"),
    ],
)
def test_altered_description_is_refused(change, message, tmp_path):
    with pytest.raises(FERError) as caught:
        load_network(copied(tmp_path, change))
    assert message in str(caught.value)


def test_damaged_or_missing_files_are_named(tmp_path):
    path = copied(tmp_path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FERError, match="damaged, or of another description"):
        load_network(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(FERError, match="expected the description of resnet15"):
        load_network(path)
    path.unlink()
    with pytest.raises(FERError, match="no such file"):
        load_network(path)


def test_half_precision_refuses_what_it_cannot_hold(tmp_path):
    rounded = half_precision({"a": torch.tensor([1.0]), "n": torch.tensor([3]), "mean": torch.tensor(0.5)})
    assert [value.dtype for value in rounded.values()] == [torch.float16, torch.int64, torch.float32]
    with pytest.raises(FERError, match="a: holds numbers beyond float16"):
        half_precision({"a": torch.tensor([1e6])})
    save_file(rounded, tmp_path / "a.safetensors")


def recorded_answers():
    """What the network answered to PublicTest and PrivateTest on the day it was shipped.

    From ``predict_splits(network.classifier, network.metadata, data, ["val", "test"], trainer)``, in float32
    on a CPU.
    """
    answers = {}
    with np.load(ANSWERS) as arrays:
        for split in ("val", "test"):
            labels = arrays[f"labels_{split}"]
            answers[split] = Predictions(
                ids=np.array([f"{split}/{row}" for row in range(len(labels))]),
                labels=labels,
                probs=arrays[f"probs_{split}"],
                status=np.full(len(labels), "ok"),
                leaked=np.zeros(len(labels), dtype=bool),
                classes=EXPRESSIONS,
            )
    return answers


def test_card_has_the_accuracy_and_calibration_of_the_recorded_answers():
    answers = recorded_answers()
    for split, (right, total) in {"val": (2463, 3589), "test": (2487, 3589)}.items():
        found = answers[split]
        assert (np.count_nonzero(found.probs.argmax(axis=1) == found.labels), len(found.labels)) == (
            right,
            total,
        )
        assert DESCRIPTION["metrics"][split]["acc"] == pytest.approx(right / total)
    precision = DESCRIPTION["calibration"]["precision"]
    calibration = calibrate(answers["val"], precision=precision)
    described = describe_calibration(calibration, answers, precision=precision)
    assert calibration == pytest.approx(load_network().calibration, abs=1e-4)
    for split in ("val", "test"):
        assert described[split] == pytest.approx(DESCRIPTION["calibration"][split], abs=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("FER2013_ROOT"), reason="needs FER-2013: set FER2013_ROOT")
def test_shipped_network_gives_the_recorded_answers(tmp_path):
    """On every ninth image; all 7,178 take over a minute."""
    data = FERDataModule(root=os.environ["FER2013_ROOT"], cache_dir=tmp_path)
    data.prepare_data()
    data.setup("test")
    network = load_network()
    assert data.faces.fingerprint == network.metadata.fingerprint
    for split, expected in recorded_answers().items():
        rows = data.rows[split]
        assert np.array_equal(data.faces.labels[rows], expected.labels)
        with torch.inference_mode():
            logits = network.classifier(torch.from_numpy(batch_of(data, rows[::9])))
        # Other processors round otherwise.
        np.testing.assert_allclose(logits.softmax(dim=1), expected.probs[::9], atol=1e-4)
