"""The resolved config of train.py as types, so that a mistyped key is found by mypy."""

from typing import Any, Literal, TypedDict

Node = dict[str, Any]  # a ``_target_`` and its settings


class TrainerNode(TypedDict, total=False):
    """The settings of the Trainer that this package reads; Lightning takes more."""

    _target_: str
    accelerator: Literal["cpu", "cuda", "mps"]  # after core.hardware.resolve_hardware
    devices: int | list[int]
    strategy: str
    precision: str
    max_epochs: int
    deterministic: bool | str
    gradient_clip_val: float | None
    accumulate_grad_batches: int
    limit_train_batches: int | float
    limit_val_batches: int | float
    limit_predict_batches: int | float
    limit_test_batches: int | float
    profiler: Any


class TrainConfig(TypedDict):
    """A run's config: that of conf/train.yaml, resolved to plain containers."""

    seed: int
    monitor: str
    monitor_mode: str
    early_stopping: int | None
    num_threads: int | None
    compile: bool
    save_every_minutes: float | None
    save_every_steps: int | None
    keep_epochs: bool
    resume: str | None
    init_from: str | None
    run_dir: str
    data: Node
    model: Node
    optimizer: Node
    scheduler: Node
    loss: Node
    classifier: Node
    callbacks: dict[str, Node]
    trainer: TrainerNode
    logger: dict[str, Node]
    trust: list[str]
