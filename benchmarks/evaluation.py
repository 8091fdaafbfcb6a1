"""Evaluating a split with all its metrics against a bare forward loop; one image through a loaded model."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import loops, measure
from benchmarks.measure import Figure, Options
from benchmarks.training import NETWORKS
from fer_lightning.core.hardware import prefers_channels_last
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.evaluation.evaluate import predict_splits, write_results
from fer_lightning.models.build import build_backbone
from fer_lightning.training.checkpoint import CheckpointMetadata
from fer_lightning.training.classifier import FERClassifier

NUM_SINGLES = 200


def run(options: Options) -> list[Figure]:
    """Measure every network of ``experiment=paper``."""
    loops.prepare_process(None)
    figures: list[Figure] = []
    with loops.scratch() as folder:
        for name in ("MLP", "RNN", "CNN", "ResNet-34"):
            if not options.only or name in options.only:
                figures += _measure(name, NETWORKS[name].overrides, options, folder)
    return figures


def _measure(name: str, overrides: tuple[str, ...], options: Options, folder: Path) -> list[Figure]:
    config = loops.resolve(*overrides, *options.overrides)
    data = loops.load(config)
    device = config["trainer"]["accelerator"]
    mean, std = data.pixel_statistics()
    backbone = build_backbone(config["model"])
    if prefers_channels_last(backbone, device, config["trainer"]["precision"]):
        backbone.to(memory_format=torch.channels_last)
    classifier = FERClassifier(backbone=backbone, classes=data.classes, mean=mean, std=std).eval()
    metadata = _metadata(config, data)
    batches = [(batch.images.float() / 255 - mean) / std for batch in data.eval_loader("test")]
    batches = [images.to(device) for images in batches]
    autocast = config["trainer"]["precision"] == "bf16-mixed"

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocast):
            return backbone(images)

    def bare() -> float:
        backbone.eval().to(device)

        def loop() -> None:
            for images in batches:
                forward(images)
            measure.synchronise(device)

        return measure.timed(loop)

    def ours(trainer: dict[str, Any] = config["trainer"]) -> float:
        def evaluate() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                predicted = predict_splits(classifier, metadata, data, ["test"], trainer)["test"]
                write_results(folder, data, metadata, {"test": predicted})

        return measure.timed(evaluate)

    backbone.to(device)
    for images in batches[:2]:
        forward(images)
    ours(config["trainer"] | {"limit_predict_batches": 2})
    values = measure.rounds(options.rounds, {"bare": bare, "ours": ours})
    num_images = len(data.rows["test"])
    over = [a - b for a, b in zip(values["ours"], values["bare"], strict=True)]
    figures = [Figure(f"{name}: bare forward loop, {num_images:,} images", values["bare"], "s")]
    figures.append(Figure(f"{name}: evaluation with every metric", values["ours"], "s"))
    if name in ("CNN", "ResNet-34"):
        figures.append(measure.ratio(f"{name}: bare / ours", values["bare"], values["ours"], at_least=0.9))
    else:
        figures.append(Figure(f"{name}: ours beyond the bare loop", over, "s", at_most=0.2))

    singles = data.eval_loader("test").images[:1]
    classifier.to(device)
    times = []
    for _ in range(NUM_SINGLES + 10):
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=autocast):
            times.append(1e3 * measure.timed(lambda: classifier(singles.to(device)).softmax(1).cpu()))
    times = times[10:]
    slow = float(np.percentile(times, 95))
    figures.append(
        Figure(
            f"{name}: one image through a loaded model", times, "ms", note=f"95th percentile {slow:.2f} ms"
        )
    )
    return figures


def _metadata(config: dict[str, Any], data: FERDataModule) -> CheckpointMetadata:
    hashes = data.faces.hashes
    return CheckpointMetadata(
        config=config,
        classes=data.classes,
        fingerprint=data.faces.fingerprint,
        trained_on=np.unique(hashes[data.rows["train"]]),
        selected_on=hashes[:0],
        selected_by="last",
        epoch=0,
        score=None,
        precision=config["trainer"]["precision"],
        channels_last=True,
    )
