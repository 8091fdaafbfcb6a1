"""Files and texts from untrusted sources are refused in one sentence, and nothing in them runs."""

import io
import itertools
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.stored import read_config
from fer_lightning.core.errors import FERError
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.runs.sweep_resume import expand_resume
from fer_lightning.training.checkpoint import KEY, load_classifier, read_checkpoint
from tests.chat_server import Answer, ChatServer, RawServer, fail, say
from tests.commands import TINY, run, succeed
from tests.faults.conftest import SMALL, copy_as_stopped
from tests.slow import slow_except


class Payload:
    """What a pickle of this runs when it is opened: it leaves a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.fixture
def untrusted_run(trained, tmp_path):
    """A copy of a run from an untrusted source; its state says that it was stopped."""
    return copy_as_stopped(trained, tmp_path / "untrusted_run")


def tamper(path, change):
    content = torch.load(path, weights_only=True)
    changed = change(content)
    torch.save(content if changed is None else changed, path)


PREDICT = ("-m", "fer_lightning.predict", "--detector", "none")


def through_every_door(folder, *, cwd, cache):
    """Open a run folder in each way that there is; return what each command did."""
    picture = cwd / "face.png"
    Image.fromarray(np.full((16, 16), 128, np.uint8)).save(picture)
    return [
        run("eval.py", f"checkpoint={folder}", cwd=cwd, cache=cache),
        run("train.py", *SMALL, "trainer=smoke", f"init_from={folder}", cwd=cwd, cache=cache),
        run("train.py", f"resume={folder}", cwd=cwd, cache=cache),
        run(*PREDICT, picture, "--checkpoint", folder, cwd=cwd, cache=cache),
    ]


@pytest.mark.slow
def test_a_pickle_that_executes_is_refused_at_every_door(untrusted_run, fault_row, cache, tmp_path):
    for name in ("best.ckpt", "last.ckpt"):
        content = torch.load(untrusted_run / name, weights_only=True)
        torch.save(content | {"callbacks": Payload(tmp_path / "ran")}, untrusted_run / name)
    for done in through_every_door(untrusted_run, cwd=tmp_path, cache=cache):
        fault_row.check(done)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(FileNotFoundError):  # the payload is a real one
        (tmp_path / "ran").rmdir()
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    (tmp_path / "ran").rmdir()


def name_a_target(content):
    content["hyper_parameters"] = {"_instantiator": "lightning.pytorch.cli.instantiate_module"}
    content["hyper_parameters"]["_class_path"] = "os.mkdir"
    content[KEY]["config"]["model"] = {"_target_": "os.mkdir", "path": "ran"}


def test_a_config_in_a_checkpoint_that_names_what_to_run_is_refused(
    untrusted_run, fault_row, cache, tmp_path
):
    tamper(untrusted_run / "best.ckpt", name_a_target)
    fault_row.check(run("eval.py", f"checkpoint={untrusted_run}", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "ran").exists()


def name_a_writer(content):
    """A class of a listed package; but it makes the folder that its argument names."""
    writer = {"_target_": "lightning.pytorch.loggers.csv_logs.ExperimentWriter", "log_dir": "ran"}
    content[KEY]["config"]["model"]["dropout"] = writer


def test_checkpoint_config_that_builds_another_kind_is_refused(untrusted_run, fault_row, cache, tmp_path):
    tamper(untrusted_run / "best.ckpt", name_a_writer)
    fault_row.check(run("eval.py", f"checkpoint={untrusted_run}", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "ran").exists()
    instantiate({"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": str(tmp_path)})
    with pytest.raises(FERError, match="ExperimentWriter is not a logger"):
        instantiate({"_target_": "lightning.pytorch.loggers.csv_logs.ExperimentWriter", "log_dir": "ran"})


def test_a_run_folder_whose_config_names_what_to_run_is_refused(untrusted_run, fault_row, cache, tmp_path):
    config = yaml.safe_load((untrusted_run / "config.yaml").read_text())
    for node in ("model", "trainer"):
        hostile = config | {node: {**config[node], "_target_": "os.mkdir", "path": "ran"}}
        (untrusted_run / "config.yaml").write_text(yaml.safe_dump(hostile))
        fault_row.check(run("train.py", f"resume={untrusted_run}", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "ran").exists()


PLACES = {
    "callbacks": {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": "/home/me"},
    "logger": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": ".", "name": "../../out"},
}


@pytest.mark.parametrize("group", PLACES)
def test_run_folder_that_writes_elsewhere_is_refused(group, untrusted_run, fault_row, cache, tmp_path):
    record = json.loads((untrusted_run / "run.json").read_text())
    (untrusted_run / "run.json").write_text(json.dumps(record | {"state": "interrupted"}))
    config = yaml.safe_load((untrusted_run / "config.yaml").read_text())
    config[group]["evil"] = PLACES[group]
    (untrusted_run / "config.yaml").write_text(yaml.safe_dump(config))
    fault_row.check(run("train.py", f"resume={untrusted_run}", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "out").exists()


def test_a_run_folder_whose_config_reads_the_environment_is_refused(
    untrusted_run, fault_row, cache, tmp_path
):
    config = (untrusted_run / "config.yaml").read_text()
    (untrusted_run / "config.yaml").write_text(
        config.replace("monitor: val/acc", "monitor: ${oc.env:SECRET}")
    )
    fault_row.check(
        run("train.py", f"resume={untrusted_run}", cwd=tmp_path, cache=cache, SECRET="dont-leak-8c1")
    )
    assert not [
        path for path in untrusted_run.rglob("*") if path.is_file() and b"dont-leak" in path.read_bytes()
    ]


CONFIGS = {
    "laughs": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "tag": "model: !!python/object/apply:os.mkdir [ran]\n",
    "number": "3\n",
    "broken": "model: [\n",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_file_that_is_none_is_refused(kind, fault_row, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(CONFIGS[kind])
    with pytest.raises(FERError) as caught:
        read_config(tmp_path / "config.yaml")
    fault_row.check_text(str(caught.value))
    assert not (tmp_path / "ran").exists()


def write_sweep(folder, *, overrides=("model=mlp",), hydra=()):
    folder.mkdir()
    record = {"schema": 1, "state": "failed", "overrides": list(overrides), "hydra": list(hydra)}
    (folder / "sweep.json").write_text(json.dumps(record))


def test_a_sweep_folder_that_names_what_to_run_is_refused(fault_row, cache, tmp_path):
    callback = ["+hydra.callbacks.x._target_=os.mkdir", "+hydra.callbacks.x.path=ran"]
    write_sweep(tmp_path / "sweep", hydra=callback)
    fault_row.check(run("train.py", "resume=sweep", cwd=tmp_path, cache=cache))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.x._target_=os.mkdir",
        "--config-dir=/tmp/evil",
        "+model=../../../tmp/evil",
        "data/../hydra/launcher=evil",
        "logger.wandb.notes=${oc.env:WANDB_API_KEY}",
        "logger@hydra.callbacks=csv",
        "run_dir=/home/me",
        "data.cache_dir=/home/me",
        "logger.wandb.entity=evil",
        "+callbacks.x._target_=os.mkdir",
        "+callbacks.x.dirpath=/home/me",
        "trust=[evil]",
        "model._target_=torch.load,os.mkdir",
        "callbacks={x:{_target_:os.mkdir,path:ran}}",
        "+model.hidden=[{'_target_':os.mkdir}]",
    ],
)
def test_what_a_sweep_folder_names_is_followed_only_where_it_is_a_setting(
    override, fault_row, tmp_path, capsys
):
    write_sweep(tmp_path / "sweep", overrides=["model=mlp", override])
    with pytest.raises(SystemExit):
        expand_resume([f"resume={tmp_path}/sweep"])
    fault_row.check_text(capsys.readouterr().err)


@pytest.mark.parametrize(
    "override",
    [
        "hydra.launcher.setup=[touch ran]",
        "hydra.launcher.partition=gpu\ntouch ran\n",
        "hydra.launcher.account=evil",
        "hydra.launcher.ray.init.address=evil",
    ],
    ids=["setup", "line", "account", "address"],
)
def test_launcher_settings_of_a_sweep_folder_run_no_command(override, fault_row, tmp_path, capsys):
    write_sweep(
        tmp_path / "sweep", overrides=["model=mlp"], hydra=["hydra/launcher=submitit_slurm", override]
    )
    with pytest.raises(SystemExit):
        expand_resume([f"resume={tmp_path}/sweep"])
    fault_row.check_text(capsys.readouterr().err)


def test_launcher_settings_of_a_sweep_folder_are_followed(tmp_path):
    settings = [
        *(
            "hydra/launcher=submitit_slurm",
            "hydra.launcher.array_parallelism=4",
            "hydra.launcher.partition=gpu",
        ),
        *("hydra.launcher.gres=gpu:a100:1", "hydra.launcher.gpus_per_node=null"),
    ]
    write_sweep(tmp_path / "sweep", overrides=["model=mlp"], hydra=settings)
    assert set(settings) <= set(expand_resume([f"resume={tmp_path}/sweep"]))


def test_a_log_that_leads_out_of_the_run_folder_is_refused(untrusted_run, fault_row, cache, tmp_path):
    (tmp_path / "thesis.tex").write_text("years")
    (untrusted_run / "train.log").unlink()
    (untrusted_run / "train.log").symlink_to(tmp_path / "thesis.tex")
    fault_row.check(run("train.py", f"resume={untrusted_run}", cwd=tmp_path, cache=cache))
    assert (tmp_path / "thesis.tex").read_text() == "years"


def test_a_state_that_does_not_fit_its_run_is_refused(untrusted_run, fault_row, cache, tmp_path):
    tamper(untrusted_run / "last.ckpt", lambda content: content["loops"].update(fit_loop=7))
    fault_row.check(run("train.py", f"resume={untrusted_run}", cwd=tmp_path, cache=cache))


def test_a_checkpoint_without_a_data_set_is_refused(untrusted_run, fault_row, cache, tmp_path):
    tamper(untrusted_run / "best.ckpt", lambda content: content[KEY]["config"].pop("data") and None)
    fault_row.check(run("eval.py", f"checkpoint={untrusted_run}", cwd=tmp_path, cache=cache))


def test_a_network_that_no_memory_holds_is_refused(fault_row, cache, tmp_path):
    huge = ("model=mlp", "model.hidden=[1000000000000]", *TINY, "logger=none")
    fault_row.check(run("train.py", *huge, cwd=tmp_path, cache=cache))


TARGETS = (
    *("torch.load", "torch.hub.load", "builtins.open", "pandas.read_pickle", "builtins.eval", "os.system"),
)


@pytest.mark.parametrize("target", TARGETS)
def test_target_off_the_list_in_a_file_is_refused(target, fault_row):
    for node in ({"_target_": target}, {"_target_": "torch.optim.SGD", "params": [{"_target_": target}]}):
        with pytest.raises(FERError) as caught:
            instantiate({**node, "_partial_": True, "_args_": ["ran"]})
        fault_row.check_text(str(caught.value))


ENDLESS = {
    "repeated": lambda content: content[KEY].update(
        trained_on=torch.zeros(1, dtype=torch.int64).expand(10**12)
    ),
    "nested": lambda content: content.update(callbacks=laugh()),
    "deep": lambda content: content.update(callbacks=deep()),
    "layers": lambda content: content[KEY]["config"]["model"].update(hidden=[1] * 100_000),
    "side": lambda content: content[KEY]["config"]["model"].update(image_size=60_000),
    "wide": lambda content: content[KEY]["config"]["model"].update(hidden=[10**9]),
    "large": lambda content: content[KEY]["config"]["model"].update(hidden=[60_000, 60_000, 60_000]),
}


def laugh():
    """A list that means ten to the twelfth values, in twelve lists."""
    node = ["ha"] * 10
    for _ in range(11):
        node = [node] * 10
    return node


def deep():
    node = []
    for _ in range(150):
        node = [node]
    return node


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_is_small_on_the_disk_and_endless_in_memory_is_refused(kind, untrusted_run, fault_row):
    tamper(untrusted_run / "best.ckpt", ENDLESS[kind])
    with pytest.raises(FERError) as caught:
        load_classifier(untrusted_run / "best.ckpt")
    fault_row.check_text(str(caught.value))


def test_a_packed_checkpoint_is_not_unpacked(untrusted_run, fault_row, cache, tmp_path):
    path = untrusted_run / "best.ckpt"
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    largest = max(parts, key=lambda name: len(parts[name]))
    parts[largest] = bytes(200_000_000)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert path.stat().st_size < 1_000_000
    fault_row.check(run("eval.py", f"checkpoint={untrusted_run}", cwd=tmp_path, cache=cache))


def renamed_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "no checkpoint")
    return buffer.getvalue()


def foreign():
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.ones(2)}, "epoch": 3}, buffer)
    return buffer.getvalue()


FILES = {
    "truncated": lambda good: good[: len(good) // 2],
    "zero-byte": lambda good: b"",
    "zip": lambda good: renamed_zip(),
    "foreign": lambda good: foreign(),
}


@pytest.mark.parametrize("kind", FILES)
def test_what_is_no_checkpoint_of_ours_is_refused(kind, untrusted_run, fault_row, cache, tmp_path):
    (untrusted_run / "best.ckpt").write_bytes(FILES[kind]((untrusted_run / "best.ckpt").read_bytes()))
    if kind == "truncated":
        fault_row.check(run("eval.py", f"checkpoint={untrusted_run}", cwd=tmp_path, cache=cache))
        return
    with pytest.raises(FERError) as caught:
        load_classifier(untrusted_run / "best.ckpt")
    fault_row.check_text(f"error: {caught.value}")


def test_another_model_s_checkpoint_is_refused(untrusted_run, fault_row, cache, tmp_path):
    done = run(
        "train.py", *SMALL, "model.hidden=[8]", f"init_from={untrusted_run}", cwd=tmp_path, cache=cache
    )
    fault_row.check(done)


def test_a_report_of_what_no_run_wrote_is_refused(untrusted_run, fault_row, cache, tmp_path):
    metrics = json.loads((untrusted_run / "metrics.json").read_text())
    (untrusted_run / "metrics.json").write_text(json.dumps(metrics | {"test": "<script>"}))
    fault_row.check(run("-m", "fer_lightning.report", untrusted_run, cwd=tmp_path, cache=cache))


# Archives, pictures and tables


def face(level=100, side=48):
    pixels = np.full((side, side), level, np.uint8)
    pixels[0, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")


def faces():
    """A small FER-2013 as its zip holds it."""
    members = {}
    for number, name in enumerate(CLASSES):
        members[f"train/{name}/Training_{number}.png"] = face(20 + number)
        members[f"test/{name}/PublicTest_{number}.png"] = face(60 + number)
        members[f"test/{name}/PrivateTest_{number}.png"] = face(90 + number)
    return members


def write_zip(path, members, **settings):
    with zipfile.ZipFile(path, "w", **settings) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def outside(path):
    write_zip(path, faces() | {"../../escaped.png": face()})


def absolute(path):
    write_zip(path, faces() | {"/escaped.png": face()})


def link(path):
    entry = zipfile.ZipInfo("train/happy/link.png")
    entry.external_attr = 0o120777 << 16
    write_zip(path, faces())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc/passwd")


def bomb(path):
    write_zip(path, faces() | {"train/happy/bomb.png": bytes(300_000_000)}, compression=zipfile.ZIP_DEFLATED)


def bzip2_bomb(path):
    write_zip(path, faces() | {"train/happy/bomb.png": bytes(300_000_000)}, compression=zipfile.ZIP_BZIP2)


def twice(path):
    write_zip(path, faces())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("train/happy/Training_3.png", face(5))


def encrypted(path):
    write_zip(path, faces())
    content = bytearray(path.read_bytes())
    start = 0
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = 0
        while (start := content.find(mark, start)) >= 0:
            content[start + flags] |= 1
            start += 4
    path.write_bytes(content)


def image_bomb(path):
    giant = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(giant, "PNG")
    write_zip(path, faces() | {"train/happy/Training_3.png": giant.getvalue()})


def bad_header(path):
    write_zip(path, faces() | {"train/happy/Training_3.png": face()[:20] + b"\xff" * 40})


def deep_path(path):
    write_zip(path, faces() | {"a/" * 30_000 + "a.png": face()})


def controls(path):
    write_zip(path, faces() | {"train/happy/\x1b]0;owned\x07.png": b"no picture"})


ARCHIVES = (
    outside,
    absolute,
    link,
    bomb,
    bzip2_bomb,
    twice,
    encrypted,
    image_bomb,
    bad_header,
    deep_path,
    controls,
)


def train_on(path, *, cwd, cache):
    small = ("model=mlp", "data=fer2013", f"data.root={path}", "logger=none", "trainer=smoke")
    return run("train.py", *small, cwd=cwd, cache=cache)


def refusal_of(path, cache):
    """What train.py says of a data set, in this process."""
    with pytest.raises(FERError) as caught:
        load_faces(open_fer2013(root=path, classes=CLASSES, image_size=48), cache_dir=cache, log=print)
    return f"error: {caught.value}"


@pytest.mark.parametrize(
    "build", slow_except((outside, link, bomb, bad_header), ARCHIVES), ids=lambda build: build.__name__
)
def test_a_hostile_archive_is_refused(build, fault_row, cache, tmp_path):
    build(tmp_path / "archive.zip")
    if build in (outside, image_bomb, controls):
        done = train_on("archive.zip", cwd=tmp_path, cache=cache)
        fault_row.check(done)
        assert not set("\x1b\x07") & set(done.stdout + done.stderr)  # a terminal would obey
    else:
        fault_row.check_text(refusal_of(tmp_path / "archive.zip", tmp_path / "cache"))
    assert not list(tmp_path.parent.rglob("escaped.png"))


@pytest.mark.parametrize("kind", ["nul", "latin", "giant"])
def test_a_hostile_table_is_refused(kind, fault_row, cache, tmp_path):
    row = "0," + " ".join(["7"] * 2304) + ",Training\n"
    body = {
        "nul": row.replace("7", "\0", 1).encode(),
        "latin": row.replace("Training", "Trainé").encode("latin-1"),
        "giant": row.replace("7", "7" * 50_000_000, 1).encode(),
    }
    (tmp_path / "fer2013.csv").write_bytes(b"emotion,pixels,Usage\n" + body[kind])
    if kind == "giant":
        fault_row.check(train_on("fer2013.csv", cwd=tmp_path, cache=cache))
    else:
        fault_row.check_text(refusal_of(tmp_path / "fer2013.csv", tmp_path / "cache"))


# Pages and keys


def test_names_and_replies_never_become_markup(fault_row, cache, tmp_path):
    attack = "<img src=x onerror=alert(1)>"
    for number, name in enumerate(("happy", "sad")):
        folder = tmp_path / "faces" / name
        folder.mkdir(parents=True)
        for copy in range(12):
            (folder / f"{attack}{copy}.png").write_bytes(face(10 + 30 * number + copy))
    with ChatServer(lambda image, count: say(f"{attack} happy")) as server:
        done = run(
            "eval.py", "predictor=llm", f'predictor.model="{attack}"', f"predictor.base_url={server.url}",
            "sample=1", "data=image_folder", "data.root=faces", "data.classes=[happy,sad]",
            "data.num_classes=2", "hydra.run.dir=run", cwd=tmp_path, cache=cache,
        )  # fmt: skip
    fault_row.check(done)
    page = (tmp_path / "run/report.html").read_text()
    assert "&lt;img src=x" in page
    assert "<img src=x" not in page
    assert "default-src 'none'" in page  # the browser may load nothing


KEY_OF_OURS = "sk-dont-leak-3fa9c07b51"


def test_api_key_appears_in_no_file_and_no_output(fault_row, cache, tmp_path):
    keys = {"MY_KEY": KEY_OF_OURS, "WANDB_API_KEY": KEY_OF_OURS.replace("sk-", "").ljust(40, "0")}
    said = []
    with ChatServer(lambda image, count: say("happy")) as server:
        asked = (
            *("eval.py", "predictor=llm", "predictor.model=m", "predictor.api_key_env=MY_KEY", "sample=1"),
            *(*TINY[:-1], f"predictor.base_url={server.url}"),
        )
        said.append(succeed(*asked, "hydra.run.dir=asked", cwd=tmp_path, cache=cache, **keys))
    with ChatServer(lambda image, count: fail(401, f"no such key: {KEY_OF_OURS}")) as server:
        refused = (*asked[:-1], f"predictor.base_url={server.url}", "hydra.run.dir=refused")
        said.append(run(*refused, cwd=tmp_path, cache=cache, **keys))
    escaped = KEY_OF_OURS.replace("-", "\\u002D")
    answer = Answer(f'{{"error": {{"message": "no such key: {escaped}"}}}}', 401)
    with ChatServer(lambda image, count: answer) as server:
        refused = (*asked[:-1], f"predictor.base_url={server.url}", "hydra.run.dir=escaped")
        said.append(run(*refused, cwd=tmp_path, cache=cache, **keys))
    assert "no such key: ***" in said[-1].stderr
    said.append(
        succeed(
            "train.py",
            *[part for part in SMALL if part != "logger=none"],
            "trainer=smoke",
            "hydra.run.dir=trained",
            cwd=tmp_path,
            cache=cache,
            WANDB_MODE="offline",
            **keys,
        )
    )
    fault_row.check(said[1])
    written = [path for place in (tmp_path, cache) for path in place.rglob("*") if path.is_file()]
    assert len(written) > 20
    for secret in keys.values():
        assert not [path for path in written if secret.encode() in path.read_bytes()]
        parts = [part.encode() for part in secret.split("-") if len(part) > 8]
        assert not [path for path in written if any(part in path.read_bytes() for part in parts)]
        assert not [done for done in said if secret in done.stdout + done.stderr]


def test_setting_from_a_secret_of_the_environment_is_refused(fault_row, cache, tmp_path):
    words = ("train.py", *SMALL, "+callbacks.x=${oc.env:MY_API_KEY}", "hydra.run.dir=run")
    done = run(*words, cwd=tmp_path, cache=cache, MY_API_KEY=KEY_OF_OURS)
    fault_row.check(done)
    assert KEY_OF_OURS not in done.stdout + done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", [["+callbacks.x=${oc.env:MY_API_KEY}"], ["hydra.sweep.dir=s_${oc.env:MY_API_KEY}"]]
)
def test_sweep_writes_no_secret_before_it_refuses_it(words, cache, tmp_path):
    arguments = ("train.py", "-m", *SMALL, *words, "seed=0,1")
    done = run(*arguments, cwd=tmp_path, cache=cache, MY_API_KEY=KEY_OF_OURS)
    assert done.returncode == 1
    assert "holds the value of $MY_API_KEY" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_server_that_sends_a_byte_at_a_time_ends_at_the_timeout(fault_row, cache, tmp_path):
    def trickle():
        yield b"HTTP/1.1 200 OK\r\nX-Slow: "
        yield from itertools.repeat(b"a")

    with RawServer(trickle) as server:
        words = ("predictor=llm", "predictor.model=m", f"predictor.base_url={server.url}", "sample=1")
        limits = ("predictor.timeout=0.5", "predictor.max_retries=0", "predictor.concurrency=8")
        done = run("eval.py", *words, *limits, *TINY[:-1], cwd=tmp_path, cache=cache, timeout=60)
    fault_row.check(done)


def test_a_checkpoint_of_this_project_is_not_refused(trained):
    assert read_checkpoint(trained / "last.ckpt")
    assert load_classifier(trained / "best.ckpt")
