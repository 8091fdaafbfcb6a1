"""What a GPU trains in a second: a bare loop, the same loop as one CUDA graph, and train.py's own loop.

``python -m benchmarks gpu`` should take 150 s on an H100. ``--device cpu --quick`` runs the same code on a
few small batches, in a minute and on any machine; its numbers mean nothing. Rows are printed as they are
measured, so that a command that is cut off leaves what it has.
"""

import contextlib
import io
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from benchmarks import loops, measure, start
from benchmarks.measure import Figure, Options, ratio
from benchmarks.training import multiply_adds
from fer_lightning.config.instantiate import instantiate
from fer_lightning.core.hardware import choose_device
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import Faces
from fer_lightning.training.build import build_loggers
from fer_lightning.training.loggers.wandb import FailsafeWandbLogger

EPOCHS = 4  # of train.py's loop; the first one prepares
TABLE = Path("outputs/benchmarks_gpu.md")
COUNTS = (28_709, 3_589, 3_589)  # FER-2013's
PAPER, IMPROVED = ("experiment=paper",), ("experiment=improved_resnet", "data.augment.sides=[]")


@dataclass(frozen=True)
class Case:
    """A network and a batch size, with what is asked of them on an H100 in bf16.

    Attributes:
        name: Of the network.
        overrides: Of ``train.py``.
        batch_size: Images in a batch.
        ours: ``train.py``'s loop over the bare loop, at least.
        eager: Images per second of the bare loop, at least.
        captured: Images per second of the captured loop, at least.
    """

    name: str
    overrides: tuple[str, ...]
    batch_size: int
    ours: float | None = None
    eager: float | None = None
    captured: float | None = None


CASES = (
    Case("MLP", (*PAPER, "model=mlp"), 64),
    Case("RNN", (*PAPER, "model=rnn"), 64),
    Case("CNN", (*PAPER, "model=cnn"), 64),
    Case("ResNet-34", (*PAPER, "model=resnet"), 64),
    Case("improved ResNet-15", IMPROVED, 128, ours=0.75, eager=20_000),
    Case("improved ResNet-15", IMPROVED, 512, ours=0.9, captured=60_000),
    Case("improved ResNet-15", IMPROVED, 1024),
)
COLUMNS = (
    "network", "batch", "precision", "bare loop", "32-true", "captured", "train.py", "train.py / bare",
    "ms a step beyond", "TFLOP/s", "of the product", "peak GB", "epoch's end",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """What was measured of one case: images per second, one value for each round or epoch.

    Attributes:
        case: What was trained.
        precision: Lightning's name for it.
        eager: The bare loop.
        float32: The bare loop in 32-true, which is TF32 on a GPU.
        captured: The bare loop as one CUDA graph; empty where it could not be captured.
        ours: ``train.py``'s loop.
        flops: Of one image in training.
        product: FLOP/s of the matrix product.
        peak_gb: The most memory that ``train.py``'s loop held on the device.
        epoch_end_s: Validation, records, checkpoints, logging.
    """

    case: Case
    precision: str
    eager: list[float]
    float32: list[float]
    captured: list[float]
    ours: list[float]
    flops: float
    product: float
    peak_gb: float
    epoch_end_s: float

    def cells(self) -> list[str]:
        """Write the row of the table."""
        eager, ours = statistics.median(self.eager), statistics.median(self.ours)
        flops = ours * self.flops
        return [
            *(self.case.name, str(self.case.batch_size), self.precision, f"{eager:,.0f}"),
            f"{statistics.median(self.float32):,.0f}",
            f"{statistics.median(self.captured):,.0f}" if self.captured else "failed",
            *(f"{ours:,.0f}", f"{ours / eager:.2f}"),
            f"{1000 * self.case.batch_size * (1 / ours - 1 / eager):.2f}",
            *(f"{flops / 1e12:.2f}", f"{flops / self.product:.3f}", f"{self.peak_gb:.2f}"),
            f"{self.epoch_end_s:.2f} s",
        ]

    def figures(self) -> list[Figure]:
        """List what has a target."""
        name = f"{self.case.name}, batches of {self.case.batch_size}"
        figures = []
        if self.case.ours is not None:
            figures.append(
                ratio(f"{name}: train.py / bare loop", self.ours, self.eager, at_least=self.case.ours)
            )
        if self.case.eager is not None:
            figures.append(Figure(f"{name}: bare loop", self.eager, "images/s", at_least=self.case.eager))
        if self.case.captured is not None and self.captured:
            figures.append(
                Figure(f"{name}: captured", self.captured, "images/s", at_least=self.case.captured)
            )
        return figures


class Captured(loops.Limit):
    """The bare loop whose whole step is one CUDA graph, so that launching kernels costs next to nothing.

    On a CPU the step runs as it is.
    """

    def __init__(self, config: dict[str, Any], data: FERDataModule) -> None:
        super().__init__(config, data)
        capturable = {"capturable": True} if "Adam" in config["optimizer"]["_target_"] else {}
        self.optimizer = instantiate(config["optimizer"])(
            self.network.parameters(), **(capturable if self.device == "cuda" else {})
        )
        self.images, self.labels = (part.clone() for part in self.batches[0])
        self.graph: torch.cuda.CUDAGraph | None = None
        if self.device == "cuda":
            self._capture()

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what a first step allocates must not be part of the graph
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        self.optimizer.zero_grad()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        self.graph = graph

    def _step(self) -> None:
        self.optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast, cache_enabled=False):
            logits = self.network(self.images)
        F.cross_entropy(logits.float(), self.labels, label_smoothing=self.smoothing).backward()
        self.optimizer.step()

    def run(self, num_steps: int) -> float:
        """Train, and return images a second; the last, smaller batch is left out."""
        full = [batch for batch in self.batches if len(batch[1]) == len(self.labels)]
        started = time.perf_counter()
        for number in range(num_steps):
            images, labels = full[number % len(full)]
            self.images.copy_(images)
            self.labels.copy_(labels)
            if self.graph is None:
                self._step()
            else:
                self.graph.replay()
        measure.synchronise(self.device)
        return num_steps * len(self.labels) / (time.perf_counter() - started)


def run(options: Options) -> list[Figure]:
    """Measure every case; print the table row by row and write it; return what has a target."""
    loops.prepare_process(None)
    device = choose_device(options.device)
    product = measure.matrix_rate(torch.bfloat16, device, size=256 if options.quick else 8192)
    head = [
        f"Images per second; a bf16 matrix product reaches {product / 1e12:,.1f} TFLOP/s.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"| --- | {' | '.join('--:' for _ in COLUMNS[1:])} |",
    ]
    print("\n".join(head), flush=True)
    lines, figures = [measure.describe(device), "", *head], []
    counts = (140, 35, 35) if options.quick else COUNTS
    with loops.scratch() as folder:
        for case in CASES:
            if options.only and case.name not in options.only:
                continue
            row = _measure(case, options, device, product, _noise(counts), folder)
            lines.append(f"| {' | '.join(row.cells())} |")
            print(lines[-1], flush=True)
            figures += row.figures()
        first_steps = _first_steps(options, device, folder)
        figures.append(Figure("from the command to the first training step", first_steps, "s", at_most=10))
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text("\n".join([*lines, ""]), encoding="utf-8")
    if options.quick or device != "cuda":  # the targets are an H100's
        figures = [replace(figure, at_least=None, at_most=None) for figure in figures]
    return figures


def _noise(counts: tuple[int, int, int]) -> Faces:
    """Make faces of noise: as many as FER-2013 has, at once."""
    rng, total = np.random.default_rng(0), sum(counts)
    numbers = np.arange(total)
    return Faces(
        images=rng.integers(0, 256, (total, 48, 48), np.uint8),
        labels=numbers % 7,
        splits=np.repeat(np.arange(3, dtype=np.uint8), counts),
        hashes=numbers.astype(np.uint64),
        ids=np.array([f"noise/{number}" for number in numbers]),
        classes=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
        fingerprint="noise",
        skipped=(),
    )


def _measure(case: Case, options: Options, device: str, product: float, faces: Faces, folder: Path) -> Row:
    batch_size = max(4, case.batch_size // 16) if options.quick else case.batch_size
    config = loops.resolve(
        *(*case.overrides, "data=synthetic", "data.protocol=official", f"data.batch_size={batch_size}"),
        *(f"trainer={'gpu' if device == 'cuda' else device}", f"trainer.max_epochs={EPOCHS}"),
        *(("trainer.limit_train_batches=2",) if options.quick else ()),
        *options.overrides,
    )

    def load() -> FERDataModule:
        data: FERDataModule = instantiate(config["data"])
        data._load = lambda: faces  # type: ignore[method-assign] # the images are decoded once
        data.setup()
        return data

    contenders: dict[str, loops.Limit] = {
        "eager": loops.Limit(config, load()),
        "float32": loops.Limit(config, load(), precision="32-true"),
    }
    try:
        contenders["captured"] = Captured(config, load())
    except RuntimeError as error:  # CUDA's, of an operation that cannot be captured
        print(f"{case.name}: not captured: {' '.join(str(error).split())[:300]}", flush=True)
    rounds = 1 if options.quick else EPOCHS - 1
    num_steps = 2
    if not options.quick:
        for loop in contenders.values():
            loop.run(20)
        rate = contenders["eager"].run(20)
        num_steps = max(10, round(min(options.seconds, 0.6) * rate / batch_size))
    values = measure.rounds(
        rounds, {name: lambda loop=loop: loop.run(num_steps) for name, loop in contenders.items()}
    )
    contenders.clear()
    record, peak = _train(config, load(), folder)
    num_images = min(sum(faces.splits == 0), batch_size * (2 if options.quick else 10**9))
    ours = [num_images / seconds for seconds in record["epoch_seconds"][-rounds:]]
    return Row(
        case=replace(case, batch_size=batch_size),
        precision=config["trainer"]["precision"],
        eager=values["eager"],
        float32=values["float32"],
        captured=values.get("captured", []),
        ours=ours,
        flops=6 * multiply_adds(config, config["data"]["image_size"]),
        product=product,
        peak_gb=peak,
        epoch_end_s=statistics.median(record["epoch_end_seconds"]),
    )


def _train(config: dict[str, Any], data: FERDataModule, folder: Path) -> tuple[dict[str, Any], float]:
    """Train with all that train.py does between its data and its test, W&B offline included."""
    on_gpu = config["trainer"]["accelerator"] == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    place = folder / f"run_{len(list(folder.iterdir()))}"
    place.mkdir()
    (window,) = build_loggers({"wandb": config["logger"]["wandb"] | {"run_dir": str(place)}})
    assert isinstance(window, FailsafeWandbLogger)
    with contextlib.redirect_stdout(io.StringIO()):
        window.start(config)
        try:
            times = loops.train(config, data, place, window)
        finally:
            window.finish(0)
    return times, torch.cuda.max_memory_allocated() / 1e9 if on_gpu else 0.0


def _first_steps(options: Options, device: str, folder: Path) -> list[float]:
    overrides = ["data=synthetic", f"trainer={'gpu' if device == 'cuda' else device}"]
    if options.quick:
        overrides += ["data.source.num_train=140", "data.source.num_val=35", "data.source.num_test=35"]
    return [
        start.seconds_to_first_step((*overrides, *options.overrides), folder)
        for _ in range(1 if options.quick else 2)
    ]
