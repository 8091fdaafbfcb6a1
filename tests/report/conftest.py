"""Fabricated run folders as train.py writes them: seeded predictions, and metrics computed from them."""

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from fer_lightning.config.instantiate import instantiate
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.evaluation.explanations import EmbeddingMap, Explanations
from fer_lightning.evaluation.predictions import Predictions
from fer_lightning.report.paper import reference, runs
from tests.forked import blank_drawing

MakeRun = Callable[..., Path]


def make_predictions(n: int, classes: Sequence[str], seed: int, skill: float) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, len(classes), n)  # the same images, whatever the seed
    logits = rng.normal(size=(n, len(classes)))
    logits[np.arange(n), labels] += skill
    probs = np.exp(1.5 * logits)
    probs /= probs.sum(axis=1, keepdims=True)
    return Predictions(
        ids=np.array([f"test/{classes[label]}/{i}.png" for i, label in enumerate(labels)]),
        labels=labels,
        probs=probs.astype(np.float32),
        status=np.full(n, "ok"),
        leaked=np.arange(n) % 12 == 0,
        classes=tuple(classes),
    )


def metrics_of(predictions: Predictions) -> dict[str, Any]:
    truth, answer, classes = predictions.labels, predictions.predicted, predictions.classes
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (truth[answer >= 0], answer[answer >= 0]), 1)
    hits, named = confusion.diagonal(), confusion.sum(axis=0)
    true = np.bincount(truth, minlength=len(classes))
    recall, precision = hits / true, hits / np.maximum(named, 1)
    f1 = 2 * hits / (true + named)
    acc_ovr = 1 - (true + named - 2 * hits) / len(truth)
    kept = ~predictions.leaked
    acc = float(np.mean(truth == answer))
    return {
        "acc": acc,
        "acc_macro": float(recall.mean()),
        "f1_macro": float(f1.mean()),
        "n": len(truth),
        "f1_weighted": acc,
        "acc_top2": min(1.0, acc + 0.15),
        "ece": 0.047,
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "acc_ovr": float(acc_ovr[i]),
                "n": int(true[i]),
            }
            for i, name in enumerate(classes)
        },
        "confusion": confusion.tolist(),
        "leak_free": {"acc": float(np.mean((truth == answer)[kept])), "n": int(kept.sum())},
    }


@pytest.fixture
def fast_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: laying out a figure takes most of a second, and pages only embed the file."""
    for name, method in blank_drawing().items():
        monkeypatch.setattr(Figure, name, method)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run folder below ``tmp_path``; a failed run has no metrics."""
    return run_maker(tmp_path)


@pytest.fixture(scope="module")
def make_shared_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Return a function that writes a run folder shared by all tests of a module."""
    return run_maker(tmp_path_factory.mktemp("runs"))


def run_maker(parent: Path) -> MakeRun:
    def make(
        name: str = "0_cnn",
        *,
        model: str = "cnn",
        seed: int = 0,
        state: str = "finished",
        synthetic: bool = False,
        lr: float = 0.001,
        n: int = 350,
        classes: Sequence[str] = EXPRESSIONS,
        skill: float = 1.6,
        extra_info: dict[str, Any] | None = None,
    ) -> Path:
        folder = parent / name
        folder.mkdir(parents=True)
        overrides = [f"model={model}", f"seed={seed}", f"optimizer.lr={lr}", "trainer.max_epochs=4"]
        info = {
            "schema": 1,
            "state": state,
            "reason": "data.root=<nowhere>: no such folder" if state == "failed" else None,
            "command": f"python train.py {' '.join(overrides)}",
            "overrides": overrides,
            "model": model,
            "name": f"{model}-{seed}",
            "seed": seed,
            "dataset": "synthetic" if synthetic else "fer2013",
            "synthetic": synthetic,
        }
        (folder / "config.yaml").write_text(
            f"model: {{_target_: {model}}}\noptimizer: {{lr: {lr}}}\nseed: {seed}\n"
            f"data: {{seed: {seed}, cache_dir: /cache/{seed}}}\nrun_dir: {folder}\n"
            f"logger: {{name: {model}-{seed}}}\n"
        )
        (folder / "overrides.yaml").write_text("".join(f"- {override}\n" for override in overrides))
        if state != "failed":
            info |= {
                "num_parameters": 1_234_567,
                "images_per_s": 2245.4,
                "epoch_seconds": [12.1, 12.0, 12.2, 12.1],
                "durations": {"data_s": 0.1, "fit_s": 48.4 + seed, "test_s": 1.0, "total_s": 50.0},
                "git": {"commit": "0123abc", "dirty": True},
                "machine": {"cpu": "A CPU", "cores": 2, "memory_gib": 7.8, "accelerator": None},
                "versions": {"torch": "2.14.1", "lightning": "2.6.6"},
                "precision": "bf16-mixed",
                "data": {
                    "fingerprint": "feedbeef",
                    "summary": "28,709 training images; 288 test images are duplicates of training images.",
                    "counts": {
                        "train": {c: 80 * (i + 2) for i, c in enumerate(classes)},
                        "test": {c: 9 * (i + 2) for i, c in enumerate(classes)},
                    },
                },
            }
            predictions = make_predictions(n, classes, seed, skill)
            predictions.save(folder / "predictions_test.npz")
            validation = metrics_of(make_predictions(n, classes, seed + 100, skill))
            metrics = {
                "schema": 1,
                "dataset": info["dataset"],
                "synthetic": synthetic,
                "selected_by": "val/acc",
                "best_epoch": 2,
                "val": validation,
                "test": metrics_of(predictions),
            }
            (folder / "metrics.json").write_text(json.dumps(metrics))
            with (folder / "metrics.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["epoch", "step", "lr", "train/loss", "train/acc", "val/loss", "val/acc"])
                for epoch in range(4):
                    writer.writerow(
                        [
                            epoch,
                            449 * (epoch + 1),
                            lr,
                            1.8 - 0.2 * epoch,
                            0.3 + 0.1 * epoch,
                            1.7 - 0.1 * epoch,
                            0.4,
                        ]
                    )
        (folder / "run.json").write_text(json.dumps(info | (extra_info or {})))
        return folder

    return make


def add_explanations(folder: Path) -> None:
    """Write what train.py writes of the network: maps of each class, and every test face on a map."""
    predictions = Predictions.load(folder / "predictions_test.npz")
    rng, n, answers = np.random.default_rng(0), len(predictions), predictions.predicted
    sheet, columns = BytesIO(), 10
    pixels = rng.integers(0, 256, (16 * -(-n // columns), 16 * columns), dtype=np.uint8)
    Image.fromarray(pixels).save(sheet, "JPEG")
    EmbeddingMap(
        classes=predictions.classes,
        num_images=n + 5,
        shares=np.array([0.26, 0.21]),
        ids=predictions.ids,
        positions=rng.normal(size=(n, 2)).astype(np.float32),
        labels=predictions.labels,
        answers=answers,
        probs=predictions.probs.max(axis=1),
        sheet=np.frombuffer(sheet.getvalue(), np.uint8),
        columns=columns,
        side=16,
    ).save(folder / "embeddings_test.npz")
    classes = predictions.classes
    Explanations(
        classes=classes,
        method="grad-cam",
        counts=np.array([8] * (len(classes) - 1) + [0]),
        mean_faces=rng.integers(0, 256, (len(classes), 16, 16), dtype=np.uint8),
        mean_maps=rng.integers(0, 256, (len(classes), 16, 16), dtype=np.uint8),
        ids=predictions.ids[:2],
        labels=predictions.labels[:2],
        answers=np.array([classes[answer] for answer in answers[:2]]),
        probs=predictions.probs[:2].max(axis=1),
        right=predictions.labels[:2] == answers[:2],
        faces=rng.integers(0, 256, (2, 16, 16), dtype=np.uint8),
        maps=rng.integers(0, 256, (2, 16, 16), dtype=np.uint8),
    ).save(folder / "explanations_test.npz")


SMALL_FACES = {
    "_target_": "fer_lightning.data.datamodule.FERDataModule",
    "name": "fer2013",
    "source": {
        "_target_": "fer_lightning.data.synthetic.source.SyntheticFaces",
        "_partial_": True,
        "num_train": 70,
        "num_val": 28,
        "num_test": 28,
        "class_balance": "uniform",
    },
    "classes": list(EXPRESSIONS),
    "num_classes": len(EXPRESSIONS),
    "image_size": 16,
    "protocol": "paper",
    "val_fraction": 0.0,
    "batch_size": 64,
    "eval_batch_size": 56,
    "augment": {"_target_": "fer_lightning.data.augment.Augment", "flip": 0.0},
    "on_bad": "error",
    "seed": 0,
}


@pytest.fixture(scope="session")
def small_faces(tmp_path_factory: pytest.TempPathFactory) -> FERDataModule:
    """Return 56 synthetic test faces, 8 per class, half of which are of the data set's val split."""
    data: FERDataModule = instantiate(SMALL_FACES | {"cache_dir": str(tmp_path_factory.mktemp("small"))})
    data.setup()
    return data


@pytest.fixture
def make_paper_run(tmp_path: Path, small_faces: FERDataModule, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """Return a function that writes a run of ``experiment=paper`` on ``small_faces``.

    They count as the paper's 7,178 images. ``right`` lists the test images that are classified correctly; the
    others are classified as the next class.
    """
    return paper_run_maker(tmp_path, small_faces, monkeypatch)


@pytest.fixture(scope="module")
def make_shared_paper_run(
    tmp_path_factory: pytest.TempPathFactory, small_faces: FERDataModule
) -> Iterator[MakeRun]:
    """Return a function that writes such a run, shared by all tests of a module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield paper_run_maker(tmp_path_factory.mktemp("paper"), small_faces, monkeypatch)


def paper_run_maker(parent: Path, small_faces: FERDataModule, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    fingerprint, n = small_faces.faces.fingerprint, len(small_faces.rows["test"])
    monkeypatch.setattr(runs, "FER2013_FINGERPRINT", fingerprint)
    monkeypatch.setattr(reference, "NUM_TEST", n)

    def make(
        name: str,
        *,
        model: str = "mlp",
        seed: int = 0,
        experiment: str = "paper",
        right: Sequence[int] = (),
        images: Sequence[int] = range(n),
        info: dict[str, Any] | None = None,
        config: dict[str, Any] | None = None,
        network: dict[str, Any] | None = None,
        status: Sequence[str] | None = None,
    ) -> Path:
        folder = parent / name
        folder.mkdir(parents=True)
        rows = small_faces.rows["test"]
        labels = small_faces.faces.labels[rows]
        answers = np.where(np.isin(np.arange(n), right), labels, (labels + 1) % len(EXPRESSIONS))
        probs = np.full((n, len(EXPRESSIONS)), 0.05, np.float32)
        probs[np.arange(n), answers] = 0.7
        statuses = np.array(status or ["ok"] * n, dtype="<U12")
        probs[statuses != "ok"] = np.nan
        predictions = Predictions(
            ids=small_faces.faces.ids[rows],
            labels=labels,
            probs=probs,
            status=statuses,
            leaked=np.arange(n) % 8 == 0,
            classes=EXPRESSIONS,
        ).subset(np.array(images))
        predictions.save(folder / "predictions_test.npz")
        measured = metrics_of(predictions)
        (folder / "metrics.json").write_text(json.dumps({"dataset": "fer2013", "test": measured}))
        facts = {
            "state": "finished",
            "model": model,
            "seed": seed,
            "dataset": "fer2013",
            "overrides": [f"experiment={experiment}"],
            "num_parameters": 1234,
            "data": {"fingerprint": fingerprint, "counts": {"train": dict.fromkeys(EXPRESSIONS, 10)}},
        }
        (folder / "run.json").write_text(json.dumps(facts | (info or {})))
        settings: dict[str, Any] = {
            "seed": seed,
            "run_dir": str(folder),
            "data": SMALL_FACES | {"cache_dir": str(small_faces.cache_dir), "seed": seed},
            "model": network
            or {
                "_target_": "fer_lightning.models.mlp.MLP",
                "num_classes": len(EXPRESSIONS),
                "image_size": 16,
                "hidden": [8],
                "dropout": 0.5,
            },
            "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
            "trainer": {"max_epochs": 30},
        }
        OmegaConf.save(OmegaConf.create(settings | (config or {})), folder / "config.yaml")
        return folder

    return make
