"""Test-time augmentation: which views are averaged."""

import pytest
import torch
from torchvision.transforms import v2

from fer_lightning.training.views import CROP_SHARE, NUM_VIEWS, TTA_NAMES, average_logits


class Recording(torch.nn.Module):
    """A network that keeps what it is given; its logits are sums of pixels and of their squares."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        self.seen.append(images)
        return torch.stack([images.sum(dim=(1, 2, 3)), (images**2).sum(dim=(1, 2, 3))], dim=1)


@pytest.mark.parametrize("size", [24, 48])
def test_ten_crops_are_those_of_torchvision(size):
    images, network = torch.rand(3, 1, size, size), Recording()
    logits = average_logits(network, images, "ten_crop")
    crops = v2.TenCrop(round(CROP_SHARE * size))(images)
    resize = v2.Resize((size, size), interpolation=v2.InterpolationMode.BILINEAR, antialias=False)
    expected = torch.stack([resize(crop) for crop in crops])
    seen, weights = torch.stack(network.seen), torch.rand_like(images)
    order, expected_order = ((views * weights).flatten(1).sum(dim=1).argsort() for views in (seen, expected))
    torch.testing.assert_close(seen[order], expected[expected_order])
    torch.testing.assert_close(logits, torch.stack([network(view) for view in expected]).mean(dim=0))


def test_faces_of_48_pixels_are_cropped_to_44():
    assert round(CROP_SHARE * 48) == 44


@pytest.mark.parametrize("tta", TTA_NAMES)
def test_the_number_of_views_is_stated(tta):
    network = Recording()
    average_logits(network, torch.rand(2, 3, 12, 12), tta)
    assert len(network.seen) == NUM_VIEWS[tta]
    assert {view.shape for view in network.seen} == {(2, 3, 12, 12)}


def test_no_augmentation_and_mirror_images():
    images, network = torch.rand(2, 1, 4, 4), Recording()
    assert torch.equal(average_logits(network, images, "none"), network(images))
    assert torch.equal(
        average_logits(network, images, "flip"), (network(images) + network(images.flip(-1))) / 2
    )
