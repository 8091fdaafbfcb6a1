"""What each trick of ``training/overhead.py`` saves: the MLP trained with all of them, and without one each.

``python -m benchmarks overhead``
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from lightning.pytorch.profilers import PassThroughProfiler

from benchmarks import loops, measure
from benchmarks.measure import Figure, Options
from fer_lightning.training import build, classifier
from fer_lightning.training.callbacks.base import EpochCallback
from fer_lightning.training.classifier import FERClassifier
from fer_lightning.training.overhead import STEP_HOOKS, LeanModule

STEPS = 200  # of each epoch; the second epoch of a run is timed


def _empty_hook(*args: Any, **kwargs: Any) -> None:
    """Do nothing, as Lightning's own hooks do."""


@contextlib.contextmanager
def _with_hooks() -> Iterator[None]:
    """Give callbacks and module the empty hooks that Lightning calls."""
    with contextlib.ExitStack() as stack:
        for name in STEP_HOOKS:
            for kind in (EpochCallback, FERClassifier):
                stack.enter_context(mock.patch.object(kind, name, _empty_hook))
        stack.enter_context(mock.patch.object(FERClassifier, "on_train_batch_end", _empty_hook))
        yield


def _seed(seed: int, device: torch.device) -> None:  # noqa: ARG001 - seed_device's signature
    torch.manual_seed(seed)


# A trick, and how to do without it.
WITHOUT: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
    "hooks that are None": _with_hooks,
    "NoProfiler": lambda: mock.patch.object(build, "NoProfiler", PassThroughProfiler),
    "__setattr__": lambda: mock.patch.object(LeanModule, "__setattr__", torch.nn.Module.__setattr__),
    "seed_device": lambda: mock.patch.object(classifier, "seed_device", _seed),
}


def run(options: Options) -> list[Figure]:
    """Let the loop with all tricks and the loops without one of them take turns."""
    loops.prepare_process(None)
    config = loops.resolve(
        *("data=synthetic", "model=mlp", "data.batch_size=16", "data.protocol=paper", "logger=none"),
        *("trainer.max_epochs=2", f"trainer.limit_train_batches={STEPS}", *options.overrides),
    )
    data = loops.load(config)
    num_steps = min(STEPS, len(data.train_dataloader()))

    def milliseconds(context: contextlib.AbstractContextManager[Any]) -> float:
        with loops.scratch() as folder, context:
            return 1000 * loops.train(config, data, folder)["epoch_seconds"][1] / num_steps

    contenders: dict[str, Callable[[], float]] = {"all": lambda: milliseconds(contextlib.nullcontext())}
    for name, without in WITHOUT.items():
        contenders[name] = lambda without=without: milliseconds(without())
    values = measure.rounds(options.rounds, contenders)
    figures = [Figure("MLP, batches of 16: a step with all tricks", values["all"], "ms")]
    for name in WITHOUT:
        saved = [one - other for one, other in zip(values[name], values["all"], strict=True)]
        figures.append(Figure(f"saved by {name}", saved, "ms a step"))
    return figures
