"""What every export computes: faces of any size in, calibrated probabilities out."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own abbreviation

from fer_lightning.inference.network import Network
from fer_lightning.training.classifier import FERClassifier

LUMA = (19595, 38470, 7471)  # ITU-R 601 in 1/65,536, as Pillow computes it; see data.decode.to_grey_levels


class ProbabilityNetwork(nn.Module):
    """A classifier with everything around it: grey levels, size, normalisation, mirror image, temperature.

    Args:
        network: From ``load_network``; its classifier is copied.

    Attributes:
        core: The part that takes images of the network's own size and channels.
        size: Side of these images, in pixels.
        channels: 1 for grey, 3 for colour.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        model = network.metadata.config["model"]
        self.size, self.channels = int(model["image_size"]), int(model.get("in_channels", 1))
        self.core = Core(network.classifier, network.calibration.temperature)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Classify faces.

        Args:
            images: ``(N, 1, H, W)`` or ``(N, 3, H, W)`` uint8 grey levels or RGB, of any height and width.

        Returns:
            ``(N, num_classes)`` float32 calibrated probabilities.
        """
        if images.shape[1] != self.channels:
            images = to_grey(images) if self.channels == 1 else images.expand(-1, 3, -1, -1)
        # uint8, and so the arithmetic of Pillow but for a grey level here and there. A CPU is needed.
        pixels = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        probs: Tensor = self.core(pixels)
        return probs


class Core(nn.Module):
    """Probabilities of images in the size and the channels of the network.

    Args:
        classifier: It is copied.
        temperature: By which the logits are divided.
    """

    def __init__(self, classifier: FERClassifier, temperature: float) -> None:
        super().__init__()
        self.flip_test, self.temperature = classifier.tta == "flip", temperature
        self.num_classes = len(classifier.classes)
        self.classifier = copy.deepcopy(classifier).to(memory_format=torch.contiguous_format)
        # Both images in one batch: two passes would put a second copy of the weights into a graph.
        self.classifier.tta = "none"
        # Its plain numbers: tracing would take those that are computed in it for unknowns.
        self.classifier._normalisation  # noqa: B018 - the cached property

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(N, C, S, S)`` uint8 pixels to ``(N, num_classes)`` float32 probabilities."""
        if self.flip_test:
            logits = self.classifier(torch.cat([pixels, pixels.flip(-1)])).float()
            logits = logits.reshape(2, -1, self.num_classes).mean(dim=0)
        else:
            logits = self.classifier(pixels).float()
        probs: Tensor = (logits / self.temperature).softmax(dim=1)
        return probs


def to_grey(images: Tensor) -> Tensor:
    """Convert ``(N, 3, H, W)`` uint8 colours to ``(N, 1, H, W)`` uint8 grey levels, as Pillow does."""
    weights = torch.tensor(LUMA, dtype=torch.int32).view(1, 3, 1, 1)
    return (
        ((images.int() * weights).sum(dim=1, keepdim=True) + 0x8000).div(65536, rounding_mode="floor").byte()
    )
