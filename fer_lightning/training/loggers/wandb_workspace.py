"""A saved W&B workspace: the panels by which runs of this project are compared."""

from typing import Any

from fer_lightning.core.errors import FERError

COLUMNS = (
    "summary:test/acc",
    "summary:test/leak_free_acc",
    "summary:test/f1_macro",
    "summary:val/acc",
    "config:model",
    "config:seed",
    "config:optimizer.lr",
    "config:num_parameters",
    "config:git.commit",
)
_SWEPT = ("model", "optimizer", "optimizer.lr", "data.batch_size", "seed")


def make_workspace(entity: str, project: str, name: str) -> Any:
    """Describe a workspace with sections for results, curves, errors and speed; nothing is sent.

    Args:
        entity: W&B user or team.
        project: W&B project.
        name: Of the saved view.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``; its ``save`` sends it.

    Raises:
        FERError: If the package is not installed.
    """
    try:
        import wandb_workspaces.reports.v2 as panels
        import wandb_workspaces.workspaces as workspaces
    except ImportError as error:
        raise FERError(
            'the package wandb-workspaces is missing: pip install "fer_lightning[wandb]"'
        ) from error

    sections = [
        workspaces.Section(name=title, panels=content, is_open=title != "Speed")
        for title, content in _sections(panels).items()
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=name,
        sections=sections,
        runset_settings=workspaces.RunsetSettings(pinned_columns=list(COLUMNS)),
    )


def _sections(panels: Any) -> dict[str, list[Any]]:
    """Return the panels of each section, made with the module ``wandb_workspaces.reports.v2``."""

    def line(title: str, *keys: str, x: str = "epoch") -> Any:
        return panels.LinePlot(title=title, x=x, y=list(keys))

    def bar(title: str, key: str) -> Any:
        return panels.BarPlot(title=title, metrics=[panels.SummaryMetric(key)])

    columns = [panels.ParallelCoordinatesPlotColumn(panels.Config(key)) for key in _SWEPT]
    columns.append(panels.ParallelCoordinatesPlotColumn(panels.SummaryMetric("test/acc")))
    return {
        "Results": [
            bar("test accuracy", "test/acc"),
            bar("leak-free test accuracy", "test/leak_free_acc"),
            bar("test macro F1", "test/f1_macro"),
            panels.ParallelCoordinatesPlot(title="settings and test accuracy", columns=columns),
            panels.ScatterPlot(
                title="size and accuracy",
                x=panels.SummaryMetric("num_parameters"),
                y=panels.SummaryMetric("test/acc"),
                log_x=True,
            ),
        ],
        "Curves": [
            line("accuracy", "train/acc", "val/acc"),
            line("loss", "train/loss", "val/loss"),
            line("macro F1", "train/f1_macro", "val/f1_macro"),
            line("loss of single steps", "train/loss_step", x="trainer/global_step"),
            line("learning rate", "lr"),
        ],
        "Errors": [
            panels.MediaBrowser(
                title="confusion matrix", media_keys=["test/confusion_matrix_figure"], num_columns=2
            ),
            panels.MediaBrowser(title="most confident errors", media_keys=["test/mistakes"], num_columns=8),
        ],
        "Speed": [line("images per second", "images_per_s"), bar("mean images per second", "images_per_s")],
    }
