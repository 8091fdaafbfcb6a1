import io
import os
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.models.mlp import MLP
from fer_lightning.training.checkpoint import (
    KEY,
    CheckpointMetadata,
    _reorder_head,
    find_checkpoint,
    init_backbone,
    load_classifier,
    read_checkpoint,
)
from fer_lightning.training.checkpoint_io import AtomicCheckpointIO, save_atomically

FACES = torch.arange(3 * 256, dtype=torch.uint8).reshape(3, 1, 16, 16)


def small_mlp(num_classes=7, hidden=(8,), image_size=16):
    return MLP(num_classes=num_classes, image_size=image_size, hidden=list(hidden), dropout=0.0)


# What a checkpoint remembers


def test_what_a_checkpoint_says_of_itself_survives_its_file(make_checkpoint):
    path, _ = make_checkpoint()
    content, origin = read_checkpoint(path)
    assert origin.classes == EXPRESSIONS
    assert origin.config["seed"] == 3
    assert (origin.selected_by, origin.epoch, origin.score) == ("val/acc", 4, 0.5)
    assert origin.trained_on.dtype == np.uint64
    assert origin.trained_on.tolist() == [
        1,
        2**64 - 1,
    ]  # torch has no uint64 arithmetic: the top bit must live
    assert origin.selected_on.tolist() == [5]
    assert CheckpointMetadata.from_plain(content[KEY]).to_plain().keys() == content[KEY].keys()


def test_a_classifier_is_rebuilt_from_its_checkpoint_alone(make_checkpoint):
    path, module = make_checkpoint(mean=0.45, std=0.22)
    rebuilt, _ = load_classifier(path)
    assert not rebuilt.training
    assert rebuilt.classes == EXPRESSIONS
    assert torch.equal(rebuilt(FACES), module(FACES))


def test_a_network_in_channels_last_is_rebuilt_in_it(make_checkpoint):
    def change(content):
        content[KEY]["channels_last"] = True
        content[KEY]["config"]["model"] = {
            "_target_": "fer_lightning.models.cnn.CNN",
            "num_classes": 7,
            "image_size": 16,
            "widths": [4, 4],
            "hidden": 8,
            "conv_dropout": 0.0,
            "dropout": 0.0,
        }
        from fer_lightning.config.instantiate import instantiate

        backbone = instantiate(content[KEY]["config"]["model"])
        state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        content["state_dict"] = {"mean": torch.tensor(0.0), "std": torch.tensor(1.0)} | state

    rebuilt, _ = load_classifier(make_checkpoint(change=change)[0])
    weights = [
        parameter for parameter in rebuilt.parameters() if parameter.dim() == 4 and parameter.shape[1] > 1
    ]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_pretrained_weights_are_not_fetched_for_a_saved_network(make_checkpoint, monkeypatch):
    built = []

    def remember(node, trust):
        built.append(node)
        return small_mlp()

    monkeypatch.setattr("fer_lightning.training.checkpoint.build_backbone", remember)
    asked = {"pretrained": True, "stem": {"pretrained": True}}
    path, _ = make_checkpoint(change=lambda content: content[KEY]["config"]["model"].update(asked))
    load_classifier(path)
    assert (built[0]["pretrained"], built[0]["stem"]) == (False, {"pretrained": False})


def test_mirror_images_count_in_a_rebuilt_classifier_as_they_did(make_checkpoint):
    def change(content):
        content[KEY]["config"]["classifier"] = {"flip_test": True}

    path, plain = make_checkpoint(change=change)
    rebuilt, _ = load_classifier(path)
    images = torch.arange(256.0).reshape(1, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(rebuilt(images), (plain(images) + plain(images.flip(-1))) / 2)
        assert not torch.allclose(rebuilt(images), plain(images))


@pytest.mark.parametrize("settings", ["text", ["list"], {"flip_test": "yes"}])
def test_settings_that_are_none_are_refused_with_the_file_s_name(make_checkpoint, settings):
    def change(content):
        content[KEY]["config"]["classifier"] = settings

    path, _ = make_checkpoint(change=change)
    with pytest.raises(FERError, match="best.ckpt: .*classifier"):
        load_classifier(path)


def test_a_checkpoint_to_continue_from_predicts_with_its_averaged_weights(make_checkpoint):
    def change(content):
        state = content["state_dict"]
        averaged = {
            name.replace("backbone.", "averaged."): value + 1
            for name, value in state.items()
            if name.startswith("backbone.")
        }
        content["state_dict"] = state | averaged

    path, module = make_checkpoint(change=change)
    rebuilt, _ = load_classifier(path)
    assert torch.equal(rebuilt.backbone.head.bias, module.backbone.head.bias + 1)


# Finding one


def test_a_run_folder_means_its_best_checkpoint(make_checkpoint):
    path, _ = make_checkpoint()
    assert find_checkpoint(str(path)) == find_checkpoint(path.parent) == path


def test_a_path_may_begin_with_a_tilde(make_checkpoint, monkeypatch):
    path, _ = make_checkpoint()
    monkeypatch.setenv("HOME", str(path.parent))
    assert find_checkpoint("~/best.ckpt") == path


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(FERError, match=r"nowhere: no such file"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(FERError, match=r"no best.ckpt in this folder"):
        find_checkpoint(tmp_path)


# What is damaged, foreign or hostile


class Payload:
    """What a pickle of this runs when it is opened: it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "no checkpoint")
    return buffer.getvalue()


def pickled(content, **settings):
    buffer = io.BytesIO()
    torch.save(content, buffer, **settings)
    return buffer.getvalue()


DAMAGED = {
    "zero bytes": lambda good: b"",
    "one byte": lambda good: b"\x80",
    "text": lambda good: b"not a checkpoint\n" * 9,
    "html": lambda good: b"<!doctype html><title>404</title>",
    "first half": lambda good: good[: len(good) // 2],
    "last bytes missing": lambda good: good[:-10],
    "holes": lambda good: good[:300] + bytes(300) + good[600:],
    "zip": lambda good: archive(),
    "a tensor": lambda good: pickled(torch.ones(2)),
    "foreign weights": lambda good: pickled({"state_dict": {"w": torch.ones(2)}, "epoch": 3}),
    "foreign weights of the old format": lambda good: pickled(
        {"w": torch.ones(2)}, _use_new_zipfile_serialization=False
    ),
    "old format cut short": lambda good: pickled({"w": torch.ones(2)}, _use_new_zipfile_serialization=False)[
        :40
    ],
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_file_that_is_no_checkpoint_is_refused_by_name(make_checkpoint, kind):
    path, _ = make_checkpoint()
    path.write_bytes(DAMAGED[kind](path.read_bytes()))
    with pytest.raises(FERError, match="best.ckpt: ") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 100 + len(str(path))


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_checkpoint_cut_anywhere_is_refused(make_checkpoint, cut):
    path, _ = make_checkpoint()
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * cut // 100])
    with pytest.raises(FERError, match="best.ckpt: "):
        load_classifier(path)


def described(**changes):
    return lambda content: content[KEY].update(changes)


def without(*keys):
    def change(content):
        node = content
        for key in keys[:-1]:
            node = node[key]
        del node[keys[-1]]

    return change


def model(**node):
    return lambda content: content[KEY]["config"].update(model=node)


FORGED = {
    "another schema": (described(schema=2), "schema 2, expected 1"),
    "no description": (without(KEY), "not a checkpoint of fer_lightning"),
    "a description that is none": (
        lambda content: content.update({KEY: 1}),
        "not a checkpoint of fer_lightning",
    ),
    "no weights": (without("state_dict"), "not a checkpoint of fer_lightning"),
    "weights that are none": (lambda content: content.update(state_dict=None), "not a checkpoint of"),
    "no epoch": (without(KEY, "epoch"), "description is incomplete"),
    "one key too many": (described(more=1), "description is incomplete"),
    "hashes in a list": (described(trained_on=[1]), "description is incomplete"),
    "hashes of another type": (described(trained_on=torch.ones(3)), "description is incomplete"),
    "no classes": (described(classes=None), "description is incomplete"),
    "no config": (described(config=None), "description is incomplete"),
    "no model": (without(KEY, "config", "model"), "names no model"),
    "an empty model": (model(), "names no model"),
    "a model in words": (lambda content: content[KEY]["config"].update(model="cnn"), "names no model"),
    "a model that is none": (
        model(_target_="fer_lightning.data.augment.Augment"),
        r"best.ckpt: .*Augment is not allowed .*, expected one of fer_lightning.models",
    ),
    "a model off the allow-list": (
        model(_target_="torch.load", f="x"),
        "best.ckpt: .*torch.load is not allowed",
    ),
    "a misspelt model": (
        lambda content: content[KEY]["config"]["model"].update(hiden=[3]),
        "best.ckpt: model.hiden=.*: MLP has no such setting",
    ),
    "a weight missing": (without("state_dict", "mean"), "weights do not fit its config .*mean"),
    "a weight of another shape": (
        lambda content: content["state_dict"].update({"backbone.head.bias": torch.ones(3)}),
        "weights do not fit its config .*head.bias",
    ),
    "a weight that is none": (lambda content: content["state_dict"].update(mean=3), "weights do not fit"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_checkpoint_that_contradicts_itself_is_refused_in_one_sentence(make_checkpoint, kind):
    change, expected = FORGED[kind]
    path, _ = make_checkpoint(change=change)
    with pytest.raises(FERError, match=expected) as caught:
        load_classifier(path)
    assert "best.ckpt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("new_format", [True, False])
def test_a_hostile_checkpoint_is_refused_and_nothing_in_it_runs(make_checkpoint, tmp_path, new_format):
    path, _ = make_checkpoint()
    content = torch.load(path, weights_only=True) | {"callbacks": Payload(tmp_path / "ran")}
    path.write_bytes(pickled(content, _use_new_zipfile_serialization=new_format))
    with pytest.raises(FERError, match="best.ckpt: refused.* more than weights"):
        load_classifier(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "node",
    [
        {
            "_target_": "lightning.pytorch.cli.instantiate_class",
            "init": {"class_path": "os.mkdir"},
            "args": "RAN",
        },
        {"_target_": "fer_lightning.models.mlp.MLP", "hidden": {"_target_": "os.mkdir", "path": "RAN"}},
        {
            "_target_": "fer_lightning.models.mlp.MLP",
            "hidden": "${oc.create:'{_target_: os.mkdir, path: RAN}'}",
        },
    ],
    ids=["another way to call", "nested", "interpolated"],
)
def test_hostile_config_in_a_valid_checkpoint_is_refused_unexecuted(
    make_checkpoint, tmp_path, monkeypatch, node
):
    monkeypatch.chdir(tmp_path)
    path, _ = make_checkpoint(change=lambda content: content[KEY]["config"].update(model=node))
    with pytest.raises(FERError, match="best.ckpt: config: "):
        load_classifier(path)
    assert not (tmp_path / "RAN").exists()


# Saving


def fail_halfway(content, file, *arguments, **settings):
    file.write(b"half of it")
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("save", [save_atomically, AtomicCheckpointIO().save_checkpoint])
def test_a_save_that_fails_leaves_the_former_checkpoint_and_no_debris(tmp_path, monkeypatch, save):
    path = tmp_path / "last.ckpt"
    save({"epoch": 1}, path)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match="No space"):
        save({"epoch": 2}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_first_save_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", fail_halfway)
    with pytest.raises(OSError, match="No space"):
        save_atomically({"epoch": 2}, tmp_path / "last.ckpt")
    assert not list(tmp_path.iterdir())


def test_previous_checkpoint_is_kept_until_the_new_one_is_complete(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save_atomically({"epoch": 1}, path)
    seen, save = [], torch.save

    def look_meanwhile(content, file):
        save(content, file)
        seen.append(torch.load(path, weights_only=True))

    monkeypatch.setattr(torch, "save", look_meanwhile)
    save_atomically({"epoch": 2}, path)
    assert seen == [{"epoch": 1}]
    assert torch.load(path, weights_only=True) == {"epoch": 2}


# Starting from one


def test_the_same_classes_take_over_backbone_and_head(make_checkpoint):
    path, module = make_checkpoint()
    backbone, said = small_mlp(), []
    init_backbone(backbone, path, EXPRESSIONS, said.append)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, module.backbone.state_dict()[name]), name
    assert len(said) == 1
    assert "new head" not in said[0]


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (EXPRESSIONS[::-1], f"; its head for {', '.join(EXPRESSIONS[::-1])} is kept"),
        (EXPRESSIONS[:6], f"; its head for {', '.join(EXPRESSIONS[:6])} is kept"),
        (
            ("bored", "Happiness", "in love", "Anger"),
            "; its head for Happiness, Anger is kept; new head for bored, in love",
        ),
        (("bored", "in love"), "; new head for bored, in love"),
    ],
)  # fmt: skip
def test_other_classes_take_over_the_backbone_and_the_rows_they_share(make_checkpoint, classes, sentence):
    path, module = make_checkpoint()
    backbone, said = small_mlp(num_classes=len(classes)), []
    initial, trained = backbone.head.weight.clone(), module.backbone.head
    init_backbone(backbone, path, classes, said.append)
    assert torch.equal(backbone.body[1].weight, module.backbone.body[1].weight)
    synonyms = {"Happiness": "happy", "Anger": "angry"}
    for row, name in enumerate(synonyms.get(name, name) for name in classes):
        if name in EXPRESSIONS:
            assert torch.equal(backbone.head.weight[row], trained.weight[EXPRESSIONS.index(name)])
            assert backbone.head.bias[row] == trained.bias[EXPRESSIONS.index(name)]
        else:
            assert torch.equal(backbone.head.weight[row], initial[row])
    assert said == [f"started from {path}{sentence}"]


class TwoLayerHead(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Linear(2, 3)
        self.head = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, num_classes))


def test_a_head_of_several_layers_is_not_kept_in_part():
    torch.manual_seed(0)
    before, after = TwoLayerHead(7), TwoLayerHead(6)
    weights = before.state_dict()
    assert _reorder_head(weights, after.state_dict(), EXPRESSIONS, EXPRESSIONS[:6]) == []
    assert set(weights) == {"body.weight", "body.bias"}


@pytest.mark.parametrize("classes", [EXPRESSIONS, ("a", "b", "c")])
@pytest.mark.parametrize(
    "other",
    [{"hidden": (9,)}, {"hidden": (8, 8)}, {"image_size": 20}],
    ids=["wider", "deeper", "larger faces"],
)
def test_another_architecture_is_refused_in_one_sentence(make_checkpoint, classes, other):
    path, _ = make_checkpoint()
    with pytest.raises(FERError, match="^init_from=.*another architecture than model= names") as caught:
        init_backbone(small_mlp(num_classes=len(classes), **other), path, classes, print)
    assert "\n" not in str(caught.value)
