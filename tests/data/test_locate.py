import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fer_lightning.config.instantiate import instantiate
from fer_lightning.config.resolve import register_resolvers
from fer_lightning.core.errors import FERError
from fer_lightning.data import locate as locate_module
from fer_lightning.data.faces import Log
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.locate import SYNTHETIC_SOURCE, locate
from fer_lightning.data.synthetic.source import SyntheticFaces
from tests.config.test_conf import EXPERIMENTS, composed

THREE_WAYS = ("data/fer2013/archive.zip", "kagglehub", "icml_face_data.csv")


def node(name: str, **changes: Any) -> dict[str, Any]:
    shared = {
        "_target_": "fer_lightning.data.datamodule.FERDataModule",
        "root": None,
        "download": True,
        "classes": list(EXPRESSIONS),
        "num_classes": 7,
        "image_size": 48,
        "batch_size": 64,
        "on_bad": "error",
    }
    return {**shared, "name": name, "source": {"_target_": "fer"}} | changes


class Kaggle:
    """Fake Kaggle and kagglehub; the real ones are never used."""

    answers = False
    result: Any = None
    handles: list[str]

    def dataset_download(self, handle: str) -> str:
        self.handles.append(handle)
        if isinstance(self.result, Exception):
            raise self.result
        return str(self.result)


@pytest.fixture(autouse=True)
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kaggle:
    kaggle = Kaggle()
    kaggle.handles = []
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.delenv("FER2013_ROOT", raising=False)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.setattr(locate_module, "_kaggle_answers", lambda: kaggle.answers)
    module = SimpleNamespace(dataset_download=kaggle.dataset_download)
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return kaggle


@pytest.fixture
def local(tmp_path: Path) -> Path:
    folder = tmp_path / "work" / "data" / "fer2013"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["auto", "fer2013"])
def test_given_root_is_used_and_becomes_absolute(
    forms: Any, log: Log, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms.zip()
    monkeypatch.chdir(forms.root)
    found = locate(node(name, root="archive.zip", batch_size=32), log=log)
    expected = node("fer2013", root=str(forms.root / "archive.zip"), batch_size=32)
    del expected["download"]
    assert found == expected


@pytest.mark.parametrize("name", ["auto", "fer2013"])
def test_places_are_tried_in_order(
    forms: Any, log: Log, local: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kaggle.answers, kaggle.result = True, forms.folder("downloaded")
    assert locate(node(name), log=log)["root"] == str(forms.root / "downloaded")
    assert kaggle.handles == ["msambare/fer2013"]
    forms.zip().rename(local / "any name.zip")
    assert locate(node(name), log=log)["root"] == str(local)
    monkeypatch.setenv("FER2013_ROOT", str(forms.csv()))
    assert locate(node(name), log=log)["root"] == str(forms.root / "fer2013.csv")
    assert locate(node(name, root=str(forms.icml_csv())), log=log)["root"].endswith("icml_face_data.csv")
    assert len(kaggle.handles) == 1


@pytest.mark.parametrize("name", ["auto", "fer2013"])
@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("data.root", "missing"),
        ("data.root", "holiday photos"),
        ("FER2013_ROOT", "missing"),
        ("FER2013_ROOT", "holiday photos"),
        ("data/fer2013", "holiday photos"),
    ],
)
def test_place_without_usable_data_is_an_error(
    tmp_path: Path, log: Log, local: Path, monkeypatch: pytest.MonkeyPatch, name: str, origin: str, kind: str
) -> None:
    place = local if origin == "data/fer2013" else tmp_path / "place"
    if kind != "missing":
        place.mkdir(exist_ok=True)
        (place / "beach.jpg").write_bytes(b"x")
    if origin == "FER2013_ROOT":
        monkeypatch.setenv("FER2013_ROOT", str(place))
    with pytest.raises(FERError) as caught:
        locate(node(name, root=str(place) if origin == "data.root" else None), log=log)
    message = str(caught.value)
    assert message.startswith(f"{origin}: {place}: ")
    assert "looked for train/<class>/" in message
    assert ("found beach.jpg" in message) == (kind != "missing")
    assert all(way in message for way in THREE_WAYS)


def test_empty_local_folder_is_skipped(log: Log, local: Path) -> None:
    (local / ".gitkeep").touch()
    assert locate(node("auto"), log=log)["name"] == "synthetic"


def test_auto_falls_back_to_synthetic_faces_with_a_warning(log: Log, logged: list[str]) -> None:
    found = locate(node("auto", batch_size=32, on_bad="skip"), log=log)
    expected = node("synthetic", batch_size=32, on_bad="skip", source=SYNTHETIC_SOURCE)
    del expected["download"]
    assert found == expected
    (sentence,) = logged
    assert "SYNTHETIC" in sentence
    assert all(way in sentence for way in THREE_WAYS)


@pytest.mark.parametrize("experiment", [(), *((f"experiment={name}",) for name in EXPERIMENTS)])
def test_fallback_changes_only_name_source_and_root(
    forms: Any, log: Log, experiment: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    register_resolvers()
    asked = composed("train", *experiment, "data=auto")["data"] | {"download": False}
    synthetic = locate(asked, log=log)
    monkeypatch.setenv("FER2013_ROOT", str(forms.zip()))
    fer2013 = locate(asked, log=log)
    assert synthetic.keys() == fer2013.keys()
    differing = {key for key in fer2013 if synthetic[key] != fer2013[key]}
    assert differing == {"name", "source", "root"}
    assert (synthetic["name"], synthetic["root"]) == ("synthetic", None)
    assert (fer2013["name"], fer2013["root"]) == ("fer2013", str(forms.root / "archive.zip"))


def test_fallback_source_is_buildable_with_its_defaults(log: Log) -> None:
    found = locate(node("auto"), log=log)
    source = instantiate(found["source"])(root=None, classes=found["classes"], image_size=48)
    default = SyntheticFaces(classes=EXPRESSIONS)
    assert source.cache_key() == default.cache_key()


def test_fer2013_not_found_lists_every_place_tried(log: Log, tmp_path: Path) -> None:
    with pytest.raises(FERError) as caught:
        locate(node("fer2013"), log=log)
    message = str(caught.value)
    for part in (
        "data.root is not set",
        "FER2013_ROOT is not set",
        f"{tmp_path / 'work' / 'data' / 'fer2013'} does not exist",
        "no download from Kaggle (www.kaggle.com did not answer within 3 s)",
        "data=synthetic",
        *THREE_WAYS,
    ):
        assert part in message


def test_download_can_be_forbidden(log: Log, logged: list[str], kaggle: Kaggle) -> None:
    kaggle.answers = True
    assert locate(node("auto", download=False), log=log)["name"] == "synthetic"
    assert kaggle.handles == []
    assert "data.download=false forbids a download" in logged[-1]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (ConnectionError("reset\n by peer"), "reset by peer"),
        ("nowhere", "no such file"),
        (KeyError(), "KeyErr"),
    ],
)
def test_failed_download_is_logged_and_does_not_crash(
    log: Log, logged: list[str], kaggle: Kaggle, result: Any, reason: str
) -> None:
    kaggle.answers, kaggle.result = True, result
    assert locate(node("auto"), log=log)["name"] == "synthetic"
    assert "no download from Kaggle (" in logged[-1]
    assert reason in logged[-1]


def test_missing_kagglehub_counts_as_failed_download(
    log: Log, logged: list[str], kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.answers = True
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert locate(node("auto"), log=log)["name"] == "synthetic"
    assert "no download from Kaggle (import of kagglehub" in logged[-1]


def test_earlier_download_is_used_without_network(forms: Any, log: Log) -> None:
    cache = forms.root / "kagglehub/datasets/msambare/fer2013"
    copy = forms.folder("kagglehub/datasets/msambare/fer2013/versions/1")
    assert locate(node("auto"), log=log)["name"] == "synthetic"  # half downloaded: not marked as complete
    (cache / "1.complete").touch()
    assert locate(node("auto"), log=log)["root"] == str(copy)


@pytest.mark.parametrize("blocked", ["getaddrinfo", "create_connection"])
def test_dead_network_costs_at_most_three_seconds(monkeypatch: pytest.MonkeyPatch, blocked: str) -> None:
    monkeypatch.undo()  # the real connection test, on a network that never answers
    monkeypatch.setattr(locate_module, "CONNECT_SECONDS", 0.1)

    def never(*_: Any, **__: Any) -> None:
        time.sleep(1)
        raise TimeoutError

    monkeypatch.setattr(socket, blocked, never)
    started = time.monotonic()
    assert not locate_module._kaggle_answers()
    assert time.monotonic() - started < 0.6


def test_answering_network_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    here, there = socket.socketpair()
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: here)
    assert locate_module._kaggle_answers()
    there.close()


def test_image_folder_needs_a_root(log: Log, tmp_path: Path) -> None:
    with pytest.raises(FERError, match=r"^data\.root: missing, data=image_folder needs"):
        locate(node("image_folder"), log=log)
    with pytest.raises(FERError, match=r"^data\.root=nowhere: no such file or folder"):
        locate(node("image_folder", root="nowhere"), log=log)
    found = locate(node("image_folder", root=".."), log=log)
    assert Path(found["root"]).is_absolute()
    assert Path(found["root"]).samefile(tmp_path)
    assert "download" not in found


def test_synthetic_faces_need_no_root_and_refuse_one(log: Log, logged: list[str]) -> None:
    found = locate(node("synthetic"), log=log)
    assert found["name"] == "synthetic"
    assert "download" not in found
    assert logged == []
    with pytest.raises(FERError, match=r"^data\.root=x: synthetic faces have no root"):
        locate(node("synthetic", root="x"), log=log)


def test_given_config_is_not_changed(log: Log) -> None:
    asked = node("auto")
    locate(asked, log=log)
    assert asked == node("auto")
