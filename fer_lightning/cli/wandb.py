"""The command `wandb workspace`: a saved view of grouped panels in a W&B project."""

import argparse
import os
from collections.abc import Sequence

from fer_lightning.core.errors import FERError, sentences_for_errors
from fer_lightning.core.program import command_line


@sentences_for_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after an error, which is one sentence on stderr."""
    from fer_lightning.training.loggers.wandb_settings import DEFAULT_PROJECT

    parser = argparse.ArgumentParser(prog=command_line("wandb"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    workspace = commands.add_parser(
        "workspace", help="save a view with sections for results, curves, errors and speed"
    )
    workspace.add_argument("--entity", default=os.environ.get("WANDB_ENTITY"), help="W&B user or team")
    workspace.add_argument(
        "--project",
        default=os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT,
        help="W&B project (default: $WANDB_PROJECT, else %(default)s)",
    )
    workspace.add_argument("--name", default="fer_lightning", help="name of the view (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if not arguments.entity:
        workspace.error("--entity is missing: a W&B user or team, or set $WANDB_ENTITY")
    print(save_workspace(arguments.entity, arguments.project, arguments.name))  # noqa: T201
    return 0


def save_workspace(entity: str, project: str, name: str) -> str:
    """Save the view at W&B; return its address.

    Raises:
        FERError: If the package or a key is missing, or W&B refuses.
    """
    import wandb

    from fer_lightning.training.loggers.wandb_session import first_line, has_key
    from fer_lightning.training.loggers.wandb_workspace import make_workspace

    view = make_workspace(entity, project, name)
    server = wandb.setup(settings=wandb.Settings(silent=True)).settings.base_url
    if not has_key(server):
        raise FERError(f"W&B has no key for {server}: run `wandb login`, or set WANDB_API_KEY")
    try:
        return str(view.save().url)
    except Exception as error:
        raise FERError(f"{entity}/{project}: W&B did not save the view: {first_line(error)}") from error
