"""Every YAML composes, and every target takes its keys: the constructors are the schema."""

import inspect
import re
from functools import cache

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from fer_lightning.config.instantiate import instantiate, takes_total_steps
from fer_lightning.config.resolve import register_resolvers
from fer_lightning.core.hardware import resolve_hardware
from fer_lightning.data.augment import to_augment
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.training.metrics import check_monitor
from tests.commands import ROOT

CONF = ROOT / "conf"
OPTIONS = sorted(
    f"{path.parent.relative_to(CONF).as_posix()}={path.stem}"
    for path in CONF.glob("*/*.yaml")
    if path.parent.name != "hydra"
)
OF_EVAL = ("predictor=",)
EXPERIMENTS = sorted(path.stem for path in CONF.glob("experiment/*.yaml"))
MODELS = sorted(path.stem for path in CONF.glob("model/*.yaml"))
PAPER_MODELS = ("mlp", "cnn", "rnn", "resnet")

# What the program itself fills in, so that no YAML has to.
FILLED_IN = {
    "fer_lightning.training.classifier.FERClassifier": {"backbone", "classes", "mean", "std"},
}
# What the data module gives its source.
GIVEN_TO_SOURCES = {"root", "classes", "image_size", "channels"}


@pytest.fixture(autouse=True)
def resolvers():
    register_resolvers()


@cache  # half a second each
def composed(name, *overrides):
    """Resolve a command's config as hydra would, the run's folder aside."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(name, overrides=list(overrides))
    config.run_dir = "run"
    return OmegaConf.to_container(config, resolve=True)


def targets(node, path=""):
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for value in node:
            yield from targets(value, path)


def check_target(path, node):
    name = node["_target_"]
    parameters = inspect.signature(get_object(name)).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    given = {key for key in node if key not in ("_target_", "_partial_")}
    assert takes_any or given <= parameters.keys(), (
        f"{path}: {name} has no {sorted(given - parameters.keys())}"
    )
    if node.get("_partial_"):
        return
    needed = {
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }
    missing = needed - given - FILLED_IN.get(name, set())
    assert not missing, f"{path}: {name} needs {sorted(missing)}"


@pytest.mark.parametrize("option", [option for option in OPTIONS if not option.startswith(OF_EVAL)])
def test_every_option_composes_and_its_targets_take_its_keys(option):
    found = list(targets(composed("train", option)))
    assert found
    for path, node in found:
        check_target(path, node)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes_and_its_targets_take_its_keys(experiment):
    for model in PAPER_MODELS if experiment == "paper" else [experiment.rpartition("_")[2]]:
        config = composed(
            "train", f"experiment={experiment}", *([f"model={model}"] * (experiment == "paper"))
        )
        assert config["model"]["_target_"].rpartition(".")[2].lower() == model
        for path, node in targets(config):
            check_target(path, node)
        instantiate(config["model"])


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_its_command_and_result(experiment):
    head = (CONF / f"experiment/{experiment}.yaml").read_text().partition("defaults:")[0]
    assert f"experiment={experiment}" in head
    assert re.search(r"\d\d\.\d\d %.*\(n = \d|not yet measured", head)


def test_there_is_an_improved_experiment_for_every_model_of_the_paper():
    assert {f"improved_{model}" for model in PAPER_MODELS} < set(EXPERIMENTS)


def test_the_command_line_overrides_an_experiment():
    config = composed("train", "experiment=improved_rnn", "model.dropout=0.7", "optimizer=adam")
    assert config["model"]["dropout"] == 0.7
    assert config["model"]["bidirectional"] is True
    assert config["optimizer"]["_target_"] == "torch.optim.Adam"


def test_an_experiment_takes_another_data_set():
    own = ("data=image_folder", "data.root=images", "data.protocol=official")
    config = composed("train", "experiment=improved_resnet", *own)
    assert config["data"]["name"] == "image_folder"
    assert config["data"]["augment"]["rotate"] == 12


@pytest.mark.parametrize(
    "option", [*(option for option in OPTIONS if option.startswith(OF_EVAL)), "data=fer2013"]
)
def test_every_option_of_eval_composes(option):
    for path, node in targets(composed("eval", option, "checkpoint=x")):
        check_target(path, node)


def test_the_groups_are_those_the_documents_name():
    groups = {option.split("=")[0] for option in OPTIONS}
    assert groups >= {"data", "model", "optimizer", "scheduler", "trainer", "logger", "predictor"}
    assert {option for option in OPTIONS if option.startswith("model=")} >= {
        f"model={m}" for m in ("mlp", "cnn", "rnn", "resnet")
    }
    assert {option for option in OPTIONS if option.startswith("data=")} >= {
        f"data={d}" for d in ("auto", "fer2013", "ferplus", "image_folder", "synthetic")
    }
    assert {option for option in OPTIONS if option.startswith("trainer=")} >= {
        f"trainer={t}" for t in ("auto", "cpu", "gpu", "ddp", "smoke")
    }


def test_a_key_that_no_target_takes_would_be_noticed():
    with pytest.raises(AssertionError, match="MLP has no \\['hiden'\\]"):
        check_target("model", composed("train", "model=mlp", "+model.hiden=[3]")["model"])
    with pytest.raises(AssertionError, match="MLP needs \\['num_classes'\\]"):
        check_target("model", composed("train", "model=mlp", "~model.num_classes")["model"])


def test_the_defaults_are_what_the_interface_promises():
    config = composed("train")
    assert config["data"]["name"] == "auto"
    assert config["model"]["_target_"].endswith(".CNN")
    assert config["logger"]["wandb"]["_target_"].endswith(".FailsafeWandbLogger")
    assert (config["trainer"]["precision"], config["trainer"]["max_epochs"]) == ("auto", 30)
    assert (config["monitor"], config["monitor_mode"]) == ("val/acc", "max")
    assert (config["resume"], config["init_from"], config["early_stopping"]) == (None, None, None)
    assert config["optimizer"] == {
        "_target_": "torch.optim.Adam",
        "_partial_": True,
        "lr": 1e-3,
        "weight_decay": 0.0,
        "fused": "auto",
    }
    assert config["data"]["batch_size"] == 64
    assert composed("eval", "checkpoint=x")["split"] == "test"


def test_the_default_monitor_is_logged():
    config = composed("train")
    check_monitor(config["monitor"], config["monitor_mode"])


def data_options():
    return {option: composed("train", option)["data"] for option in OPTIONS if option.startswith("data=")}


def test_every_data_set_has_the_same_keys():
    options = data_options()
    assert len({frozenset(node) for node in options.values()}) == 1
    assert len({frozenset(node["augment"]) for node in options.values()}) == 1


def test_data_synthetic_lists_the_defaults_of_its_source():
    source = data_options()["data=synthetic"]["source"]
    parameters = inspect.signature(get_object(source["_target_"])).parameters
    listed = {key: value for key, value in source.items() if not key.startswith("_")}
    assert listed == {key: parameters[key].default for key in parameters.keys() - GIVEN_TO_SOURCES}


def test_the_data_module_has_the_defaults_of_its_config():
    node = composed("train", "data=fer2013")["data"]
    parameters = inspect.signature(FERDataModule).parameters
    assert parameters.keys() - node.keys() == {"predict_split"}
    defaults = {key: parameters[key].default for key in node.keys() - {"_target_"}}
    assert defaults.pop("source") is get_object(node["source"]["_target_"])
    assert to_augment(defaults.pop("augment")) == to_augment(node["augment"] | {"sides": ()})
    assert node["augment"]["sides"] == []
    assert len(defaults["classes"]) == node["num_classes"]
    assert defaults.pop("num_classes") is None
    lists = {key: list(defaults.pop(key)) for key in ("classes", "batch_transforms")}
    assert lists == {key: node[key] for key in lists}
    assert defaults == {key: node[key] for key in defaults}


def test_every_data_config_lists_num_classes_classes():
    for option, node in data_options().items():
        assert node["num_classes"] == len(node["classes"]), option
        assert len(set(node["classes"])) == len(node["classes"]) >= 2, option
        assert not any(value for key, value in node["augment"].items() if key != "_target_"), option


def test_every_model_takes_its_classes_and_image_size_from_the_data():
    for path in CONF.glob("model/*.yaml"):
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        assert node["num_classes"] == "${data.num_classes}", path.name
        assert node["image_size"] == "${data.image_size}", path.name
        assert node["in_channels"] == "${data.channels}", path.name
    changes = ("data.num_classes=3", "data.image_size=64", "data.channels=3")
    model = composed("train", "data=image_folder", *changes)["model"]
    assert (model["num_classes"], model["image_size"], model["in_channels"]) == (3, 64, 3)


def test_a_fact_stated_once_reaches_every_group_that_uses_it():
    config = composed("train", "scheduler=cosine", "trainer.max_epochs=9", "seed=5")
    assert config["scheduler"]["T_max"] == 9
    assert config["data"]["seed"] == 5
    assert composed("train", "scheduler=onecycle", "optimizer.lr=0.3")["scheduler"]["max_lr"] == 0.3


@pytest.mark.parametrize(
    "option", [option for option in OPTIONS if option.startswith(("optimizer=", "scheduler="))]
)
def test_every_optimiser_and_schedule_can_be_built_from_its_node(option):
    config = resolve_hardware(composed("train", option, "trainer=cpu"))
    optimizer = instantiate(config["optimizer"])([torch.nn.Parameter(torch.ones(1))])
    assert isinstance(optimizer, torch.optim.Optimizer)
    schedule = instantiate(config["scheduler"])
    if schedule is not None:
        total = {"total_steps": 10} if takes_total_steps(config["scheduler"]) else {}
        assert isinstance(schedule(optimizer, **total), torch.optim.lr_scheduler.LRScheduler)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.startswith("trainer=")])
def test_every_trainer_saves_validates_and_reports_as_always(option):
    trainer = composed("train", option)["trainer"]
    assert "fast_dev_run" not in trainer
    assert trainer["precision"] == "auto"
    assert trainer["limit_val_batches"] > 0
    assert trainer["use_distributed_sampler"] is False  # the data module divides the faces itself


def test_an_experiment_s_top_level_keys_win(tmp_path):
    # `_self_` last in train.yaml would discard them silently.
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /model: mlp\n"
        "monitor: val/loss\nseed: 7\ndata:\n  batch_size: 3\n"
    )
    config = composed("train", "experiment=mine", f"hydra.searchpath=[file://{tmp_path}]")
    assert (config["monitor"], config["seed"], config["data"]["batch_size"]) == ("val/loss", 7, 3)
    assert config["model"]["_target_"].endswith(".MLP")


@pytest.mark.parametrize("command", ["train", "eval"])
def test_help_names_the_groups_and_existing_keys_and_options(command):
    text = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "help" / f"{command}.yaml"), resolve=False)[
        "template"
    ]
    listed = set(re.search(r"\$\{groups:([\w,]+)\}", text)[1].split(","))
    folders = {folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"hydra"}
    assert listed == (folders - {"predictor"} if command == "train" else {"data", "predictor"})
    examples = re.findall(rf"^ +python {command}\.py (.*?)(?:   .*|  [a-z].*)?$", text, flags=re.M)
    assert len(examples) >= 6
    defaults = composed("train") if command == "train" else composed("eval", "predictor=llm")
    for override in " ".join(examples).replace("'", "").replace("-m ", "").split():
        key, value = override.split("=")
        if (CONF / key).is_dir():
            for option in value.split(","):
                assert (CONF / key / f"{option}.yaml").is_file(), override
        else:
            *parents, last = key.split(".")
            node = defaults
            for parent in parents:
                node = node[parent]
            assert last in node, override
