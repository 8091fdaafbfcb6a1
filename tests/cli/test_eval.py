import json
import pickle
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from fer_lightning.cli import evaluate, evaluation_jobs
from fer_lightning.cli.command import check_settings
from fer_lightning.config.resolve import register_resolvers, to_plain
from fer_lightning.core.errors import FERError
from fer_lightning.core.hardware import choose_precision
from fer_lightning.evaluation.predictions import Predictions
from tests.chat_server import HALF, HANG, HTML, Answer, ChatServer, fail, say
from tests.commands import ROOT, TINY, environment, run, sentence, succeed
from tests.slow import slow_except

KEY = "sk-secret-0123456789abcdef"


@pytest.fixture(scope="module")
def trained(cache, tmp_path_factory):
    """The folder of a finished run."""
    cwd = tmp_path_factory.mktemp("cwd")
    succeed(
        "train.py", "model=mlp", *TINY, "trainer.max_epochs=2", "logger=none", "hydra.run.dir=run",
        cwd=cwd, cache=cache,
    )  # fmt: skip
    return cwd / "run"


def test_the_test_split_gives_exactly_what_training_reported(trained, cache, tmp_path):
    done = succeed(
        "eval.py", f"checkpoint={trained}/best.ckpt", "hydra.run.dir=out", cwd=tmp_path, cache=cache
    )
    saved, again = (
        json.loads((folder / "metrics.json").read_text())["test"] for folder in (trained, tmp_path / "out")
    )
    assert again == saved
    first, second = (np.load(folder / "predictions_test.npz") for folder in (trained, tmp_path / "out"))
    with first, second:
        assert all((first[key] == second[key]).all() for key in first.files)
    for name in ("explanations_test.npz", "embeddings_test.npz"):
        assert (trained / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "metrics.json", "predictions_test.npz", "report.html", "figures", "run.json", "config.yaml",
        "eval.log", "audit.json",
    }  # fmt: skip
    assert "test accuracy" in done.stdout


@pytest.mark.parametrize(
    ("split", "n"), slow_except([("all", 217)], [("val", 35), ("train", 140), ("all", 217)])
)
def test_other_splits(trained, cache, tmp_path, split, n):
    succeed(
        "eval.py", f"checkpoint={trained}", f"split={split}", "hydra.run.dir=out", cwd=tmp_path, cache=cache
    )
    measured = json.loads((tmp_path / "out/metrics.json").read_text())[split]
    assert measured["n"] == n
    # Every training image was seen in training; of `all`, the training and the selecting ones were.
    assert measured["leak_free"]["n"] == {"val": 35, "train": 0, "all": 42}[split]


@pytest.mark.slow
def test_a_folder_is_evaluated_by_what_it_holds(trained, cache, tmp_path):
    random = np.random.default_rng(0)
    for name in ("anger", "Happiness", "suprise", "contempt"):
        (tmp_path / "faces/test" / name).mkdir(parents=True)
        for number in range(4):
            pixels = random.integers(0, 256, (20, 20), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "faces/test" / name / f"{number}.png")
    words = ("eval.py", f"checkpoint={trained}", "data=image_folder", "data.root=faces")
    for split in ("test", "all"):
        done = succeed(*words, f"split={split}", f"hydra.run.dir={split}", cwd=tmp_path, cache=cache)
        assert "contempt: 4 images of an unknown class, left out" in done.stdout
        assert "test: no images of class disgust, fear, neutral, sad" in done.stdout
        measured = json.loads((tmp_path / split / "metrics.json").read_text())[split]
        assert measured["n"] == 12
        recalls = {name: entry["recall"] for name, entry in measured["per_class"].items()}
        assert {name for name, recall in recalls.items() if recall is None} == {
            "disgust", "fear", "neutral", "sad",
        }  # fmt: skip
        assert measured["acc_macro"] == pytest.approx(
            np.mean([recall for recall in recalls.values() if recall is not None])
        )
        assert "contempt: 4 images of an unknown class" in (tmp_path / split / "report.html").read_text()


def test_class_folders_without_splits_are_evaluated_whole(trained, cache, tmp_path):
    random = np.random.default_rng(0)
    for name in ("mad", "calm"):
        (tmp_path / "faces" / name).mkdir(parents=True)
        pixels = random.integers(0, 256, (20, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / name / "1.png")
    words = ("eval.py", f"checkpoint={trained}", "data=image_folder", "data.root=faces", "split=all")
    succeed(*words, "hydra.run.dir=out", cwd=tmp_path, cache=cache)
    measured = json.loads((tmp_path / "out/metrics.json").read_text())["all"]
    assert {name: entry["n"] for name, entry in measured["per_class"].items() if entry["n"]} == {
        "angry": 1, "neutral": 1,
    }  # fmt: skip


def test_gpu_checkpoint_is_evaluated_in_a_precision_of_this_machine(trained, cache, tmp_path):
    content = torch.load(trained / "best.ckpt", weights_only=True)
    content["fer_lightning"]["config"]["trainer"] |= {"accelerator": "cuda", "precision": "16-mixed"}
    content["fer_lightning"]["precision"] = "16-mixed"
    torch.save(content, tmp_path / "gpu.ckpt")
    done = succeed("eval.py", "checkpoint=gpu.ckpt", "hydra.run.dir=out", cwd=tmp_path, cache=cache)
    expected = choose_precision("auto", "cpu")
    assert f"trained on cuda in 16-mixed, evaluated on cpu in {expected}" in done.stdout
    assert json.loads((tmp_path / "out/run.json").read_text())["precision"] == expected


def test_several_checkpoints_give_a_row_each(trained, cache, tmp_path):
    done = succeed(
        "eval.py", f"checkpoint=[{trained}/best.ckpt,{trained}/last.ckpt]", "hydra.run.dir=out",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert len(list((tmp_path / "out").glob("*/metrics.json"))) == 2
    assert len((tmp_path / "out/summary.csv").read_text().splitlines()) >= 3
    assert (tmp_path / "out/report.html").is_file()
    assert "comparison" in done.stdout


@pytest.mark.slow
def test_stopped_comparison_skips_its_finished_checkpoints(trained, cache, tmp_path):
    command = (
        "eval.py", f"checkpoint=[{trained}/best.ckpt,{trained}/last.ckpt]", "hydra.run.dir=out",
    )  # fmt: skip
    succeed(*command, cwd=tmp_path, cache=cache)
    first, second = sorted(path.parent for path in (tmp_path / "out").glob("*/run.json"))
    finished = (first / "run.json").read_text()
    record = json.loads((second / "run.json").read_text())
    (second / "run.json").write_text(json.dumps(record | {"state": "running"}))
    (second / "metrics.json").unlink()
    (tmp_path / "out/summary.csv").unlink()
    done = succeed(*command, cwd=tmp_path, cache=cache)
    assert f"{first.name}: finished before" in done.stdout
    assert f"{second.name}: finished before" not in done.stdout
    assert (first / "run.json").read_text() == finished
    assert json.loads((second / "run.json").read_text())["state"] == "finished"
    assert (second / "metrics.json").is_file()
    assert len((tmp_path / "out/summary.csv").read_text().splitlines()) >= 3
    other = run(*command, "seed=5", cwd=tmp_path, cache=cache)
    assert "already holds results" in sentence(other)


@pytest.mark.slow
def test_another_data_set_may_be_named_and_is_split_by_its_own_rules(trained, cache, tmp_path):
    succeed(
        "eval.py",
        f"checkpoint={trained}",
        "data.protocol=paper",
        "hydra.run.dir=paper",
        cwd=tmp_path,
        cache=cache,
    )
    assert json.loads((tmp_path / "paper/metrics.json").read_text())["test"]["n"] == 77
    succeed(
        "eval.py", f"checkpoint={trained}", *TINY[:-1], "data.source.seed=5", "hydra.run.dir=other",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    first, other = (
        json.loads((folder / "run.json").read_text())["data"]["fingerprint"]
        for folder in (trained, tmp_path / "other")
    )
    assert first != other


class Payload:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_bad_checkpoint_gets_a_sentence_and_executes_nothing(trained, cache, tmp_path):
    mark = tmp_path / "executed"
    (tmp_path / "hostile.ckpt").write_bytes(pickle.dumps({"state_dict": Payload(mark)}))
    torch.save({"state_dict": {}, "x": Payload(mark)}, tmp_path / "hostile_zip.ckpt")
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "cut.ckpt").write_bytes((trained / "best.ckpt").read_bytes()[:5000])
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    described = torch.load(trained / "best.ckpt", weights_only=True)
    described["fer_lightning"]["config"]["model"] = {"_target_": "os.system", "command": f"touch {mark}"}
    torch.save(described, tmp_path / "target.ckpt")
    messages = {}
    for name in ("hostile", "hostile_zip", "empty", "cut", "foreign", "target", "missing"):
        done = run(
            "eval.py", f"checkpoint={name}.ckpt", f"hydra.run.dir=out_{name}", cwd=tmp_path, cache=cache
        )
        messages[name] = sentence(done)
        assert messages[name].startswith("error: "), messages[name]
        assert len(messages[name].splitlines()) == 1, messages[name]
        assert f"{name}.ckpt" in messages[name] or "os.system" in messages[name]
    assert not mark.exists()
    assert "refused" in messages["hostile_zip"]
    assert "no such file" in messages["missing"]
    assert "not a checkpoint of fer_lightning" in messages["foreign"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("split=public",), "split=public: expected train, val, test or all"),
        (("data=fer2013", "data.root=nowhere"), "nowhere"),
        (("split=val", "data.protocol=paper"), "empty"),
        (("predictor.tta=tencrop",), "predictor.tta=tencrop: expected none, flip or ten_crop"),
    ],
)
def test_user_error_is_printed_as_one_sentence(trained, cache, tmp_path, arguments, message):
    done = run("eval.py", f"checkpoint={trained}", *arguments, "hydra.run.dir=out", cwd=tmp_path, cache=cache)
    assert message in sentence(done)


def asking(server, *overrides):
    """The command that asks a language model about the faces of TINY."""
    return (
        "eval.py", "predictor=llm", "predictor.model=maker/seer:7b", f"predictor.base_url={server.url}",
        "predictor.timeout=1", "predictor.max_retries=1", *TINY, "data.cache_dir=cache", *overrides,
    )  # fmt: skip


# What the server says of the first images it sees; of all others it says "Happy".
SCRIPT = [
    [say("**Happy**")],
    [fail(500), say("Sad")],
    [say("angry or sad")],
    [fail(429, Retry_After="0.2"), say("Fear")],
    [HTML],
    [say("I'm sorry, I can't help with that.")],
    [say(None)],
    [HALF],
    [Answer('{"choices": []}')],
    [say("")],
    [HANG],
    [fail(400)],
]
NO_ANSWER = {
    *("two_labels", "html", "refusal", "null_content", "invalid_json"),
    *("no_choices", "empty", "timeout", "rejected"),
}


class Scripted:
    """Follows SCRIPT by the order in which images are first seen, and falls silent for a while after some."""

    def __init__(self, silent_after):
        self.order, self.silent_after = {}, silent_after

    def __call__(self, image, number):
        place = self.order.setdefault(image, len(self.order))
        if place >= self.silent_after:
            return HANG
        answers = SCRIPT[place] if place < len(SCRIPT) else [say("Happy")]
        return answers[min(number, len(answers)) - 1]


@pytest.fixture(scope="module")
def talked(cache, tmp_path_factory):
    """A whole comparison that was killed in its middle and given again: where, and its server."""
    cwd = tmp_path_factory.mktemp("talk")
    behave = Scripted(silent_after=20)
    extra = {"OPENAI_API_KEY": KEY, "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    with ChatServer(behave) as server:
        script, *arguments = asking(server, "hydra.run.dir=out")
        process = subprocess.Popen(
            [sys.executable, str(ROOT / script), *arguments], cwd=cwd, env=environment(cache, **extra),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while len(behave.order) < 21:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert json.loads((cwd / "out/run.json").read_text())["state"] == "running"
        paid = dict(server.paid)
        behave.silent_after = 100
        done = succeed(script, *arguments, cwd=cwd, cache=cache, **extra)
    return cwd, server, paid, done


def test_killed_comparison_continues_without_repeating_requests(talked):
    cwd, server, paid, done = talked
    answered = {
        image for image, place in server.behave.order.items() if place not in (4, 7, 8)
    }  # broken bodies
    assert len(paid) >= 15
    assert len(server.behave.order) == 35
    assert {server.paid[image] for image in answered} <= {0, 1}
    record = json.loads((cwd / "out/run.json").read_text())
    assert record["num_cached"] >= 12
    assert record["num_requests"] < server.num_requests
    said = " ".join(done.stdout.split())
    left = 35 - record["num_cached"]
    assert f"about {left} images; {record['num_cached']} were answered before" in said
    assert re.search(rf"{left} of {left} images, [0-9.]+ images/s, {record['num_requests']} requests", said)


def test_a_language_model_leaves_the_folder_that_a_checkpoint_leaves(talked):
    cwd, server, _, _ = talked
    out = cwd / "out"
    assert {path.name for path in out.iterdir()} >= {
        "metrics.json", "predictions_test.npz", "report.html", "figures", "run.json", "config.yaml",
        "eval.log", "sample.csv", "replies.jsonl",
    }  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    assert (record["state"], record["predictor"], record["model"]) == ("finished", "llm", "maker/seer:7b")
    assert (record["base_url"], record["api_key_env"]) == (server.url, "OPENAI_API_KEY")
    assert record["prompt"].startswith("From the image provided")
    assert record["tokens"]["prompt"] > 0
    assert record["durations"]["test_s"] > 0
    predictions = Predictions.load(out / "predictions_test.npz")
    assert np.bincount(predictions.labels).tolist() == [5] * 7
    assert set(predictions.status) == {"ok"} | NO_ANSWER
    measured = json.loads((out / "metrics.json").read_text())["test"]
    right = (predictions.predicted == predictions.labels).sum()
    assert measured["n"] == 35
    assert measured["leak_free"] is None  # nobody knows what it was trained on
    assert measured["acc"] == pytest.approx(right / 35)
    assert measured["no_answer"] == dict.fromkeys(NO_ANSWER, 1)
    replies = [json.loads(line) for line in (out / "replies.jsonl").read_text().splitlines()]
    assert [reply["id"] for reply in replies] == predictions.ids.tolist()
    assert [reply["status"] for reply in replies] == predictions.status.tolist()
    assert OmegaConf.load(out / "config.yaml").predictor.model == "maker/seer:7b"


def test_the_key_reaches_the_server_and_no_file(talked):
    cwd, server, _, done = talked
    assert {headers["Authorization"] for _, headers, _ in server.requests} == {f"Bearer {KEY}"}
    assert KEY not in done.stdout + done.stderr
    files = [path for path in cwd.rglob("*") if path.is_file()]
    assert any(path.suffix == ".jsonl" and path.parent.name == "llm" for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_probabilities_of_a_language_model_give_ece_and_top2(cache, tmp_path):
    listed = [{"token": name, "logprob": np.log(prob)} for name, prob in (("Happy", 0.6), ("Sad", 0.3))]
    entry = {"token": "Happy", "logprob": -0.5, "top_logprobs": listed}
    reply = {"message": {"content": "Happy"}, "finish_reason": "stop", "logprobs": {"content": [entry]}}
    with ChatServer(lambda image, number: Answer(json.dumps({"choices": [reply]}))) as server:
        script, *arguments = asking(server, "hydra.run.dir=out", "predictor.logprobs=auto")
        done = succeed(script, *arguments, cwd=tmp_path, cache=cache)
    measured = json.loads((tmp_path / "out/metrics.json").read_text())["test"]
    assert measured["acc"] == pytest.approx(1 / 7)
    assert measured["acc_top2"] == pytest.approx(2 / 7)
    assert measured["ece"] == pytest.approx(2 / 3 - 1 / 7)
    assert measured["auroc_macro"] == pytest.approx(0.5)
    assert "probabilities of all 35 answers; 10.0 % on average belong to no class" in done.stdout
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert record["probabilities"]["used"] is True
    assert (tmp_path / "out/figures/reliability_test.png").is_file()


def test_a_checkpoint_meets_the_images_of_a_language_model(talked, trained, cache, tmp_path):
    cwd = talked[0]
    succeed(
        "eval.py", f"checkpoint={trained}", f"sample={cwd}/out/sample.csv", "hydra.run.dir=out",
        cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert (tmp_path / "out/sample.csv").read_text() == (cwd / "out/sample.csv").read_text()
    asked, whole, sampled = (
        Predictions.load(folder / "predictions_test.npz")
        for folder in (cwd / "out", trained, tmp_path / "out")
    )
    assert sampled.ids.tolist() == asked.ids.tolist()
    rows = np.isin(whole.ids, sampled.ids)
    np.testing.assert_array_equal(sampled.probs, whole.probs[rows])
    assert json.loads((tmp_path / "out/metrics.json").read_text())["test"]["n"] == 35


@pytest.mark.slow
def test_a_budget_ends_with_a_sentence_and_the_same_command_goes_on(cache, tmp_path):
    with ChatServer(lambda image, number: say("Happy")) as server:
        command = asking(server, "sample=1", "predictor.max_requests=4", "hydra.run.dir=out")
        message = sentence(run(*command, cwd=tmp_path, cache=cache))
        assert message == (
            "error: predictor.max_requests=4: used up; the replies to 4 of 7 images are saved, and the same "
            "command continues from there\n"
        )
        record = json.loads((tmp_path / "out/run.json").read_text())
        assert (record["state"], record["num_requests"]) == ("failed", 4)
        assert len((tmp_path / "out/replies.jsonl").read_text().splitlines()) == 4
        succeed(*command, cwd=tmp_path, cache=cache)
        assert server.num_requests == 7
    assert json.loads((tmp_path / "out/run.json").read_text())["state"] == "finished"


def test_a_model_that_takes_no_images_gets_a_sentence_and_no_accuracy(cache, tmp_path):
    with ChatServer(lambda image, number: fail(400, "does not support images")) as server:
        message = sentence(run(*asking(server, "sample=1", "hydra.run.dir=out"), cwd=tmp_path, cache=cache))
    assert message.startswith(f"error: {server.url}: maker/seer:7b replied to none of 7 images (7 reject")
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert (record["state"], record["num_requests"]) == ("failed", 7)
    assert len((tmp_path / "out/replies.jsonl").read_text().splitlines()) == 7
    assert not (tmp_path / "out/metrics.json").exists()


@pytest.mark.parametrize(
    ("record", "goes_on"),
    [
        ({}, True),
        ({"predictor": "llm", "state": "running", "overrides": ["a=1"]}, True),
        ({"predictor": "llm", "state": "failed", "overrides": ["a=1"]}, True),
        ({"predictor": "llm", "state": "finished", "overrides": ["a=1"]}, False),
        ({"predictor": "llm", "state": "failed", "overrides": ["a=2"]}, False),
        ({"model": "cnn", "state": "interrupted", "overrides": ["a=1"]}, False),  # a training
    ],
)
def test_the_same_command_goes_on_in_its_folder_and_no_other_does(tmp_path, monkeypatch, record, goes_on):
    config = SimpleNamespace(overrides=SimpleNamespace(task=["a=1"]))
    monkeypatch.setattr(evaluate, "HydraConfig", SimpleNamespace(get=lambda: config))
    if record:
        (tmp_path / "run.json").write_text(json.dumps(record))
    if goes_on:
        evaluate.open_folder(tmp_path).release()
        return
    with pytest.raises(FERError, match="already holds results; choose another hydra.run.dir"):
        evaluate.open_folder(tmp_path)
    FileLock(tmp_path / ".lock").acquire(timeout=0).lock.release()


def composed(*overrides):
    """Compose eval's config as its main function gets it."""
    register_resolvers()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("eval", overrides=list(overrides))


@pytest.fixture
def job(monkeypatch, tmp_path):
    """Replace Hydra's own config of a job, whose folder does not exist."""
    own = SimpleNamespace(runtime=SimpleNamespace(output_dir=str(tmp_path / "none")))
    monkeypatch.setattr("fer_lightning.cli.command.HydraConfig", SimpleNamespace(get=lambda: own))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "checkpoint: missing; name a checkpoint or a run folder"),
        (("checkpoint=[]",), "checkpoint: missing"),
        (("checkpoint=a", "sample=0"), "sample=0: expected auto, all, a number"),
        (("checkpoint=a", "sample=nowhere.csv"), "sample=nowhere.csv: No such file"),
        *(
            (("checkpoint=a", f"seed={seed}"), f"seed={seed}: expected a whole number from 0 to 4,")
            for seed in ("-1", "5000000000", "4294967296", "abc", "1.5", "True")
        ),
        (("checkpoint=a", "seed=null"), "seed=None: expected a whole number"),
        (("predictor=llm",), "predictor.model: missing; name it as the server does"),
        (("predictor=llm", "predictor.model=m", "checkpoint=a"), "checkpoint=a: predictor=llm asks a server"),
        (("predictor=llm", "predictor.model=m", "predictor.enlarge=0"), "predictor.enlarge=0: expected"),
        (("predictor=llm", "predictor.model=m", "+predictor.api_key=sk-1"), "predictor.api_key: unknown"),
        (("predictor=llm", "predictor.model=m", "split=public"), "split=public: expected train"),
    ],
)
def test_user_error_is_reported_before_anything_is_loaded(overrides, message, job):
    def start(config):
        check_settings(config)
        evaluation_jobs.prepare(to_plain(config))

    with pytest.raises(FERError, match=re.escape(message)) as error:
        start(composed(*overrides))
    assert "sk-1" not in str(error.value)
