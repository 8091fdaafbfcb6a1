"""The layers of a network: shapes, parameters and multiply-adds, found by a forward pass of one image."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_TIMES = "\N{MULTIPLICATION SIGN}"
# Layers with weights whose multiply-adds are negligible: one per element, and so not counted.
_ELEMENTWISE = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.PReLU,
)


@dataclass(frozen=True)
class Layer:
    """One layer, with the normalisation, activation and dropout that follow it and keep its shape.

    Attributes:
        name: The module's name in the network, such as ``body.layer1.0.conv1``.
        kind: A description, such as ``linear``, or a convolution with its sides and stride.
        followed_by: Descriptions of what follows it, such as ``("batch norm", "ReLU")``.
        output_shape: Shape of the output for one image, without the batch dimension.
        num_parameters: Parameters of the layer and of what follows it; shared weights count once.
        multiply_adds: Multiply-adds for one image.
        counted: False for a layer with weights whose multiply-adds are unknown; they are then 0.
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
    """List the layers of a network in the order of the forward pass.

    Args:
        network: Any module; only what its submodules compute is seen, not functions called in ``forward``.
        image_shape: ``(C, H, W)`` of one image.

    Returns:
        The layers; a last row holds the parameters of modules that the forward pass did not use.
    """
    was_training = network.training
    with FlopCounterMode(display=False) as flops:
        recorder = _LayerRecorder(flops)
        handles = [
            handle
            for name, module in network.named_modules()
            if not any(module.children()) or any(True for _ in module.parameters(recurse=False))
            for handle in recorder.register(name, module)
        ]
        try:
            network.eval()(torch.zeros(1, *image_shape))  # batch norm cannot train on one image
        finally:
            network.train(was_training)
            for handle in handles:
                handle.remove()
    layers = recorder.layers
    rest = sum(weight.numel() for weight in network.parameters() if id(weight) not in recorder.seen)
    return [*layers, Layer("elsewhere", "not used by the forward pass", (), (), rest, 0)] if rest else layers


class _LayerRecorder:
    """Forward hooks that append one ``Layer`` per call of a module."""

    def __init__(self, flops: FlopCounterMode) -> None:
        self.layers: list[Layer] = []
        self.seen: set[int] = set()  # ids of the parameters that have been counted
        self._flops = flops
        self._attributed = 0  # FLOPs that belong to a layer already
        self._starts: list[tuple[int, int]] = []  # total and attributed FLOPs when each running module began

    def register(self, name: str, module: nn.Module) -> Sequence[Any]:
        """Register the hooks of one module; return their handles."""
        return (
            module.register_forward_pre_hook(lambda *_: self._begin()),
            module.register_forward_hook(lambda m, inputs, output: self._end(name, m, inputs, output)),
        )

    def _begin(self) -> None:
        self._starts.append((self._flops.get_total_flops(), self._attributed))

    def _end(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        result = output if isinstance(output, Tensor) else output[0]  # recurrent layers also return a state
        total, attributed = self._starts.pop()
        flops = self._flops.get_total_flops() - total - (self._attributed - attributed)  # not of submodules
        self._attributed += flops
        multiply_adds = flops // 2
        if isinstance(module, nn.RNNBase):
            multiply_adds = _recurrent_multiply_adds(module, result)

        own = [weight for weight in module.parameters(recurse=False) if id(weight) not in self.seen]
        self.seen.update(map(id, own))
        num_parameters = sum(weight.numel() for weight in own)
        counted = bool(multiply_adds) or not own or isinstance(module, _ELEMENTWISE)
        if not multiply_adds and counted and result.shape == inputs[0].shape:
            if self.layers:  # a leading one, such as an identity, is no layer
                self.layers[-1] = _append_follower(self.layers[-1], module, num_parameters)
            return
        shape = tuple(result.squeeze(_batch_dim(module)).shape)
        self.layers.append(Layer(name, describe(module), (), shape, num_parameters, multiply_adds, counted))


def condense(layers: Iterable[Layer]) -> list[tuple[int, Layer]]:
    """Merge equal neighbours: for each group its size, and its first layer with the sums of all.

    What follows them may differ; it is all that follows any of them.
    """
    condensed = []
    for _, group in groupby(layers, key=lambda layer: replace(layer, name="", followed_by=())):
        equal = list(group)
        parameters = sum(layer.num_parameters for layer in equal)
        multiply_adds = sum(layer.multiply_adds for layer in equal)
        followers = tuple(dict.fromkeys(kind for layer in equal for kind in layer.followed_by))
        first = replace(
            equal[0], followed_by=followers, num_parameters=parameters, multiply_adds=multiply_adds
        )
        condensed.append((len(equal), first))
    return condensed


def describe(module: nn.Module) -> str:
    """Describe a layer in a few words."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{_sides(module.kernel_size)} convolution{_stride(module.stride)}{groups}"
    if isinstance(module, nn.RNNBase):
        stacked = f", {module.num_layers} layers" if module.num_layers > 1 else ""
        return f"{module.mode.split('_')[0]}{stacked}{', bidirectional' if module.bidirectional else ''}"
    if isinstance(module, nn.MaxPool2d):
        return f"{_sides(module.kernel_size)} max-pooling{_stride(module.stride)}"
    if isinstance(module, nn.AdaptiveAvgPool2d):
        is_global = module.output_size in (1, (1, 1))
        return "global average-pooling" if is_global else "average-pooling"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "batch norm"
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return "dropout"
    return {nn.Linear: "linear", nn.Flatten: "flatten"}.get(type(module), type(module).__name__)


def _recurrent_multiply_adds(module: nn.RNNBase, output: Tensor) -> int:
    """Count each weight matrix once per step; FlopCounterMode sees no FLOPs in the CPU's fused LSTM."""
    steps = math.prod(output.shape[:-1])
    return steps * sum(weight.numel() for weight in module.parameters() if weight.ndim == 2)


def _batch_dim(module: nn.Module) -> int:
    return 1 if isinstance(module, nn.RNNBase) and not module.batch_first else 0


def _append_follower(layer: Layer, module: nn.Module, num_parameters: int) -> Layer:
    followers = layer.followed_by
    if not isinstance(module, nn.Identity):
        followers = (*followers, describe(module))
    return replace(layer, followed_by=followers, num_parameters=layer.num_parameters + num_parameters)


def _sides(size: int | Sequence[int]) -> str:
    sides = (size, size) if isinstance(size, int) else size
    return _TIMES.join(map(str, sides))


def _stride(stride: int | Sequence[int]) -> str:
    sides = {stride} if isinstance(stride, int) else set(stride)
    return "" if sides == {1} else f", stride {_TIMES.join(map(str, sorted(sides)))}"
