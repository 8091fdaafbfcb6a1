"""The base class of this package's callbacks."""

from lightning.pytorch.callbacks import Checkpoint

from fer_lightning.training.overhead import STEP_HOOKS, without_hooks


@without_hooks(*STEP_HOOKS)
class EpochCallback(Checkpoint):
    """A callback that follows epochs; within a step only ``on_train_batch_end`` is called.

    It derives from Lightning's ``Checkpoint`` because Lightning calls the callbacks of that family last,
    after the module has logged the metrics of the epoch.
    """
