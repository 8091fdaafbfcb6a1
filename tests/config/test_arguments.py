import pytest

from fer_lightning.config.arguments import option_names, sort_arguments
from fer_lightning.core.errors import FERError


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("model=cnn --multirun seed=0,1 data=synthetic", "--multirun model=cnn seed=0,1 data=synthetic"),
        ("model=cnn -m seed=0,1 -m", "--multirun model=cnn seed=0,1"),
        ("model=mine --config-dir my_conf seed=1", "--config-dir=my_conf model=mine seed=1"),
        ("model=mine -cd my_conf", "--config-dir=my_conf model=mine"),
        ("model=mine --config-dir=my=conf", "--config-dir=my=conf model=mine"),
        ("model=cnn --cfg job --resolve -p model", "--cfg=job --resolve --package=model model=cnn"),
        ("--info searchpath model=cnn", "--info=searchpath model=cnn"),
        ("--info model=cnn", "--info=all model=cnn"),
        ("-sc query=bash", "--shell-completion query=bash"),
        ("seed=-1 ~data.augment -- +x=--y", "seed=-1 ~data.augment +x=--y"),
        ("", ""),
    ],
)
def test_options_are_sorted_before_overrides(typed, expected):
    assert sort_arguments(typed.split()) == expected.split()
    assert sort_arguments(expected.split()) == expected.split()


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("--model=mlp seed=1", "--model=mlp: overrides have no dashes; write model=mlp"),
        ("--optimizer.lr=3e-4", "write optimizer.lr=3e-4 "),
        ("--model mlp", "--model: overrides have no dashes; write model=mlp"),
        ("--data.root=my(1)", r"write 'data.root=my\(1\)'"),
        ("--foo", "--foo: no such option; expected one of --help, --version"),
        ("model=mlp -x", "-x: no such option"),
        ("-- --foo", "--foo: no such option"),
        ("--multirum", "--multirum: no such option; did you mean --multirun?"),
        ("--multirun=3", "--multirun takes no value"),
        (
            "model=mlp --config-dir",
            "--config-dir: its value is missing; expected one, as in --config-dir my_conf",
        ),
        ("-cd -m model=mlp", "-cd: its value is missing"),
        ("--cfg", "--cfg: its value is missing; expected job, hydra, all"),
        ("--cfg yob", "--cfg yob: expected one of job, hydra, all"),
        ("-m --cfg job", "--multirun --cfg: only one of these options"),
        ("--resolve", "--resolve: goes with --cfg, as in --cfg job --resolve"),
        ("--package model", "as in --cfg job --package model"),
        (
            "-cd a --config-dir b",
            "--config-dir: given twice, with different values; leave one out; add several",
        ),
    ],
)
def test_wrong_option_is_explained(typed, message):
    with pytest.raises(FERError, match=message.replace("?", r"\?")):
        sort_arguments(typed.split())


def test_option_names_leave_out_values_and_overrides():
    assert option_names(["--cfg=job", "--resolve", "model=cnn"]) == {"--cfg", "--resolve"}
