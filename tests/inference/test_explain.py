import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, Occlusion
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.synthetic.source import SyntheticFaces
from fer_lightning.inference import explain as explaining
from fer_lightning.inference.explain import as_batch, choose_method, explain, grad_cam, occlusion
from fer_lightning.inference.network import load_network
from fer_lightning.models.cnn import CNN
from fer_lightning.models.mlp import MLP
from fer_lightning.models.resnet import ResNet
from fer_lightning.models.rnn import RNN
from fer_lightning.models.timm import TimmModel
from fer_lightning.training.classifier import FERClassifier

SIZE = 32
SHAPE = {"num_classes": 7, "image_size": SIZE}
# Each network with convolutions, and the module whose output is explained.
CONVOLUTIONAL = {
    "cnn": (lambda: CNN(**SHAPE, widths=(4, 8)), lambda network: network.body[1][2]),  # ReLU before pooling
    "resnet15": (lambda: ResNet(**SHAPE, depth=15, stem="small"), lambda network: network.body[-3]),
    "resnet18": (lambda: ResNet(**SHAPE, depth=18, stem="small"), lambda network: network.body.layer4),
    # At 32 pixels its layer4 has a single position.
    "timm": (lambda: TimmModel(name="test_resnet", **SHAPE), lambda network: network.body.layer3),
}
OTHERS = {
    "mlp": lambda: MLP(**SHAPE, hidden=(8,)),
    "rnn": lambda: RNN(**SHAPE, hidden=8),
    "vit": lambda: TimmModel(name="test_vit", **SHAPE),
}


def classifier_of(backbone, **settings):
    for module in backbone.modules():  # as after training: a new batch normalisation changes nothing
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return FERClassifier(backbone=backbone, classes=EXPRESSIONS, mean=0.5, std=0.25, **settings).eval()


def faces_and_targets(n=3, channels=1):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (n, channels, SIZE, SIZE), dtype=np.uint8)
    return torch.from_numpy(pixels), torch.arange(n) % 7


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_grad_cam_equals_captum(name, flip_test):
    build, layer_of = CONVOLUTIONAL[name]
    classifier = classifier_of(build(), flip_test=flip_test)
    faces, targets = faces_and_targets()
    found = grad_cam(classifier, faces, targets)

    images = classifier.normalise(faces)
    reference = LayerGradCam(classifier.backbone, layer_of(classifier.backbone))
    maps = reference.attribute(images, target=targets, relu_attributions=True)
    if flip_test:
        mirrored = reference.attribute(images.flip(-1), target=targets, relu_attributions=True)
        maps = (maps + mirrored.flip(-1)) / 2
    maps = functional.interpolate(maps.detach(), size=SIZE, mode="bilinear").squeeze(1)
    highest = maps.amax(dim=(1, 2), keepdim=True)
    expected = torch.where(highest > 0, maps / highest, maps).numpy()
    assert expected.max() == 1
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "channels", "flip_test", "window", "stride"),
    [
        (lambda: MLP(**SHAPE, hidden=(8,)), 1, False, 8, 4),
        (lambda: RNN(**SHAPE, hidden=8), 1, True, 10, 7),  # the last window is cut off
        (lambda: CNN(**SHAPE, widths=(4, 8), in_channels=3), 3, False, 9, 9),
    ],
)
def test_occlusion_equals_captum(build, channels, flip_test, window, stride):
    classifier = classifier_of(build(), flip_test=flip_test)
    faces, targets = faces_and_targets(2, channels)
    found = occlusion(classifier, faces, targets, window, stride)

    def probabilities(images):
        logits = classifier.backbone(images)
        return ((logits + classifier.backbone(images.flip(-1))) / 2 if flip_test else logits).softmax(dim=1)

    maps = Occlusion(probabilities).attribute(
        classifier.normalise(faces),
        target=targets,
        sliding_window_shapes=(channels, window, window),
        strides=(channels, stride, stride),
        baselines=0,
    )
    assert np.abs(found).max() > 1e-4
    np.testing.assert_allclose(found, maps.detach()[:, 0].numpy(), atol=1e-6)


def test_occlusion_by_default_finds_the_part_that_decides():
    class Corner(nn.Module):
        def forward(self, images):
            return torch.stack([images[:, 0, :8, :8].mean(dim=(1, 2)), images[:, 0, 0, 0] * 0], dim=1)

    classifier = FERClassifier(backbone=Corner(), classes=("bright", "dark"), mean=0.5, std=0.25).eval()
    faces = torch.full((1, 1, 32, 32), 255, dtype=torch.uint8)
    (drop,) = occlusion(classifier, faces, torch.tensor([0]))
    assert drop[0, 0] == pytest.approx(1 / (1 + np.exp(-2)) - 0.5, abs=1e-3)  # the mean pixel has logit 0
    assert drop[:8, :8].min() > 0
    assert drop[15:, 15:].max() == 0


@pytest.mark.parametrize("name", OTHERS)
def test_network_without_convolutions_at_its_end_names_occlusion(name):
    classifier = classifier_of(OTHERS[name]())
    with pytest.raises(FERError, match=r"^grad-cam: the network \w+ has no convolutions.*; use occlusion$"):
        grad_cam(classifier, *faces_and_targets())
    assert choose_method(classifier, SIZE, 1) == "occlusion"
    with pytest.raises(FERError, match="use occlusion"):
        choose_method(classifier, SIZE, 1, "grad-cam")


def test_network_with_convolutions_is_explained_by_grad_cam():
    classifier = classifier_of(CONVOLUTIONAL["cnn"][0]())
    assert choose_method(classifier, SIZE, 1) == "grad-cam"
    assert choose_method(classifier, SIZE, 1, "occlusion") == "occlusion"
    with pytest.raises(FERError, match="method=lime: expected one of grad-cam, occlusion"):
        choose_method(classifier, SIZE, 1, "lime")


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_explaining_leaves_no_trace_and_works_in_inference_mode(method):
    classifier = classifier_of(CNN(**SHAPE, widths=(4, 8), in_channels=3), ema_decay=0.9)
    faces, _ = faces_and_targets(2, 3)
    classifier.train()
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    with torch.inference_mode():
        classifier.normalise(faces)  # keeps tensors of inference mode for the next call
        inside = explain(classifier, faces * 1, torch.tensor([0, 1]), method)
    outside = explain(classifier, faces, torch.tensor([0, 1]), method)
    np.testing.assert_array_equal(inside, outside)
    assert (inside.dtype, inside.shape, inside.min(), inside.max()) == (np.float32, (2, SIZE, SIZE), 0, 1)
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not any(module._forward_hooks for module in classifier.modules())
    assert all(module.training for module in classifier.averaged.modules())
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_memory_is_bounded_by_batches(method, monkeypatch):
    classifier = classifier_of(CNN(**SHAPE, widths=(4, 8)))
    faces, targets = faces_and_targets(5)
    whole = explain(classifier, faces, targets, method)
    sizes = []
    classifier.backbone.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    monkeypatch.setattr(explaining, "BATCH_PIXELS", 2 * SIZE**2)
    np.testing.assert_allclose(explain(classifier, faces, targets, method), whole, atol=1e-5)
    assert max(sizes) == 2


def test_no_faces_give_no_maps():
    classifier = classifier_of(CNN(**SHAPE, widths=(4, 8)))
    faces, targets = faces_and_targets(0)
    assert grad_cam(classifier, faces, targets).shape == (0, SIZE, SIZE)
    assert occlusion(classifier, faces, targets).shape == (0, SIZE, SIZE)


@pytest.mark.parametrize(
    ("window", "stride", "message"),
    [(33, 1, "window=33: expected 1 to 32 pixels"), (4, 5, "stride=5: expected 1 to 4 pixels")],
)
def test_window_out_of_range_is_refused(window, stride, message):
    with pytest.raises(FERError, match=message):
        occlusion(classifier_of(MLP(**SHAPE, hidden=(8,))), *faces_and_targets(), window, stride)


def correlation(maps, others):
    """Mean Spearman correlation of pairs of maps; a map of one value has none and counts as 0."""
    pairs = zip(maps, others, strict=True)
    return np.mean([
        0 if one.min() == one.max() or other.min() == other.max()
        else spearmanr(one.ravel(), other.ravel()).statistic
        for one, other in pairs
    ])  # fmt: skip


@pytest.mark.parametrize("method", ["grad-cam", "occlusion"])
def test_maps_depend_on_the_weights(method):
    """The sanity check of Adebayo et al. 2018 (arXiv:1810.03292), on the network of the package."""
    source = SyntheticFaces(
        classes=EXPRESSIONS, num_train=7, num_val=7, num_test=7, class_balance="uniform", image_size=48
    )
    num_faces = 6 if method == "grad-cam" else 2  # occlusion takes nine times as long here
    pixels = [record.pixels() for record in source.records() if record.split == "test"][:num_faces]
    faces = as_batch(np.stack(pixels))

    def maps_of(classifier):
        if method == "grad-cam":
            return grad_cam(classifier, faces, targets)
        return occlusion(classifier, faces, targets, 16, 16)

    trained = load_network().classifier
    with torch.no_grad():
        targets = trained(faces).argmax(dim=1)
    maps = maps_of(trained)
    random = []
    for seed in range(2):
        classifier = load_network().classifier
        torch.manual_seed(seed)
        for module in classifier.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        random.append(correlation(maps, maps_of(classifier)))
    with torch.no_grad():  # weights of nearly the same network
        for weight in trained.predicting_network.parameters():
            weight.mul_(1 + 0.01 * torch.randn_like(weight))
    assert correlation(maps, maps_of(trained)) > 0.9
    assert np.mean(random) < 0.5
