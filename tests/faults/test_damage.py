"""Files damaged at random: each command then ends with a sentence, or as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import time

import pytest
import torch

from tests.commands import ROOT, TINY, environment, run, succeed
from tests.faults.test_kills import record_of
from tests.forked import Forked

RECIPE = (
    *TINY, "model=mlp", "model.hidden=[16]", "data.image_size=16", "data.batch_size=16",
    "trainer.max_epochs=3", "trainer.deterministic=true", "save_every_steps=3", "logger=none", "seed=11",
)  # fmt: skip
# Damages of each kind of folder in the slow test; `make slow` sets more.
NUM_DAMAGES = int(os.environ.get("FER_NUM_DAMAGES", "5"))


def weights_of(folder):
    return torch.load(folder / "best.ckpt", weights_only=True)["state_dict"]


def stop(process, folder):
    """Stop a run after its second epoch."""
    deadline = time.monotonic() + 120
    while not ((folder / "metrics.csv").is_file() and (folder / "metrics.csv").read_text().count("\n") >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.completed().returncode == 143


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a stopped run, a finished run, and a sweep of which one job is unfinished."""
    cwd = tmp_path_factory.mktemp("cwd")
    cache = cwd / "home"
    succeed("train.py", *RECIPE, "hydra.run.dir=finished", cwd=cwd, cache=cache)
    words = [str(ROOT / "train.py"), *RECIPE, "hydra.run.dir=stopped"]
    stop(Forked(words, cwd=cwd, env=environment(cache)), cwd / "stopped")
    return cwd


def damage(path, rng):
    """Change one byte of a file, or cut it."""
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    if rng.random() < 0.5:
        path.write_bytes(content[:at])
        return f"cut at {at} of {len(content)}"
    content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"bit of byte {at} of {len(content)}"


def copy_and_damage(folder, to, rng):
    """Copy a folder, damage one of its files, and say which and how."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    files = sorted(path for path in to.rglob("*") if path.is_file() and path.stat().st_size)
    files = [path for path in files if "figures" not in path.parts or rng.random() < 0.1]  # there are many
    path = rng.choice(files)
    return path, f"{path.relative_to(to)}: {damage(path, rng)}"


def check_ending(done, damaged):
    """Check that a command ended well, or with one sentence; return whether it ended well."""
    printed = done.stdout + done.stderr
    assert "Traceback" not in printed, f"{damaged}\n{printed}"
    assert done.returncode in (0, 1), f"{damaged}\n{printed}"
    if done.returncode == 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, f"{damaged}\n{printed}"
    return done.returncode == 0


def same_weights(folder, other):
    one, two = weights_of(folder), weights_of(other)
    return all(torch.equal(one[key], two[key]) for key in two)


def cut(path, keep=100):
    path.write_bytes(path.read_bytes()[:keep])


def copied(place, name, tmp_path):
    shutil.copytree(place / name, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
def test_cut_record_of_a_run_names_a_remedy_that_works(place, fault_row, tmp_path):
    folder = copied(place, "stopped", tmp_path)
    cut(folder / "run.json")
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=place / "home"))
    (folder / "run.json").unlink()
    done = succeed("train.py", "resume=run", cwd=tmp_path, cache=place / "home")
    assert "run: run.json is missing; a new record begins" in done.stdout
    assert same_weights(folder, place / "finished")
    record = record_of(folder)
    assert (record["state"], record["model"]) == ("finished", "mlp")
    assert record["overrides"] == list(RECIPE)


def test_lost_record_opens_no_way_out_of_the_folder(place, tmp_path):
    folder, outside = copied(place, "stopped", tmp_path), tmp_path / "outside"
    (folder / "run.json").unlink()
    shutil.rmtree(folder / "figures", ignore_errors=True)
    outside.mkdir()
    (outside / "samples.png").write_text("mine")
    (folder / "figures").symlink_to(outside)
    done = run("train.py", "resume=run", cwd=tmp_path, cache=place / "home")
    assert done.returncode == 1
    assert "run/figures: a symbolic link that leads out of the run folder" in done.stderr
    assert (outside / "samples.png").read_text() == "mine"


@pytest.mark.slow
def test_lost_record_keeps_the_mark_of_a_smoke_run(place, tmp_path):
    words = (*RECIPE, "trainer=smoke", "hydra.run.dir=run")
    succeed("train.py", *words, cwd=tmp_path, cache=place / "home")
    (tmp_path / "run/run.json").unlink()
    done = succeed("train.py", "resume=run", cwd=tmp_path, cache=place / "home")
    assert "limited run (trainer=smoke" in done.stdout
    assert "trainer=smoke" in json.loads((tmp_path / "run/metrics.json").read_text())["limited"]


@pytest.mark.slow
def test_lost_record_of_a_job_is_begun_anew_by_the_sweep(place, tmp_path):
    words = ("-m", *RECIPE, "trainer.max_epochs=1", "seed=11,12", "hydra.sweep.dir=sweep")
    succeed("train.py", *words, cwd=tmp_path, cache=place / "home")
    record = json.loads((tmp_path / "sweep/sweep.json").read_text())
    (tmp_path / "sweep/sweep.json").write_text(json.dumps(record | {"state": "interrupted"}))
    (tmp_path / "sweep/0_mlp/run.json").unlink()
    done = succeed("train.py", "resume=sweep", cwd=tmp_path, cache=place / "home")
    assert "0_mlp: run.json is missing; a new record begins" in done.stdout
    assert "1_mlp: this run is finished, there is nothing to do" in done.stdout
    assert record_of(tmp_path / "sweep/0_mlp")["state"] == "finished"


def test_paper_page_leaves_a_damaged_run_out(place, tmp_path):
    folder = copied(place, "finished", tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["test"]["per_class"]["happy"] = "x"
    (folder / "metrics.json").write_text(json.dumps(metrics))
    command = ("run", str(place / "finished"), "--paper", "--out", "paper")
    succeed("-m", "fer_lightning.report", *command, cwd=tmp_path, cache=place / "home")
    page = (tmp_path / "paper/report.html").read_text()
    assert "run is left out: run/metrics.json: test.per_class is" in page


@pytest.mark.slow
def test_cut_config_of_a_run_names_a_remedy_that_works(place, fault_row, tmp_path):
    folder = copied(place, "stopped", tmp_path)
    lines = (folder / "config.yaml").read_text().splitlines(keepends=True)
    (folder / "config.yaml").write_text("".join(lines[: len(lines) // 2]))
    fault_row.check(run("train.py", "resume=run", cwd=tmp_path, cache=place / "home"))
    (folder / "config.yaml").unlink()
    words = (*RECIPE, "resume=auto", "hydra.run.dir=run")
    succeed("train.py", *words, cwd=tmp_path, cache=place / "home")
    assert same_weights(folder, place / "finished")


@pytest.mark.slow
def test_cut_record_of_a_sweep_names_a_remedy_that_works(place, fault_row, tmp_path):
    words = ("-m", *RECIPE, "trainer.max_epochs=1", "seed=11,12")
    succeed("train.py", *words, "hydra.sweep.dir=sweep", cwd=tmp_path, cache=place / "home")
    cut(tmp_path / "sweep/sweep.json")
    fault_row.check(run("train.py", "resume=sweep", cwd=tmp_path, cache=place / "home"))
    (tmp_path / "sweep/sweep.json").unlink()
    again = (*words, "resume=auto", "hydra.sweep.dir=sweep")
    done = succeed("train.py", *again, cwd=tmp_path, cache=place / "home")
    assert "0_mlp: this run is finished, there is nothing to do" in done.stdout
    assert json.loads((tmp_path / "sweep/sweep.json").read_text())["state"] == "finished"


def test_damaged_run_is_listed_beside_the_others(place, fault_row, tmp_path):
    folder = copied(place, "finished", tmp_path)
    cut(folder / "run.json")
    command = ("run", str(place / "finished"), "--out", "both.html")
    done = run("-m", "fer_lightning.report", *command, cwd=tmp_path, cache=place / "home")
    assert done.returncode == 0
    fault_row.check_text((tmp_path / "both.html").read_text())


def test_record_that_holds_another_kind_of_value_is_named(place, fault_row, tmp_path):
    folder = copied(place, "finished", tmp_path)
    (folder / "run.json").write_text(json.dumps(record_of(folder) | {"started": 5}))
    fault_row.check(run("-m", "fer_lightning.report", "run", cwd=tmp_path, cache=place / "home"))


def test_checkpoint_with_a_wrong_checksum_is_refused(place, fault_row, tmp_path):
    folder = copied(place, "finished", tmp_path)
    content = bytearray((folder / "best.ckpt").read_bytes())
    content[len(content) // 2] ^= 1  # torch loads it without a word
    (folder / "best.ckpt").write_bytes(content)
    fault_row.check(run("eval.py", "checkpoint=run", cwd=tmp_path, cache=place / "home"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_DAMAGES))
def test_damaged_run_continues_to_the_same_bits_or_says_why_not(seed, place):
    rng, copy = random.Random(f"stopped {seed}"), place / "copy"
    path, damaged = copy_and_damage(place / "stopped", copy, rng)
    done = run("train.py", "resume=copy", cwd=place, cache=place / "home")
    if check_ending(done, damaged):
        assert record_of(copy)["state"] == "finished"
        if not same_weights(copy, place / "finished"):
            raise AssertionError(f"other weights after {damaged}\n{done.stdout}")
    else:
        assert path.name in done.stderr or "copy" in done.stderr, f"{damaged}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_DAMAGES))
def test_damaged_finished_run_gives_its_numbers_or_says_why_not(seed, place):
    rng, copy = random.Random(f"finished {seed}"), place / "copy"
    whole = (place / "finished/metrics.json").read_bytes()
    path, damaged = copy_and_damage(place / "finished", copy, rng)
    shutil.rmtree(place / "eval", ignore_errors=True)
    done = run("eval.py", "checkpoint=copy", "hydra.run.dir=eval", cwd=place, cache=place / "home")
    if check_ending(done, damaged):
        assert json.loads((place / "eval/metrics.json").read_text())["test"] == json.loads(whole)["test"], (
            damaged
        )
    else:
        assert path.name == "best.ckpt", f"{damaged}\n{done.stderr}"
    check_ending(run("-m", "fer_lightning.report", "copy", cwd=place, cache=place / "home"), damaged)
    both = ("copy", "finished", "--out", "both.html")
    assert check_ending(run("-m", "fer_lightning.report", *both, cwd=place, cache=place / "home"), damaged)
    check_ending(run("train.py", "resume=copy", cwd=place, cache=place / "home"), damaged)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_DAMAGES))
def test_damaged_sweep_continues_or_says_why_not(seed, place):
    sweep, copy = place / "sweep", place / "copy"
    if not sweep.exists():
        words = ("-m", *RECIPE, "trainer.max_epochs=1", "seed=11,12", "hydra.sweep.dir=sweep")
        succeed("train.py", *words, cwd=place, cache=place / "home")
        record = record_of(sweep / "1_mlp")
        (sweep / "1_mlp/run.json").write_text(json.dumps(record | {"state": "interrupted"}))
        record = json.loads((sweep / "sweep.json").read_text())
        (sweep / "sweep.json").write_text(json.dumps(record | {"state": "interrupted"}))
    _, damaged = copy_and_damage(sweep, copy, random.Random(f"sweep {seed}"))
    done = run("train.py", "resume=copy", cwd=place, cache=place / "home")
    if check_ending(done, damaged):
        assert {record_of(copy / job)["state"] for job in ("0_mlp", "1_mlp")} == {"finished"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(NUM_DAMAGES))
def test_damaged_cache_is_decoded_again(seed, place):
    rng, home = random.Random(f"cache {seed}"), place / "home"
    _, damaged = copy_and_damage(home / ".cache/fer_lightning", place / "cache", rng)
    words = (*RECIPE, "trainer.max_epochs=1", f"data.cache_dir={place / 'cache'}")
    for name, words_of in (("one", words), ("two", words[:-1])):
        shutil.rmtree(place / name, ignore_errors=True)
        done = run("train.py", *words_of, f"hydra.run.dir={name}", cwd=place, cache=home)
        assert check_ending(done, damaged)
    assert same_weights(place / "one", place / "two"), damaged
