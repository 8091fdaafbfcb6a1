"""The benchmarks run and judge as they say; how fast anything is, is no test's affair."""

import json
import mmap
import os
import re
import subprocess
from functools import partial

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from benchmarks import __main__ as command
from benchmarks import many_images, measure, predictors, time_to_accuracy
from benchmarks.measure import Figure
from fer_lightning.config.resolve import register_resolvers
from fer_lightning.core import hardware
from tests.commands import ROOT, TINY, succeed
from tests.config.test_conf import composed


@pytest.mark.parametrize(
    ("values", "bounds", "verdict"),
    [
        ([0.9, 1.0, 1.1], {"at_least": 1.0}, "met"),
        ([0.9, 0.95, 1.1], {"at_least": 1.0}, "missed within noise"),
        ([0.9, 0.95, 0.99], {"at_least": 1.0}, "missed"),
        ([0.9, 1.0, 1.1], {"at_most": 1.0}, "met"),
        ([0.9, 1.05, 1.1], {"at_most": 1.0}, "missed within noise"),
        ([1.01, 1.05, 1.1], {"at_most": 1.0}, "missed"),
        ([1.0], {}, ""),
    ],
)
def test_a_target_is_missed_beyond_noise_where_every_round_misses_it(values, bounds, verdict):
    assert Figure("figure", values, **bounds).verdict == verdict


def test_a_ratio_is_taken_round_by_round():
    figure = measure.ratio("ours / limit", [1.0, 4.0, 9.0], [2.0, 4.0, 6.0], at_least=0.7)
    assert list(figure.values) == [0.5, 1.0, 1.5]
    assert (figure.median, figure.target, figure.verdict) == (1.0, "≥ 0.700", "met")


@pytest.mark.slow
def test_contenders_take_turns_in_an_order_that_is_turned_round():
    calls = []

    def contender(name):
        return lambda: calls.append(name) or float(len(calls))

    values = measure.rounds(3, {name: contender(name) for name in "ab"})
    assert calls == list("abbaab")
    assert values == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_a_matrix_product_has_a_rate():
    assert measure.matrix_rate(torch.float32, "cpu", size=64) > 1e6


@pytest.mark.parametrize(
    ("value", "written"), [(12345.6, "12,346"), (99.94, "99.9"), (3.14159, "3.14"), (0.83456, "0.835")]
)
def test_figures_are_written_with_three_digits(value, written):
    assert measure._digits(value) == written


@pytest.mark.parametrize(("values", "code"), [([2.0, 3.0], 0), ([1.0, 3.0], 0), ([0.5, 0.9], 1)])
def test_the_command_fails_where_a_target_is_missed(monkeypatch, capsys, tmp_path, values, code):
    figure = Figure("speed", values, "x", at_least=2.0, note="a note")

    class Part:
        @staticmethod
        def run(options):
            assert (options.rounds, options.overrides) == (2, ("data=synthetic",))
            return [figure]

    monkeypatch.setattr(command.importlib, "import_module", lambda name: Part)
    page = tmp_path / "new" / "tables.md"
    arguments = ["growth", "--rounds", "2", "--set", "data=synthetic", "--markdown", str(page)]
    assert command.main(arguments) == code
    assert ("missed: speed" in capsys.readouterr().err) == bool(code)
    assert "| speed (a note) |" in page.read_text()
    assert page.read_text().startswith(measure.describe())


@pytest.mark.parametrize("arguments", [["speed"], ["growth", "--rounds", "0"], ["growth", "--seconds", "-1"]])
def test_what_cannot_be_measured_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.fixture
def process_settings(monkeypatch):
    """Put back what a benchmark sets for its whole process."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("WANDB_MODE", "WANDB_ERROR_REPORTING"):
        monkeypatch.setenv(name, {"WANDB_MODE": "offline"}.get(name, "false"))
    precision, hydra = torch.get_float32_matmul_precision(), HydraConfig.instance().cfg
    yield
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)
    HydraConfig.instance().cfg = hydra


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "settings"),
    [
        ("MLP", ()),
        ("improved ResNet-15", ("model.depth=15", "model.width=0.25", "data.augment.sides=[16,20,24]")),
    ],
)
def test_the_three_loops_train_the_same_network(
    network, settings, monkeypatch, process_settings, tmp_path, capsys
):
    """The real loops, on seventy faces: two steps each, of the improved recipe at three sides."""
    monkeypatch.setattr(hardware, "available_cores", lambda: 1)
    small = (*TINY, "data.image_size=24", "data.batch_size=35", f"data.cache_dir={tmp_path}")
    overrides = [word for setting in (*small, *settings) for word in ("--set", setting)]
    code = command.main(["training", "--rounds", "1", "--seconds", "0.01", "--only", network, *overrides])
    assert code in (0, 1)  # seventy faces say nothing of speed
    printed = capsys.readouterr().out
    for line in ("bare loop", "ours", "usual", "ours / bare loop", "arithmetic / matrix product"):
        assert f"{network}: {line}" in printed or f"batches of 35: {line}" in printed


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_a_cpu(monkeypatch, process_settings, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hardware, "available_cores", lambda: 1)
    assert command.main(["gpu", "--device", "cpu", "--quick", "--only", "MLP"]) == 0
    printed = capsys.readouterr().out
    row = re.search(r"\| MLP \| 4 \| [\w-]+ \|( [\d.,-]+ \|){9} [\d.]+ s \|", printed)
    assert row
    assert row[0] in (tmp_path / "outputs/benchmarks_gpu.md").read_text()
    assert "from the command to the first training step" in printed


def test_the_gpu_benchmark_needs_a_gpu_and_is_left_out_of_the_others(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        command.main(["gpu"])
    assert stop.value.code == 2
    assert "torch sees no CUDA device here; --device cpu --quick" in capsys.readouterr().err
    parts = []
    monkeypatch.setattr(command.importlib, "import_module", lambda name: parts.append(name) or StubPart)
    command.main([])
    assert "benchmarks.gpu" not in parts


@pytest.mark.slow
def test_the_plan_for_a_gpu_composes(tmp_path):
    """Every command of the plan, most valuable first; the folders are not made."""
    environment = os.environ | {"DRY": "1", "RUNS": str(tmp_path / "runs"), "KEEP": str(tmp_path / "keep")}
    script = ROOT / "benchmarks/gpu_runs.sh"
    done = subprocess.run(["bash", script], env=environment, capture_output=True, text=True, check=True)
    plan = [line for line in done.stdout.splitlines() if "train.py" in line]
    assert len(plan) == 15
    register_resolvers()
    for line in plan:
        seconds, arguments = re.fullmatch(r"(\d+) s  python train\.py (.*)", line).groups()
        assert int(seconds) > 0
        *overrides, folder = arguments.split()
        assert folder.startswith(f"hydra.run.dir={tmp_path}/runs/gpu_")
        config = composed("train", *overrides)
        assert config["trainer"]["accelerator"] == "gpu"
        is_of_readme = re.search(r"gpu_(paper|readme)_", folder) is not None
        assert config["data"]["protocol"] == ("paper" if is_of_readme else "official")
    assert not (tmp_path / "runs").exists()


class StubPart:
    """A part that measures nothing."""

    @staticmethod
    def run(options):
        return []


def test_run_duration_excludes_interruptions():
    record = {
        "started": "2026-11-26T12:00:00.000+00:00",
        "first_step": "2026-11-26T12:00:06.500+00:00",
        "resumed": ["2026-11-27T09:00:00.000+00:00"],
        "epoch_seconds": [10.0, 20.0, 10.0],
        "epoch_end_seconds": [1.0, 3.0],  # nobody saw the end of the epoch before the interruption
    }
    assert time_to_accuracy.ends_of_epochs(record) == [18.5, 40.5, 52.5]


@pytest.mark.slow
def test_time_to_accuracy_is_that_of_the_first_epoch_reaching_it(
    monkeypatch, process_settings, tmp_path, capsys
):
    """A real run of two epochs: trained, scored again from its folder, and gone on with once interrupted."""
    monkeypatch.setattr(hardware, "available_cores", lambda: 1)
    monkeypatch.setattr(time_to_accuracy, "TABLE_1", {"rnn": 0.0, "mlp": 1.0})
    forked = partial(succeed, cache=tmp_path)
    monkeypatch.setattr(time_to_accuracy.commands, "run", lambda words, cwd: forked(*words, cwd=cwd))
    small = (*TINY, "trainer.max_epochs=2", "logger=none", f"data.cache_dir={tmp_path}")
    overrides = [word for setting in small for word in ("--set", setting)]
    arguments = ["benchmark", str(tmp_path), "--models", "mlp", *overrides]
    record = tmp_path / "paper_mlp" / "run.json"
    for state, more in (("new", []), ("finished", ["--score"]), ("interrupted", [])):
        if state == "interrupted":
            record.write_text(json.dumps(json.loads(record.read_text()) | {"state": state}))
        monkeypatch.setattr("sys.argv", [*arguments, *more])
        time_to_accuracy.main()
        header, _, row = capsys.readouterr().out.strip().splitlines()[-3:]
        assert header == "| run | RNN 0.00 % | MLP 100.00 % | epochs |"
        assert re.fullmatch(r"\| paper, mlp \| \d+ s \(epoch 1\) \| not \| 2 \|", row), row
    assert len(json.loads(record.read_text())["resumed"]) == 1


@pytest.mark.slow
def test_throughput_of_many_images_is_that_of_parts_of_them(monkeypatch, process_settings, tmp_path):
    monkeypatch.setattr(hardware, "available_cores", lambda: 1)
    many_images.make_images(tmp_path / "images", 1200)
    assert len(list(tmp_path.glob("images/train/*/*.jpg"))) == 1080
    figures = many_images.throughput(tmp_path / "images", tmp_path / "cache", rounds=1)
    names = ["135 images from the disk", "270 images", "540 images", "1,080 images"]
    assert [figure.name for figure in figures] == names
    assert all(figure.median > 0 for figure in figures)


def test_memory_of_a_process_is_its_own(tmp_path):
    before = many_images.own_memory_gb(os.getpid())
    # New memory: an array may get what another one has left.
    held = mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE)
    np.frombuffer(held, np.uint8)[:] = 1
    mapped = np.lib.format.open_memmap(tmp_path / "a.npy", mode="w+", dtype=np.uint8, shape=(50_000_000,))
    mapped[:] = 1
    grown = many_images.own_memory_gb(os.getpid()) - before
    assert 0.045 < grown < 0.075  # not the mapped file
    assert len(held) == 50_000_000
    assert many_images.own_memory_gb(2**22 + 1) == 0  # no such process


def test_an_ensemble_is_the_mean_of_its_networks(make_checkpoint, make_data):
    data = make_data()
    data.setup()
    paths = [str(make_checkpoint(f"{name}.ckpt")[0]) for name in ("one", "two")]
    one, two, both = (predictors.load(names, data, "cpu") for names in (*paths, "+".join(paths)))
    faces = data.faces.images[:5][:, None]
    assert not np.allclose(one(faces), two(faces))
    np.testing.assert_allclose(both(faces), (one(faces) + two(faces)) / 2, rtol=1e-5)
    assert both.num_parameters == 2 * one.num_parameters


def test_the_leak_free_count_leaves_out_what_a_network_has_seen(make_checkpoint, make_data):
    data = make_data()
    data.setup()
    rows, labels = data.rows["test"], data.faces.labels
    contender = predictors.load(str(make_checkpoint()[0]), data, "cpu")
    right = contender(data.faces.images[rows][:, None]).argmax(axis=1) == labels[rows]
    counts = predictors.count_correct(contender._replace(trained_on=data.faces.hashes[rows[:10]]), data)
    assert counts == {
        "n": 28,
        "correct": int(right.sum()),
        "leak_free_n": 18,
        "leak_free_correct": int(right[10:].sum()),
    }
