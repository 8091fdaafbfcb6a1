import json
import os
import threading

import pytest

from fer_lightning.core.files import remove_partials, replacing, write_atomically, write_json


def test_a_reader_never_sees_half_a_file(tmp_path):
    path, seen, done = tmp_path / "a.json", [], threading.Event()
    texts = ["a" * 200_000, "b" * 300_000]
    write_atomically(path, texts[0])

    def read():
        while not done.is_set():
            seen.append(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        write_atomically(path, texts[number % 2])
    done.set()
    reader.join()
    assert len(set(seen)) <= 2
    assert set(seen) <= set(texts)


def test_a_write_that_fails_leaves_the_former_file_and_no_debris(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"a": 1})

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {"a": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": [value]})
    assert not list(tmp_path.iterdir())


def test_letters_beyond_ascii_stay_readable(tmp_path):
    write_json(tmp_path / "a.json", {"class": "überrascht"})
    assert "überrascht" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_previous_file_is_kept_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_interrupted_write_keeps_the_previous_file_and_leaves_no_debris(tmp_path):
    def interrupted(path):
        with replacing(path) as file:
            file.write(b"half of it")
            raise KeyboardInterrupt

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_of_hidden_files_only_what_a_killed_run_left_is_removed(tmp_path):
    theirs = [tmp_path / ".zcompdump-host-5.8", tmp_path / "other/.last.ckpt.77", tmp_path / ".config.yaml"]
    ours = [tmp_path / ".last.ckpt.4711", tmp_path / "figures/.samples.png.1", tmp_path / ".run.json.23"]
    for path in (*theirs, *ours):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    remove_partials(tmp_path)
    assert all(path.exists() for path in (*theirs, *ours)), "this is no run's folder"
    (tmp_path / "run.json").touch()
    remove_partials(tmp_path)
    assert all(path.exists() for path in theirs)
    assert not any(path.exists() for path in ours)
