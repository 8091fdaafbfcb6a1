"""Overrides in Hydra's grammar as the space of a search."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna import create_study
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler

from fer_lightning.core.errors import FERError
from fer_lightning.search.pruning import TrialPruning
from fer_lightning.search.space import read_space
from fer_lightning.training.build import build
from tests.commands import ROOT


def space_of(*overrides):
    return read_space(OverridesParser.create().parse_overrides([*overrides]))


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("a=1,2", CategoricalDistribution((1, 2))),
        ("a=choice(x,y)", CategoricalDistribution(("x", "y"))),
        ("a=null,true,1.5", CategoricalDistribution((None, True, 1.5))),
        ("a=[1,2],[3]", CategoricalDistribution(("[1,2]", "[3]"))),
        ("a={x:1},{x:2}", CategoricalDistribution(("{x:1}", "{x:2}"))),
        ("a=1,true", CategoricalDistribution(("1", "True"))),
        ("a=shuffle(1,2,3)", CategoricalDistribution((1, 2, 3))),
        ("a=interval(0.1,5)", FloatDistribution(0.1, 5.0)),
        ("a=interval(1,5)", FloatDistribution(1.0, 5.0)),  # Hydra makes floats of its ends
        ("a=int(interval(1,5))", IntDistribution(1, 5)),
        ("a=tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("a=range(1,5)", IntDistribution(1, 4)),  # what a plain sweep would run
        ("a=range(1,6,2)", IntDistribution(1, 5, step=2)),
        ("a=range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("a=shuffle(range(1,4))", IntDistribution(1, 3)),
        ("a=range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
    ],
)
def test_every_sweep_of_hydra_is_a_distribution(override, distribution):
    space = space_of("b=3", override)
    assert space.fixed == {"b": "3"}
    assert space.searched["a"].distribution == distribution


def test_later_overrides_win():
    assert space_of("a=interval(0.0,1.0)", "b=1,2", "a=3").fixed == {"a": "3"}
    assert list(space_of("a=3", "a=1,2").searched) == ["a"]


def test_values_become_the_overrides_that_hydra_would_write():
    space = space_of(
        "+a.b=[1,2],[3]", "model=cnn", "c='x y',z", "d=tag(log,interval(1e-4,1e-2))", "e=range(1,4)"
    )
    study = create_study()
    study.enqueue_trial({"+a.b": "[3]", "c": "x y", "d": 0.001, "e": 2})
    overrides = space.suggest(study.ask())
    assert overrides == ["model=cnn", "+a.b=[3]", "c='x y'", "d=0.001", "e=2"]
    OverridesParser.create().parse_overrides(overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=interval(5,1)", "a=interval(5,1): "),
        ("a=tag(log,interval(0,1))", "a=tag(log,interval(0,1)): "),
        ("a=range(3,3)", "a=range(3,3): there is no value in it"),
        ("seed=0,1", "seed=0,1: a search over seeds chooses the luckiest"),
        ("a=1", "there is nothing to search; choose hparams_search=cnn or give "),
    ],
)
def test_what_is_no_space_is_refused(override, message):
    with pytest.raises(FERError) as caught:
        space_of(override)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf/hparams_search").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_choice_of_a_space_of_conf_is_a_setting_that_builds(path, tmp_path):
    node = OmegaConf.load(path)
    space = space_of(*(f"{key}={value}" for key, value in node.hydra.sweeper.params.items()))
    experiment = ["experiment=best_resnet"] if path.stem == "best_resnet" else []
    study = create_study(sampler=RandomSampler(seed=0))
    for _ in range(2):
        overrides = space.suggest(study.ask())
        parts = build(
            [
                *experiment,
                f"hparams_search={path.stem}",
                "data=synthetic",
                "logger=none",
                "num_threads=1",
                *overrides,
            ],
            folder=tmp_path,
        )
        assert parts.trainer.max_epochs == node.trainer.max_epochs
        assert any(isinstance(each, TrialPruning) for each in parts.trainer.callbacks)
