import json

from fer_lightning.cli.steps import load_data
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
