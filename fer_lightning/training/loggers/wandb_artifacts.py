"""Artifacts of a W&B run: checkpoints, results, and the data set they come from."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import wandb

from fer_lightning.training.loggers.wandb_settings import LogModel

_RESULTS = ("metrics.json", "metrics.csv", "config.yaml", "overrides.yaml", "report.html")
_DATA_FACTS = ("name", "fingerprint", "protocol", "counts", "num_copies", "num_conflicts", "leaks", "dropped")


def log_artifacts(run: wandb.Run, folder: Path, log_model: LogModel, record: Mapping[str, Any]) -> None:
    """Log checkpoints and results of a run, and declare the data set that it used.

    Files are read where they are, also when an offline run is synced; they are not copied.

    Args:
        run: The open run.
        folder: The run folder.
        log_model: ``best``, or ``all`` for ``last.ckpt`` and the weights of every epoch, too.
        record: The content of ``run.json``.
    """
    data = record.get("data") or {}
    if "fingerprint" in data:
        use_dataset(run, data)
    metadata = {
        "data_fingerprint": data.get("fingerprint"),
        "git_commit": (record.get("git") or {}).get("commit"),
        **{key: record.get(key) for key in ("model", "seed", "best_epoch", "best_score", "monitor")},
    }
    for alias, files in _checkpoints(folder, log_model):
        artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=metadata | {"selected": alias})
        add_files(artifact, folder, files)
        run.log_artifact(artifact, aliases=[alias, "latest"] if alias == "best" else [alias])
    results = [folder / name for name in _RESULTS if (folder / name).is_file()]
    artifact = wandb.Artifact(f"results-{run.id}", type="results", metadata=metadata)
    add_files(artifact, folder, [*results, *sorted(folder.glob("predictions_*.npz"))])
    run.log_artifact(artifact)


def _checkpoints(folder: Path, log_model: LogModel) -> Iterator[tuple[str, list[Path]]]:
    """Yield versions of the model with their alias; the best comes last and so is the latest."""
    if log_model == "all":
        yield "last", [folder / "last.ckpt"]
        epochs = sorted(folder.glob("epochs/*.ckpt"))
        if epochs:
            yield "epochs", epochs
    yield "best", [folder / "best.ckpt"]


def add_files(artifact: wandb.Artifact, folder: Path, files: list[Path]) -> None:
    """Add files under their paths in the run folder, without copies of them."""
    for path in files:
        name = path.relative_to(folder).as_posix()
        artifact.add_file(str(path), name=name, policy="immutable", skip_cache=True)


def use_dataset(run: wandb.Run, data: Mapping[str, Any]) -> None:
    """Declare the data set as an input of the run: its facts, not its images.

    Equal data give an equal file, so that W&B makes one version of the artifact for each fingerprint.

    Args:
        run: The open run.
        data: The data part of ``run.json``.
    """
    facts = {key: data[key] for key in _DATA_FACTS if key in data}
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"data-{data.get('name', 'set')}")[:128]
    artifact = wandb.Artifact(name, type="dataset", metadata=facts)
    with artifact.new_file("data.json") as file:
        file.write(json.dumps(facts, indent=2, sort_keys=True))
    # run.use_artifact does the same, but refuses offline runs, and waits for a server without a limit.
    run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
