"""What a network looks at: Grad-CAM and occlusion.

Both explain the answer as the classifier gives it: with test-time augmentation, the average over an image
and its mirror image, without crops. They explain the network's own logits and probabilities, before
calibration. They leave no hook on the network and no gradient on its weights, and work within
``torch.inference_mode``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from fer_lightning.core.errors import FERError
from fer_lightning.training.classifier import FERClassifier

Method = Literal["grad-cam", "occlusion"]
METHODS: tuple[Method, ...] = ("grad-cam", "occlusion")
BATCH_PIXELS = 128 * 48 * 48  # of images, real or occluded, in one pass of the network: bounds the memory


def choose_method(
    classifier: FERClassifier, size: int, channels: int, method: Method | None = None
) -> Method:
    """Choose Grad-CAM for a network that ends in convolutions, otherwise occlusion; check a given method.

    Args:
        classifier: Of images of this size.
        size: Side of the images, in pixels.
        channels: Their number, 1 or 3.
        method: One of ``METHODS``, or None.

    Raises:
        FERError: If the method does not exist, or the network has no convolutions for ``grad-cam``.
    """
    _check_method(method or "occlusion")
    if method == "occlusion":
        return method
    blank = torch.zeros(1, channels, size, size, device=classifier.device)
    try:
        with _explaining(classifier):
            _last_maps(classifier.predicting_network, blank)
    except FERError:
        if method is not None:
            raise
        return "occlusion"
    return "grad-cam"


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise FERError(f"method={method}: expected one of {', '.join(METHODS)}")


def as_batch(faces: NDArray[np.uint8]) -> Tensor:
    """Turn ``(N, S, S)`` or ``(N, S, S, 3)`` uint8 faces into ``(N, C, S, S)``."""
    pixels = torch.from_numpy(faces)
    return pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def explain(classifier: FERClassifier, faces: Tensor, targets: Tensor, method: Method) -> NDArray[np.float32]:
    """Compute heat maps for display, each with a maximum of 1 or all 0.

    Args:
        classifier: The network.
        faces: ``(N, C, S, S)`` pixels in [0, 255], uint8 or float.
        targets: ``(N,)`` int64 classes whose evidence is shown.
        method: One of ``METHODS``.

    Returns:
        ``(N, S, S)`` float32 in [0, 1]. Occlusion shows only where the probability drops.

    Raises:
        FERError: If the method does not exist, or the network has no convolutions for ``grad-cam``.
    """
    _check_method(method)
    if method == "grad-cam":
        return grad_cam(classifier, faces, targets)
    return _scale(torch.from_numpy(occlusion(classifier, faces, targets)).clamp_min(0)).numpy()


def grad_cam(classifier: FERClassifier, faces: Tensor, targets: Tensor) -> NDArray[np.float32]:
    """Compute Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the last convolution.

    The maps are those of the last convolution that has more than one position, after what follows it without
    a change of shape: normalisation, the residual sum, the activation. Each is weighted by the mean gradient
    of the class's logit; the rectified sum is enlarged bilinearly.

    Args:
        classifier: The network; one that ends in convolutions.
        faces: ``(N, C, S, S)`` pixels in [0, 255], uint8 or float.
        targets: ``(N,)`` int64 classes.

    Returns:
        ``(N, S, S)`` float32 in [0, 1]; the maximum of each is 1, or all of it is 0.

    Raises:
        FERError: If the network has no convolutions, or continues on tokens as a transformer does.
    """
    network, found = classifier.predicting_network, [torch.empty(0, *faces.shape[-2:])]
    with _explaining(classifier):
        for rows in _batches(len(faces), faces):
            images = _normalised(classifier, faces[rows])
            chosen = targets[rows].to(images.device).clone()  # it may be an inference tensor
            maps = _class_activation(network, images, chosen)
            if classifier.tta != "none":
                maps = (maps + _class_activation(network, images.flip(-1), chosen).flip(-1)) / 2
            size = images.shape[-2:]
            enlarged = F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False)
            found.append(_scale(enlarged.squeeze(1)).cpu())
    return torch.cat(found).numpy()


def occlusion(
    classifier: FERClassifier,
    faces: Tensor,
    targets: Tensor,
    window: int | None = None,
    stride: int | None = None,
) -> NDArray[np.float32]:
    """Measure how much the probability drops while a window is hidden (Zeiler and Fergus 2014).

    The window has the mean pixel of the training images and moves over the image, up to its edges. A pixel
    gets the mean drop over the windows that cover it. Works for every network.

    Args:
        classifier: The network.
        faces: ``(N, C, S, S)`` pixels in [0, 255], uint8 or float.
        targets: ``(N,)`` int64 classes.
        window: Side of the window, in pixels; by default a quarter of the image's.
        stride: Pixels between two windows, at most ``window``; by default a third of it.

    Returns:
        ``(N, S, S)`` float32 in [-1, 1]: positive where hiding lowers the probability.

    Raises:
        FERError: If ``window`` or ``stride`` is out of range.
    """
    size = faces.shape[-1]
    window = max(1, size // 4) if window is None else window
    stride = max(1, window // 3) if stride is None else stride
    if not 1 <= window <= size:
        raise FERError(f"window={window}: expected 1 to {size} pixels, the side of the images")
    if not 1 <= stride <= window:
        raise FERError(f"stride={stride}: expected 1 to {window} pixels, the side of the window")
    with _explaining(classifier), torch.no_grad():
        hidden = _windows(size, window, stride).to(classifier.device)
        drops = torch.empty(len(faces), len(hidden))
        images, targets = _normalised(classifier, faces), targets.to(classifier.device)
        whole = torch.empty(len(faces), device=images.device)
        for rows in _batches(len(faces), faces):
            whole[rows] = _probabilities(classifier, images[rows], targets[rows])
        for pairs in _batches(drops.numel(), faces):
            numbers = torch.arange(drops.numel(), device=images.device)[pairs]
            face, place = numbers // len(hidden), numbers % len(hidden)
            occluded = images[face].masked_fill(hidden[place].unsqueeze(1), 0.0)  # 0 is the mean pixel
            drop = whole[face] - _probabilities(classifier, occluded, targets[face])
            drops.view(-1)[pairs] = drop.cpu()
        weights = hidden.cpu().flatten(1).float()
        return (drops @ weights / weights.sum(dim=0)).view(len(faces), size, size).numpy()


def _windows(size: int, window: int, stride: int) -> Tensor:
    """Return ``(W, S, S)`` bool masks; the last window of a row or column is cut off at the edge."""
    starts = torch.arange(0, size - window + stride, stride)
    inside = (torch.arange(size) >= starts[:, None]) & (torch.arange(size) < starts[:, None] + window)
    return (inside[:, None, :, None] & inside[None, :, None, :]).view(-1, size, size)


def _batches(count: int, faces: Tensor) -> Iterator[slice]:
    """Divide ``count`` images of the size of ``faces`` into batches."""
    at_once = max(1, BATCH_PIXELS // (faces.shape[-2] * faces.shape[-1]))
    return (slice(first, first + at_once) for first in range(0, count, at_once))


def _normalised(classifier: FERClassifier, faces: Tensor) -> Tensor:
    with torch.no_grad():
        return classifier.normalise(faces.to(classifier.device))


def _probabilities(classifier: FERClassifier, images: Tensor, targets: Tensor) -> Tensor:
    """Return the ``(N,)`` probabilities of the targets for normalised images."""
    network = classifier.predicting_network
    logits = network(images)
    if classifier.tta != "none":
        logits = (logits + network(images.flip(-1))) / 2
    probs: Tensor = logits.float().softmax(dim=1).gather(1, targets[:, None]).squeeze(1)
    return probs


def _class_activation(network: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return the ``(N, h, w)`` rectified sums of the last maps, weighted by their gradients."""
    logits, maps = _last_maps(network, images)
    score = logits.gather(1, targets[:, None]).sum()  # of images that do not depend on each other
    (gradient,) = torch.autograd.grad(score, maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * maps.detach()).sum(dim=1).relu().float()


def _last_maps(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run a network; return its logits, and the ``(N, K, h, w)`` maps of its last convolution.

    Raises:
        FERError: If there is none, or tokens follow it.
    """
    maps: Tensor | None = None
    tokens = False

    def look(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal maps, tokens
        if not isinstance(output, Tensor):
            return
        if output.ndim == 3 and maps is not None:
            tokens = True
        is_map = output.ndim == 4 and output.shape[2] * output.shape[3] > 1
        if is_map and isinstance(module, nn.Conv2d):
            maps, tokens = output, False
        elif is_map and maps is not None and output.shape == maps.shape:
            maps = output

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    try:
        logits: Tensor = network(images.clone().requires_grad_())  # its weights may have no gradients
    finally:
        for hook in hooks:
            hook.remove()
    if maps is None or tokens:
        lacks = "no convolutions" if maps is None else "no convolutions at its end"
        raise FERError(f"grad-cam: the network {type(network).__name__} has {lacks}; use occlusion")
    return logits, maps


@contextmanager
def _explaining(classifier: FERClassifier) -> Iterator[None]:
    """Evaluate with gradients whatever the caller's modes are, and restore the module's mode."""
    network = classifier.predicting_network
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.inference_mode(mode=False), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _scale(maps: Tensor) -> Tensor:
    """Divide each map by its maximum; one without a positive value stays 0."""
    highest = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(highest > 0, maps / highest.clamp_min(torch.finfo(maps.dtype).tiny), 0.0)
