import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data import locate as locate_module
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.locate import locate

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
    synthetic = {**shared, "name": "synthetic", "source": {"_target_": "Synthetic", "num_train": 7000}}
    if name == "synthetic":
        return synthetic | changes
    found = {**shared, "name": name, "source": {"_target_": "fer"}}
    return (found | {"fallback": synthetic} if name == "auto" else found) | changes


class Kaggle:
    """Stands for Kaggle and for kagglehub; the real ones are never asked."""

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


Say = Callable[[str], None]


@pytest.mark.parametrize("name", ["auto", "fer2013"])
def test_a_given_root_is_used_and_becomes_absolute(
    forms: Any, say: Say, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms.zip()
    monkeypatch.chdir(forms.root)
    found = locate(node(name, root="archive.zip", batch_size=32), say=say)
    expected = node("fer2013", root=str(forms.root / "archive.zip"), batch_size=32)
    del expected["download"]
    assert found == expected


@pytest.mark.parametrize("name", ["auto", "fer2013"])
def test_places_are_tried_in_their_order(
    forms: Any, say: Say, local: Path, kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    kaggle.answers, kaggle.result = True, forms.folder("downloaded")
    assert locate(node(name), say=say)["root"] == str(forms.root / "downloaded")
    assert kaggle.handles == ["msambare/fer2013"]
    forms.zip().rename(local / "any name.zip")
    assert locate(node(name), say=say)["root"] == str(local)
    monkeypatch.setenv("FER2013_ROOT", str(forms.csv()))
    assert locate(node(name), say=say)["root"] == str(forms.root / "fer2013.csv")
    assert locate(node(name, root=str(forms.icml_csv())), say=say)["root"].endswith("icml_face_data.csv")
    assert len(kaggle.handles) == 1


@pytest.mark.parametrize("name", ["auto", "fer2013"])
@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("data.root", "missing"),
        ("data.root", "holiday pictures"),
        ("FER2013_ROOT", "missing"),
        ("FER2013_ROOT", "holiday pictures"),
        ("data/fer2013", "holiday pictures"),
    ],
)
def test_a_place_that_holds_nothing_usable_is_an_error(
    tmp_path: Path, say: Say, local: Path, monkeypatch: pytest.MonkeyPatch, name: str, origin: str, kind: str
) -> None:
    place = local if origin == "data/fer2013" else tmp_path / "place"
    if kind != "missing":
        place.mkdir(exist_ok=True)
        (place / "beach.jpg").write_bytes(b"x")
    if origin == "FER2013_ROOT":
        monkeypatch.setenv("FER2013_ROOT", str(place))
    with pytest.raises(FERError) as caught:
        locate(node(name, root=str(place) if origin == "data.root" else None), say=say)
    message = str(caught.value)
    assert message.startswith(f"{origin}: {place}: ")
    assert "looked for train/<class>/" in message
    assert ("found beach.jpg" in message) == (kind != "missing")
    assert all(way in message for way in THREE_WAYS)


def test_an_empty_local_folder_is_passed_over(say: Say, local: Path) -> None:
    (local / ".gitkeep").touch()
    assert locate(node("auto"), say=say)["name"] == "synthetic"


def test_auto_falls_back_to_synthetic_faces_loudly(say: Say, said: list[str]) -> None:
    found = locate(node("auto", batch_size=32, on_bad="skip"), say=say)
    expected = node("synthetic", batch_size=32, on_bad="skip")
    del expected["download"]
    assert found == expected
    (sentence,) = said
    assert "SYNTHETIC" in sentence
    assert all(way in sentence for way in THREE_WAYS)


def test_the_fallback_keeps_its_own_settings_where_the_user_named_none(say: Say) -> None:
    asked = node("auto", batch_size=32, on_bad="skip")
    asked["fallback"]["batch_size"] = 256
    found = locate(asked, say=say, given={"on_bad"})
    assert (found["batch_size"], found["on_bad"]) == (256, "skip")


def test_what_describes_the_fallback_itself_is_not_overridden(say: Say) -> None:
    asked = node("auto", classes=["happy"], num_classes=1, image_size=64)
    found = locate(asked, say=say)
    assert (found["num_classes"], found["image_size"], len(found["classes"])) == (7, 48, 7)
    assert found["source"]["_target_"] == "Synthetic"


def test_fer2013_insists_and_lists_every_place(say: Say, tmp_path: Path) -> None:
    with pytest.raises(FERError) as caught:
        locate(node("fer2013"), say=say)
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


def test_a_download_can_be_forbidden(say: Say, said: list[str], kaggle: Kaggle) -> None:
    kaggle.answers = True
    assert locate(node("auto", download=False), say=say)["name"] == "synthetic"
    assert kaggle.handles == []
    assert "data.download=false forbids a download" in said[-1]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (ConnectionError("reset\n by peer"), "reset by peer"),
        ("nowhere", "no such file"),
        (KeyError(), "KeyErr"),
    ],
)
def test_a_failed_download_is_a_sentence_and_not_a_crash(
    say: Say, said: list[str], kaggle: Kaggle, result: Any, reason: str
) -> None:
    kaggle.answers, kaggle.result = True, result
    assert locate(node("auto"), say=say)["name"] == "synthetic"
    assert "no download from Kaggle (" in said[-1]
    assert reason in said[-1]


def test_a_missing_kagglehub_is_a_failed_download(
    say: Say, said: list[str], kaggle: Kaggle, monkeypatch: pytest.MonkeyPatch
) -> None:
    kaggle.answers = True
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert locate(node("auto"), say=say)["name"] == "synthetic"
    assert "no download from Kaggle (import of kagglehub" in said[-1]


def test_an_earlier_download_is_used_without_network(forms: Any, say: Say) -> None:
    cache = forms.root / "kagglehub/datasets/msambare/fer2013"
    copy = forms.folder("kagglehub/datasets/msambare/fer2013/versions/1")
    assert locate(node("auto"), say=say)["name"] == "synthetic"  # half downloaded: not marked as complete
    (cache / "1.complete").touch()
    assert locate(node("auto"), say=say)["root"] == str(copy)


@pytest.mark.parametrize("blocked", ["getaddrinfo", "create_connection"])
def test_a_dead_network_costs_three_seconds_at_most(monkeypatch: pytest.MonkeyPatch, blocked: str) -> None:
    monkeypatch.undo()  # the real connection test, on a network that never answers
    monkeypatch.setattr(locate_module, "CONNECT_SECONDS", 0.1)

    def never(*_: Any, **__: Any) -> None:
        time.sleep(1)
        raise TimeoutError

    monkeypatch.setattr(socket, blocked, never)
    started = time.monotonic()
    assert not locate_module._kaggle_answers()
    assert time.monotonic() - started < 0.6


def test_an_answering_network_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    here, there = socket.socketpair()
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: here)
    assert locate_module._kaggle_answers()
    there.close()


def test_an_image_folder_needs_a_root(say: Say, tmp_path: Path) -> None:
    with pytest.raises(FERError, match=r"^data\.root: missing, data=image_folder needs"):
        locate(node("image_folder"), say=say)
    with pytest.raises(FERError, match=r"^data\.root=nowhere: no such file or folder"):
        locate(node("image_folder", root="nowhere"), say=say)
    found = locate(node("image_folder", root=".."), say=say)
    assert Path(found["root"]).is_absolute()
    assert Path(found["root"]).samefile(tmp_path)
    assert "download" not in found


def test_synthetic_faces_pass_through_and_have_no_root(say: Say, said: list[str]) -> None:
    found = locate(node("synthetic"), say=say)
    assert found["name"] == "synthetic"
    assert "download" not in found
    assert said == []
    with pytest.raises(FERError, match=r"^data\.root=x: synthetic faces have no root"):
        locate(node("synthetic", root="x"), say=say)


def test_the_config_that_was_given_is_not_changed(say: Say) -> None:
    asked = node("auto")
    locate(asked, say=say)
    assert asked == node("auto")
