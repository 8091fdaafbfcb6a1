import sys
from copy import deepcopy

import pytest
import torch
from omegaconf import OmegaConf

from fer_lightning.config.compare import config_hash, differences, flatten
from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.resolve import register_resolvers, to_plain
from fer_lightning.config.targets import check_targets
from fer_lightning.core.errors import FERError
from fer_lightning.models.mlp import MLP

MLP_NODE = {
    "_target_": "fer_lightning.models.mlp.MLP",
    "num_classes": 7,
    "image_size": 16,
    "hidden": [8],
    "dropout": 0.5,
}
CONFIG = {
    "seed": 0,
    "resume": None,
    "run_dir": "a",
    "num_threads": None,
    "logger": {"_target_": "x", "name": "y"},
    "trainer": {"max_epochs": 30, "deterministic": False},
    "classes": ["sad", "happy"],
}


def changed(key, value):
    config = deepcopy(CONFIG)
    node = config
    *parents, last = key.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value
    return config


# Building objects


def test_a_node_becomes_the_object_it_describes():
    model = instantiate(MLP_NODE)
    assert isinstance(model, MLP)
    assert model.head.out_features == 7


def test_a_partial_waits_for_its_arguments_and_extras_are_added():
    make = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert make([torch.nn.Parameter(torch.ones(1))]).defaults["lr"] == 0.5
    assert (
        instantiate({key: MLP_NODE[key] for key in MLP_NODE if key != "hidden"}, hidden=[3]).head.in_features
        == 3
    )


@pytest.mark.parametrize("node", [None, {}])
def test_an_empty_node_builds_nothing(node):
    assert instantiate(node) is None


def test_settings_that_no_target_reads_are_refused():
    with pytest.raises(
        FERError, match=r"^scheduler\.T_max=3: nothing reads this setting.*option of the group"
    ):
        instantiate({"T_max": 3}, name="scheduler")


@pytest.mark.parametrize(
    "target",
    [
        "torch.load",
        "torch.hub.load",
        "os.system",
        "builtins.eval",
        "builtins.open",
        "subprocess.run",
        "fer_lightningX.models.MLP",  # the prefix ends with a dot
        "lightning.pytorch.cli.instantiate_class",  # itself a way to call anything
        "lightning.pytorch.LightningModule.load_from_checkpoint",  # unpickles whatever it is given
        "lightning.pytorch.core.saving.load_hparams_from_yaml",
        "fer_lightning.config.resolve.instantiate",
        "fer_lightning.core.files.write_atomically",
        # What an allowed module has imported:
        "fer_lightning.config.resolve.hydra_instantiate",
        "fer_lightning.config.resolve.get_object",
        "fer_lightning.data.cache.shutil.rmtree",
        "fer_lightning.data.datamodule.torch.load",
        "fer_lightning.models.mlp.nn.Linear",
        "torch.optim.optimizer.torch.load",
        "torch.optim.sgd.torch.load",
        # What is no class and no function:
        "fer_lightning.models.mlp",
        "fer_lightning.data.labels.EXPRESSIONS",
        "fer_lightning.models.mlp.MLP.__init__.__globals__",
        "fer_lightning.models.mlp.MLP.__init__.__globals__.get",
    ],
)
@pytest.mark.parametrize("shape", ["plain", "partial", "nested", "in a list", "partial of a partial"])
def test_targets_off_the_allow_list_are_refused_at_any_depth(target, shape):
    node = {
        "plain": {"_target_": target},
        "partial": {"_target_": target, "_partial_": True},
        "nested": MLP_NODE | {"hidden": {"deep": {"_target_": target}}},
        "in a list": MLP_NODE | {"hidden": [1, [{"_target_": target}]]},
        "partial of a partial": {
            "_target_": "torch.optim.SGD",
            "_partial_": True,
            "lr": {"_target_": target},
        },
    }[shape]
    with pytest.raises(FERError, match="_target_ .*(not allowed|not a class|does not exist)") as caught:
        instantiate(node)
    assert target in str(caught.value)


def test_nothing_is_run_before_a_target_is_refused(tmp_path):
    marker = tmp_path / "ran"
    with pytest.raises(FERError):
        instantiate(
            {
                "_target_": "lightning.pytorch.cli.instantiate_class",
                "args": str(marker),
                "init": {"class_path": "os.mkdir"},
            }
        )
    assert not marker.exists()


@pytest.mark.parametrize("escape", ["", "\\"])
def test_an_interpolation_cannot_smuggle_a_target_in(tmp_path, escape):
    # omegaconf's oc.create makes a node of a text, which hydra would then build
    marker = tmp_path / "ran"
    text = f"{{_target_: pathlib.Path.mkdir, self: {marker}}}"
    node = MLP_NODE | {"hidden": f"{escape}${{oc.create:'{text}'}}"}
    with pytest.raises(FERError, match="interpolation"):
        instantiate(node)
    assert not marker.exists()


def test_an_interpolation_cannot_read_the_environment(monkeypatch):
    monkeypatch.setenv("SECRET", "8")
    with pytest.raises(FERError, match="interpolation"):
        instantiate(MLP_NODE | {"num_classes": "${oc.decode:${oc.env:SECRET}}"})


def test_refusing_imports_nothing_that_was_not_allowed():
    assert "this" not in sys.modules
    with pytest.raises(FERError):
        instantiate({"_target_": "this.s"})
    assert "this" not in sys.modules


def test_a_misspelt_key_is_named_in_one_sentence():
    with pytest.raises(FERError, match=r"config\.droput=0\.1: MLP has no such setting") as caught:
        instantiate(MLP_NODE | {"droput": 0.1})
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named():
    with pytest.raises(FERError, match="'num_classes'"):
        instantiate({key: value for key, value in MLP_NODE.items() if key != "num_classes"})


def test_a_target_that_does_not_exist_is_named():
    with pytest.raises(FERError, match=r"fer_lightning\.models\.mlp\.MPL does not exist"):
        instantiate({"_target_": "fer_lightning.models.mlp.MPL"})


def test_the_sentence_of_a_constructor_comes_through_unchanged():
    with pytest.raises(FERError, match=r"^model\.num_classes=0: expected") as caught:
        instantiate(MLP_NODE | {"num_classes": 0})
    assert "\n" not in str(caught.value)


# Plain configs


def test_interpolations_are_resolved_to_plain_values():
    plain = to_plain(OmegaConf.create({"a": 1, "b": {"c": "${a}", "d": ["${a}"]}}))
    assert plain == {"a": 1, "b": {"c": 1, "d": [1]}}
    assert type(plain["b"]) is dict
    assert type(plain["b"]["d"]) is list


@pytest.mark.parametrize(("value", "named"), [("${nothing}", "nothing"), ("???", "key")])
def test_unresolvable_config_raises_one_sentence(value, named):
    with pytest.raises(FERError, match=f"^config: .*{named}") as caught:
        to_plain(OmegaConf.create({"key": value}))
    assert "\n" not in str(caught.value)


def test_short_id_is_constant_within_a_config_and_differs_between_configs():
    register_resolvers()
    one, other = (to_plain(OmegaConf.create({"a": "${short_id:}", "b": "x_${short_id:}"})) for _ in range(2))
    assert one["b"] == f"x_{one['a']}"
    assert len(one["a"]) == 6
    assert int(one["a"], 16) >= 0
    assert one["a"] != other["a"]


def test_flattening_joins_keys_by_dots_and_keeps_lists_and_empty_nodes():
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}) == {
        "a.b.c": 1,
        "a.d": [],
        "e": {},
        "f": None,
    }


FREE = [
    ("resume", "auto"),
    ("run_dir", "b"),
    ("num_threads", 1),
    ("logger", None),
    ("logger.name", "z"),
    ("logger.mode", "offline"),
    ("trainer.max_epochs", 60),
]
BINDING = [
    ("seed", 1),
    ("trainer.deterministic", True),
    ("trainer.max_epochs_", 1),
    ("resumed", "x"),
    ("classes", ["happy", "sad"]),
]


@pytest.mark.parametrize(("key", "value"), FREE)
def test_what_a_continuation_may_change_is_no_difference(key, value):
    assert differences(CONFIG, changed(key, value)) == []
    assert config_hash(CONFIG) == config_hash(changed(key, value))


@pytest.mark.parametrize(("key", "value"), BINDING)
def test_everything_else_is_a_difference_and_is_named(key, value):
    other = changed(key, value)
    assert differences(CONFIG, other) == differences(other, CONFIG) == [key]
    assert config_hash(CONFIG) != config_hash(other)


def test_a_key_that_is_null_differs_from_one_that_is_absent():
    assert differences({"a": None}, {}) == ["a"]


def test_the_hash_does_not_depend_on_the_order_of_keys_or_on_the_process():
    assert config_hash({"a": 1, "b": {"c": 2, "d": 3}}) == config_hash({"b": {"d": 3, "c": 2}, "a": 1})
    assert config_hash({"a": 1}) == "f9d86028c6e0d64e"


def test_batch_transforms_of_a_stored_data_node_are_allowed_and_nowhere_else():
    mixup = {"_target_": "torchvision.transforms.v2.MixUp", "num_classes": 7}
    data = {"_target_": "fer_lightning.data.datamodule.FERDataModule", "batch_transforms": [mixup]}
    check_targets({"data": data})
    with pytest.raises(FERError, match="MixUp is not allowed"):
        check_targets({"model": {**MLP_NODE, "hidden": mixup}})
