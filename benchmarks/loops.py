"""Three ways to train the same network on the same faces: at the limit, as train.py does, and as is usual."""

import contextlib
import io
import logging
import os
import shutil
import tempfile
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger
from omegaconf import OmegaConf
from PIL import Image
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.measure import synchronise
from fer_lightning.cli.train import build_job, build_network
from fer_lightning.cli.train import train as train_and_test
from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.resolve import register_resolvers, to_plain
from fer_lightning.config.targets import ANY_TARGET
from fer_lightning.core.hardware import prefers_channels_last, prepare, resolve_hardware
from fer_lightning.core.signals import StopSignals
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.locate import locate
from fer_lightning.models.build import build_backbone
from fer_lightning.runs.folder import RunFolder
from fer_lightning.training.build import build_callbacks, build_classifier, build_trainer
from fer_lightning.training.callbacks import ModelCheckpoint
from fer_lightning.training.fit import callback_of, fit, training_times

ROOT = Path(__file__).parent.parent
NUM_WORKERS = 2  # of the usual DataLoader


def quiet() -> None:
    """Let Lightning and W&B speak only where they warn; W&B stays offline."""
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def resolve(*overrides: str) -> dict[str, Any]:
    """Resolve ``train.py``'s config as the command does, for this machine."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    plain = to_plain(config)
    plain["data"] = locate(plain["data"], log=print)
    return resolve_hardware(plain)


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fer_lightning_benchmark_"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load(config: dict[str, Any]) -> FERDataModule:
    """Load a config's data."""
    data: FERDataModule = instantiate(config["data"])
    data.setup()
    return data


def files_of(data: FERDataModule, folder: Path) -> Path:
    """Put the training faces into class folders, as ``ImageFolder`` wants them: the very files, if any.

    Args:
        data: Set up.
        folder: Where they go, unless they are there already or the data set is such a folder.

    Returns:
        The folder of class folders.
    """
    if (folder / "train").is_dir():
        return folder / "train"
    root = Path(data.root) if data.root else None
    if root is not None and root.is_dir():
        archives = sorted(root.glob("*.zip"))
        root = archives[0] if archives else root
    if root is not None and root.is_dir() and (root / "train").is_dir():
        return root / "train"
    if root is not None and root.suffix == ".zip":
        with zipfile.ZipFile(root) as archive:
            archive.extractall(folder, [name for name in archive.namelist() if name.startswith("train/")])
        return folder / "train"
    for row in data.rows["train"].tolist():
        place = folder / "train" / data.classes[data.faces.labels[row]] / f"{row}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(data.faces.images[row]).save(place, quality=92)
    return folder / "train"


def train(
    config: dict[str, Any], data: FERDataModule, folder: Path, logger: Logger | None = None
) -> dict[str, Any]:
    """Train as ``train.py`` does, without its data summary, test and report; return what took how long."""
    module = build_classifier(config, trust=ANY_TARGET)
    callbacks = build_callbacks(config, trust=ANY_TARGET)
    loggers = [] if logger is None else [logger]
    trainer = build_trainer(config, folder, callbacks, loggers, trust=ANY_TARGET)
    with StopSignals() as signals:
        callback_of(trainer, ModelCheckpoint).signals = signals
        fit(trainer, module, data, folder)
    return training_times(trainer)


class Limit:
    """A bare loop: batches in memory and already normalised, nothing logged, nothing kept.

    Args:
        config: Resolved.
        data: Set up.
        side: Of the images, in pixels; None for the data's.
        precision: Instead of the config's.
    """

    def __init__(
        self,
        config: dict[str, Any],
        data: FERDataModule,
        *,
        side: int | None = None,
        precision: str | None = None,
    ) -> None:
        self.device = config["trainer"]["accelerator"]
        precision = precision or config["trainer"]["precision"]
        self.autocast = precision == "bf16-mixed"
        self.network = build_backbone(config["model"]).to(self.device).train()
        if prefers_channels_last(self.network, self.device, precision):
            self.network.to(memory_format=torch.channels_last)
        self.optimizer = instantiate(config["optimizer"])(self.network.parameters())
        self.smoothing = config["loss"]["label_smoothing"]
        mean, std = data.pixel_statistics()
        self.batches = []
        for batch in data.train_dataloader():
            images = (batch.images.float() / 255 - mean) / std
            if side not in (None, images.shape[-1]):
                images = F.interpolate(images, size=side, mode="bilinear")
            self.batches.append((images.to(self.device), batch.labels.to(self.device)))
            if len(self.batches) == 32:
                break

    def run(self, num_steps: int) -> float:
        """Train, and return images a second."""
        num_images = 0
        started = time.perf_counter()
        for number in range(num_steps):
            images, labels = self.batches[number % len(self.batches)]
            self.optimizer.zero_grad()
            with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
                logits = self.network(images)
            F.cross_entropy(logits.float(), labels, label_smoothing=self.smoothing).backward()
            self.optimizer.step()
            num_images += len(labels)
        synchronise(self.device)
        return num_images / (time.perf_counter() - started)


class Ours:
    """``train.py``'s own stack, W&B offline and CSV, from its first line to its report.

    Args:
        overrides: As on the command line.
        num_steps: An epoch.
        sides: How many sides of images the recipe trains on, one after the other; two epochs each.
    """

    def __init__(self, overrides: Sequence[str], *, num_steps: int, sides: int) -> None:
        self.overrides = [
            *overrides,
            f"trainer.max_epochs={2 * sides}",
            f"trainer.limit_train_batches={num_steps}",
            "trainer.limit_predict_batches=2",
        ]
        self.records: list[dict[str, Any]] = []

    def run(self) -> list[float]:
        """Train, and return images a second of the second epoch of each side."""
        config = resolve(*self.overrides)
        with scratch() as folder:
            config["run_dir"] = str(folder)
            for node in config["logger"].values():
                for key in node.keys() & {"run_dir", "save_dir"}:
                    node[key] = str(folder)
            run = RunFolder(folder)
            job = build_job(run, config, build_network(config, ANY_TARGET), ANY_TARGET)
            with contextlib.redirect_stdout(io.StringIO()), job.signals:
                train_and_test(job)
            run.end("finished")
            self.records.append(run.record)
            limit = config["trainer"]["limit_train_batches"] * config["data"]["batch_size"]
            num_images = min(limit, sum(run.record["data"]["counts"]["train"].values()))
            return [num_images / seconds for seconds in run.record["epoch_seconds"][1::2]]


class _UsualModule(LightningModule):
    """What tutorials teach: metrics updated and logged each step."""

    def __init__(self, config: dict[str, Any], num_classes: int, total_steps: int) -> None:
        super().__init__()
        self.config, self.total_steps = config, total_steps
        self.network = build_backbone(config["model"])
        self.accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.f1 = MulticlassF1Score(num_classes)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config["loss"]["label_smoothing"])
        self.accuracy(logits, labels)
        self.f1(logits, labels)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/acc", self.accuracy, on_step=True, on_epoch=True)
        self.log("train/f1", self.f1, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        node = {key: value for key, value in self.config["optimizer"].items() if key != "fused"}
        optimizer = instantiate(node)(self.parameters())
        if not self.config["scheduler"]:
            return optimizer
        schedule = instantiate(self.config["scheduler"])(optimizer, total_steps=self.total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Clock(Callback):
    """Times epochs, and drops nothing of what happens in them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self._started)


class Usual:
    """ImageFolder, two workers, torchvision's transforms image by image, float32.

    Args:
        config: Resolved; its augmentation, optimiser and schedule in torchvision's and torch's own words.
        data: Set up; of it the statistics.
        files: Class folders of the same faces.
    """

    def __init__(self, config: dict[str, Any], data: FERDataModule, files: Path) -> None:
        self.config, self.num_classes = config, len(data.classes)
        self.dataset = ImageFolder(files, transform=_usual_transforms(config, *data.pixel_statistics()))

    def run(self, num_steps: int) -> float:
        """Train, and return images a second of the second epoch, whose workers are at hand."""
        batch_size = self.config["data"]["batch_size"]
        loader = DataLoader(
            self.dataset,
            batch_size=batch_size,
            shuffle=True,
            num_workers=NUM_WORKERS,
            persistent_workers=True,
        )
        clock = _Clock()
        with scratch() as folder:
            trainer = Trainer(
                accelerator=self.config["trainer"]["accelerator"],
                devices=1,
                max_epochs=2,
                limit_train_batches=num_steps,
                logger=CSVLogger(folder),
                callbacks=[clock],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
            module = _UsualModule(self.config, self.num_classes, total_steps=2 * num_steps)
            hidden = os.environ.pop(
                "CUDA_VISIBLE_DEVICES", None
            )  # what machine.prepare sets is ours, not usual
            torch.set_flush_denormal(False)
            try:
                trainer.fit(module, loader)
            finally:
                torch.set_flush_denormal(True)
                if hidden is not None:
                    os.environ["CUDA_VISIBLE_DEVICES"] = hidden
        return min(num_steps * batch_size, len(self.dataset)) / clock.seconds[1]


def _usual_transforms(config: dict[str, Any], mean: float, std: float) -> v2.Compose:
    augment = config["data"]["augment"]
    changes: list[Any] = []
    if augment["flip"]:
        changes.append(v2.RandomHorizontalFlip(augment["flip"]))
    if augment["rotate"] or augment["shift"] or augment["scale"]:
        changes.append(
            v2.RandomAffine(
                degrees=augment["rotate"],
                translate=(augment["shift"], augment["shift"]),
                scale=(1 - augment["scale"], 1 + augment["scale"]),
                interpolation=v2.InterpolationMode.BILINEAR,
            )
        )
    if augment["brightness"] or augment["contrast"]:
        changes.append(v2.ColorJitter(brightness=augment["brightness"], contrast=augment["contrast"]))
    last = [v2.RandomErasing(augment["erase"], scale=(0.02, 0.2))] if augment["erase"] else []
    return v2.Compose(
        [
            v2.Grayscale(),
            v2.ToImage(),
            *changes,
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([mean], [std]),
            *last,
        ]
    )


def prepare_process(num_threads: int | None) -> int:
    """Set threads and arithmetic as ``train.py`` does, and seed."""
    quiet()
    seed_everything(0, verbose=False)
    return prepare(num_threads)
