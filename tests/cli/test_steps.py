import json

import numpy as np
import pytest

from fer_lightning.cli.steps import explain_results, load_data
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.runs.folder import RunFolder


def test_a_run_keeps_its_data_audit_and_warns(make_data, tmp_path, caplog, monkeypatch):
    data, run = make_data(), RunFolder(tmp_path / "run")
    monkeypatch.setattr("fer_lightning.cli.steps.log.propagate", True)
    monkeypatch.setattr(data, "cache_dir", tmp_path / "cache")
    load_data(data, run)
    audit = json.loads((run.folder / "audit.json").read_text())
    assert (audit["fingerprint"], audit["warnings"]) == (data.faces.fingerprint, [])
    assert not [record for record in caplog.records if record.levelname == "WARNING"]

    (cached,) = (tmp_path / "cache").glob("audit-*.json")
    cached.write_text(json.dumps(audit | {"warnings": ["train images are unlike test images"]}))
    load_data(data, run)
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["WARNING: train images are unlike test images"]


@pytest.mark.parametrize("failing", ["explain_split", "map_embeddings"])
def test_explanations_that_fail_hide_no_result(
    failing, make_data, make_checkpoint, tmp_path, caplog, monkeypatch
):
    def fail(*arguments):
        raise RuntimeError("no")

    monkeypatch.setattr("fer_lightning.cli.steps.log.propagate", True)
    monkeypatch.setattr(f"fer_lightning.cli.steps.{failing}", fail)
    data, (_, module) = make_data(), make_checkpoint()
    data.setup()
    rows = data.split_rows("test")
    n = len(rows)
    predictions = Predictions(
        ids=data.faces.ids[rows],
        labels=data.faces.labels[rows],
        probs=np.full((n, 7), 1 / 7, np.float32),
        status=np.full(n, "ok"),
        leaked=np.zeros(n, bool),
        classes=data.classes,
        embeddings=np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32),
    )
    explain_results(tmp_path, data, "test", predictions, module)
    what, left = {
        "explain_split": ("heat maps of the classes", "embeddings_test.npz"),
        "map_embeddings": ("the map of the embeddings", "explanations_test.npz"),
    }[failing]
    assert f"WARNING: {what} could not be made: " in caplog.text
    assert [path.name for path in tmp_path.glob("*.npz")] == [left]
