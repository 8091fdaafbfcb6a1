"""Building a network from its config node."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from fer_lightning.config.instantiate import instantiate
from fer_lightning.core.errors import FERError


def build_backbone(model: Mapping[str, Any], *, trust: Collection[str] = ()) -> nn.Module:
    """Build the network of a config node.

    Args:
        model: Plain.
        trust: What the node may name besides this project's networks, see ``config.targets.check_targets``.

    Raises:
        FERError: If the node is not a network's, or a setting is unknown or out of range.
    """
    if "_target_" not in model:
        raise FERError("model: missing; choose one, such as model=cnn")
    backbone = instantiate(model, name="model", kind="fer_lightning.models.", trust=trust)
    if not isinstance(backbone, nn.Module):
        raise FERError(f"model: {model.get('_target_')}: expected a class that builds a network")
    return backbone
