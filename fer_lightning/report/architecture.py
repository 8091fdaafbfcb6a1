"""A network's layers, found by sending one image through it: shapes, parameters, multiply-adds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

_NORMS = (
    *(nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm),
    *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
)
# Layers with weights whose multiply-adds are known: by a rule, or small.
_COUNTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.RNNBase, nn.PReLU, *_NORMS)


@dataclass(frozen=True)
class Layer:
    """One layer, with the normalisation, activation and dropout that follow it and keep its shape.

    Attributes:
        name: Its place in the network, such as ``body.layer1.0.conv1``.
        kind: What it is, such as ``3x3 convolution, stride 2``.
        followed_by: What follows it, such as ``("batch norm", "ReLU")``.
        output_shape: Of one image, without the batch.
        num_parameters: Of the layer and what follows it; weights met a second time count once.
        multiply_adds: Of convolutions, linear and recurrent layers, for one image; the rest is small.
        counted: Whether there is a rule for its multiply-adds; without one a layer with weights has 0.
    """

    name: str
    kind: str
    followed_by: tuple[str, ...]
    output_shape: tuple[int, ...]
    num_parameters: int
    multiply_adds: int
    counted: bool = True


@torch.no_grad()
def layers_of(network: nn.Module, image_shape: Sequence[int]) -> list[Layer]:
    """List a network's layers in the order in which an image meets them.

    Args:
        network: Its modules are watched, so that what its ``forward`` does with functions alone is not seen.
        image_shape: ``(C, S, S)`` of one image.

    Returns:
        The layers; parameters of modules that the image did not meet stand in a last row.
    """
    layers: list[Layer] = []
    met: set[int] = set()

    def watch(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        result = (
            output if isinstance(output, Tensor) else output[0]
        )  # a recurrent layer also returns its state
        own = [weight for weight in module.parameters(recurse=False) if id(weight) not in met]
        met.update(map(id, own))
        num_parameters = sum(weight.numel() for weight in own)
        multiply_adds = _multiply_adds(module, result)
        counted = not own or isinstance(module, _COUNTED)
        if not multiply_adds and counted and result.shape == inputs[0].shape:
            if layers:  # a leading one, such as an identity, is no layer
                layers[-1] = _with(layers[-1], module, num_parameters)
            return
        shape = tuple(result.squeeze(_batch_dim(module)).shape)
        layers.append(Layer(name, describe(module), (), shape, num_parameters, multiply_adds, counted))

    watched = [
        (name, module)
        for name, module in network.named_modules()
        if not any(module.children()) or any(True for _ in module.parameters(recurse=False))
    ]
    hooks = [
        module.register_forward_hook(lambda m, inputs, output, name=name: watch(name, m, inputs, output))
        for name, module in watched
    ]
    was_training = network.training
    try:
        network.eval()(torch.zeros(1, *image_shape))  # batch normalisation cannot train on one image
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    rest = sum(weight.numel() for weight in network.parameters() if id(weight) not in met)
    return [*layers, Layer("elsewhere", "not met by an image", (), (), rest, 0)] if rest else layers


def condense(layers: Iterable[Layer]) -> list[tuple[int, Layer]]:
    """Put equal neighbours together: how many there are, and the first of them with the sums of all."""
    condensed = []
    for _, group in groupby(layers, key=lambda layer: replace(layer, name="", followed_by=())):
        alike = list(group)
        parameters = sum(layer.num_parameters for layer in alike)
        multiply_adds = sum(layer.multiply_adds for layer in alike)
        first = replace(alike[0], num_parameters=parameters, multiply_adds=multiply_adds)
        condensed.append((len(alike), first))
    return condensed


def describe(module: nn.Module) -> str:
    """Name a layer as people do."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{_sides(module.kernel_size)} convolution{_stride(module.stride)}{groups}"
    if isinstance(module, nn.RNNBase):
        stacked = f", {module.num_layers} layers" if module.num_layers > 1 else ""
        return f"{module.mode.split('_')[0]}{stacked}{', both ways' if module.bidirectional else ''}"
    if isinstance(module, nn.MaxPool2d):
        return f"{_sides(module.kernel_size)} max-pooling{_stride(module.stride)}"
    if isinstance(module, nn.AdaptiveAvgPool2d):
        return "average of the picture" if module.output_size in (1, (1, 1)) else "average-pooling"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch norm"
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "dropout"
    return {nn.Linear: "linear", nn.Flatten: "flatten"}.get(type(module), type(module).__name__)


def _batch_dim(module: nn.Module) -> int:
    """Return the dimension of a layer's output that counts images."""
    return 1 if isinstance(module, nn.RNNBase) and not module.batch_first else 0


def _with(layer: Layer, module: nn.Module, num_parameters: int) -> Layer:
    followers = layer.followed_by
    if not isinstance(module, nn.Identity):
        followers = (*followers, describe(module))
    return replace(layer, followed_by=followers, num_parameters=layer.num_parameters + num_parameters)


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    """Count them for a batch of one: every weight is used once a place, or once a step."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return module.weight.numel() * math.prod(output.shape[2:])
    if isinstance(module, nn.Linear):
        return module.weight.numel() * math.prod(output.shape[:-1])
    if isinstance(module, nn.RNNBase):
        steps = math.prod(output.shape[:-1])
        return steps * sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)
    return 0


def _sides(size: int | Sequence[int]) -> str:
    sides = (size, size) if isinstance(size, int) else size
    return "x".join(map(str, sides))


def _stride(stride: int | Sequence[int]) -> str:
    sides = {stride} if isinstance(stride, int) else set(stride)
    return "" if sides == {1} else f", stride {'x'.join(map(str, sorted(sides)))}"
