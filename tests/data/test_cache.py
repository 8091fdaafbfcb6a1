import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fer_lightning
from fer_lightning.core.errors import FERError
from fer_lightning.data import cache, cache_files
from fer_lightning.data.cache import load_faces
from fer_lightning.data.faces import SPLITS, Faces, Log, Record
from fer_lightning.data.labels import EXPRESSIONS
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.synthetic.source import SyntheticFaces

REAL = pytest.mark.skipif(not os.environ.get("FER2013_ROOT"), reason="needs FER2013_ROOT")


def face(level: int, bad: str | None) -> NDArray[np.uint8]:
    if bad:
        raise FERError(bad)
    return np.full((2, 2), level, np.uint8)


@dataclass
class Counted:
    """A source of twelve tiny images of two classes that counts how often it is listed."""

    bad: dict[int, str] = field(default_factory=dict)
    key: str = "key"
    classes: Sequence[str] = ("happy", "sad")
    name: str = "tiny"
    image_size: int = 2
    parallel: bool = True
    num_listed: int = 0

    def cache_key(self) -> str:
        return self.key

    def records(self) -> Iterator[Record]:
        self.num_listed += 1
        for number in range(12):
            split, label = SPLITS[number % 3], number % 2
            pixels = partial(face, number, self.bad.get(number))
            identity = f"{split}/{self.classes[label]}/{number}"
            yield Record(identity, split, label, f"faces.csv:{number}", pixels)


@pytest.fixture
def load(tmp_path: Path, log: Log) -> Callable[..., Faces]:
    return partial(load_faces, cache_dir=tmp_path / "caches", log=log)


def stored(tmp_path: Path) -> Path:
    """Return the one cache folder, and check that nothing else is left."""
    (folder,) = (entry for entry in (tmp_path / "caches").iterdir() if entry.suffix != ".lock")
    return folder


@pytest.mark.parametrize("form", ["zip", "csv", "folder"])
@pytest.mark.parametrize("strategy", ["forks", "threads"])
def test_parallel_decoding_gives_the_same_images(
    forms: Any,
    tmp_path: Path,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    strategy: str,
) -> None:
    """Forks must not share the file position of a zip that their parent opened."""

    def load() -> Faces:
        source = open_fer2013(root=getattr(forms, form)(), classes=EXPRESSIONS)
        return load_faces(source, cache_dir=Path(os.devnull), log=log)

    serial = load()
    used = []
    monkeypatch.setattr(cache, "available_cores", lambda: 3)
    monkeypatch.setattr(cache, "can_fork", lambda: strategy == "forks")
    monkeypatch.setattr(cache, "MIN_SECONDS_TO_FORK", 0)
    monkeypatch.setattr(cache, "MIN_SECONDS_TO_THREAD", 0)
    choose = cache._decode_strategy
    monkeypatch.setattr(cache, "_decode_strategy", lambda *args: used.append(choose(*args)) or used[-1])
    parallel = load()
    assert used == [(strategy, 3)]
    assert parallel.fingerprint == serial.fingerprint
    for name in ("images", "labels", "splits", "hashes", "ids"):
        assert np.array_equal(getattr(parallel, name), getattr(serial, name)), name


@pytest.mark.parametrize("form", ["zip", "csv", "icml_csv"])
def test_every_form_has_the_rows_and_fingerprint_of_the_folder(
    forms: Any, load: Callable[..., Faces], form: str
) -> None:
    folder = load(open_fer2013(root=forms.folder(), classes=EXPRESSIONS))
    other = load(open_fer2013(root=getattr(forms, form)(), classes=EXPRESSIONS))
    for name in ("images", "labels", "splits", "hashes"):
        assert np.array_equal(getattr(folder, name), getattr(other, name)), name
    assert folder.fingerprint == other.fingerprint
    assert folder.classes == other.classes == EXPRESSIONS


def test_faces_hold_every_record_in_the_documented_order(forms: Any, load: Callable[..., Faces]) -> None:
    faces = load(open_fer2013(root=forms.folder(), classes=EXPRESSIONS))
    assert faces.images.shape == (28, 48, 48)
    assert [array.dtype for array in (faces.images, faces.labels, faces.splits, faces.hashes)] == [
        np.uint8,
        np.int64,
        np.uint8,
        np.uint64,
    ]
    rows = list(zip(faces.splits.tolist(), faces.hashes.tolist(), faces.labels.tolist(), strict=True))
    assert rows == sorted(rows)
    drawn = {(u, n, f): pixels for u, n, f, pixels in forms.faces}
    for row, identity in enumerate(faces.ids.tolist()):
        split, name, file = identity.split("/")
        assert SPLITS[faces.splits[row]] == split
        assert EXPRESSIONS[faces.labels[row]] == name
        assert np.array_equal(faces.images[row], drawn[file.split("_")[0], name, file])


def test_hashes_are_equal_only_for_pixel_identical_images(forms: Any, load: Callable[..., Faces]) -> None:
    usage, name, file, _ = forms.faces[-1]
    forms.faces[-1] = (usage, name, file, forms.faces[0][3])
    faces = load(open_fer2013(root=forms.folder(), classes=EXPRESSIONS))
    values, counts = np.unique(faces.hashes, return_counts=True)
    assert counts.tolist().count(2) == 1
    first, second = np.flatnonzero(faces.hashes == values[counts == 2])
    assert np.array_equal(faces.images[first], faces.images[second])


@pytest.mark.parametrize("what", ["pixel", "label", "split"])
def test_fingerprint_depends_on_pixels_labels_and_splits(
    forms: Any, load: Callable[..., Faces], what: str
) -> None:
    before = load(open_fer2013(root=forms.csv(), classes=EXPRESSIONS)).fingerprint
    usage, name, file, pixels = forms.faces[0]
    if what == "pixel":
        pixels = pixels ^ np.eye(48, dtype=np.uint8)
    forms.faces[0] = (
        "PublicTest" if what == "split" else usage,
        "sad" if what == "label" else name,
        file,
        pixels,
    )
    assert load(open_fer2013(root=forms.csv(), classes=EXPRESSIONS)).fingerprint != before


def test_fingerprint_does_not_depend_on_the_class_order(forms: Any, load: Callable[..., Faces]) -> None:
    one, other = (
        load(open_fer2013(root=forms.csv(), classes=classes)) for classes in (EXPRESSIONS, EXPRESSIONS[::-1])
    )
    assert one.fingerprint == other.fingerprint
    assert not np.array_equal(one.labels, other.labels)


def test_second_load_maps_the_cache_and_decodes_nothing(
    load: Callable[..., Faces], logged: list[str]
) -> None:
    source = Counted()
    first, num_logged = load(source), len(logged)
    second = load(source)
    assert source.num_listed == 1
    assert len(logged) == num_logged
    assert isinstance(second.images, np.memmap)
    assert not second.images.flags.writeable
    for name in ("images", "labels", "splits", "hashes", "ids"):
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize("change", [{"key": "other"}, {"classes": ("sad", "happy")}, {"name": "other"}])
def test_changed_source_gets_a_new_cache(load: Callable[..., Faces], change: dict[str, Any]) -> None:
    load(Counted())
    changed = Counted(**change)
    load(changed)
    assert changed.num_listed == 1


def remove_images(folder: Path) -> None:
    (folder / "images.npy").unlink()


def cut_labels(folder: Path) -> None:
    (folder / "labels.npy").write_bytes((folder / "labels.npy").read_bytes()[:-8])


def zero_ids(folder: Path) -> None:
    (folder / "ids.npy").write_bytes(bytes((folder / "ids.npy").stat().st_size))


def cut_meta(folder: Path) -> None:
    (folder / "meta.json").write_text((folder / "meta.json").read_text()[:50])


def other_schema(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | {"schema": 0}))


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "images.npy").read_bytes())
    content[-100] ^= 1
    (folder / "images.npy").write_bytes(content)


def odd_meta(folder: Path) -> None:
    (folder / "meta.json").write_text(json.dumps({"schema": cache.SCHEMA, "bytes": 3}))


@pytest.mark.parametrize(
    "damage", [remove_images, cut_labels, zero_ids, cut_meta, other_schema, odd_meta, flip_a_bit]
)
def test_damaged_cache_is_rebuilt_with_a_message(
    load: Callable[..., Faces], tmp_path: Path, logged: list[str], damage: Callable[[Path], None]
) -> None:
    source = Counted()
    fingerprint = load(source).fingerprint
    damage(stored(tmp_path))
    assert load(source).fingerprint == fingerprint
    assert source.num_listed == 2
    assert any("damaged cache (" in sentence and "building it again" in sentence for sentence in logged)
    load(source)
    assert source.num_listed == 2


def test_damaged_file_is_named(load: Callable[..., Faces], tmp_path: Path, logged: list[str]) -> None:
    load(Counted())
    cut_labels(stored(tmp_path))
    load(Counted())
    damage = f"{stored(tmp_path)}: damaged cache (labels.npy has 216 bytes, expected 224)"
    assert any(sentence.startswith(damage) for sentence in logged)


def test_bad_images_are_listed_in_one_error_and_leave_no_cache(
    load: Callable[..., Faces], tmp_path: Path
) -> None:
    with pytest.raises(FERError) as caught:
        load(Counted(bad={4: "truncated image", 7: "0 bytes"}))
    summary, *listed = str(caught.value).splitlines()
    assert summary.startswith("2 bad images in tiny; ")
    assert "data.on_bad=skip" in summary
    assert listed == ["  faces.csv:4: truncated image", "  faces.csv:7: 0 bytes"]
    assert [entry.suffix for entry in (tmp_path / "caches").iterdir()] == [".lock"]


def test_only_the_first_ten_bad_images_are_listed(load: Callable[..., Faces]) -> None:
    with pytest.raises(FERError, match=r"12 bad images(?s:.*)faces.csv:9: 0 bytes\n  and 2 more$"):
        load(Counted(bad=dict.fromkeys(range(12), "0 bytes")))


def test_bad_images_are_reported_before_a_fault_they_caused(forms: Any, load: Callable[..., Faces]) -> None:
    path = forms.csv()
    path.write_text(path.read_text().replace("PublicTest", "publictest"))
    with pytest.raises(FERError, match=r"^7 bad images in fer2013(?s:.*)unknown Usage 'publictest'"):
        load(open_fer2013(root=path, classes=EXPRESSIONS))


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_source_fault_is_raised_and_leaves_no_cache(
    forms: Any, load: Callable[..., Faces], tmp_path: Path, on_bad: str
) -> None:
    path = forms.csv()
    path.write_text(path.read_text().replace("PublicTest", "Training"))
    with pytest.raises(FERError, match=r"the val split \(PublicTest\) is empty"):
        load(open_fer2013(root=path, classes=EXPRESSIONS), on_bad=on_bad)
    assert [entry.suffix for entry in (tmp_path / "caches").iterdir()] == [".lock"]


def test_skipped_images_are_reported_at_every_load(load: Callable[..., Faces], logged: list[str]) -> None:
    source = Counted(bad={4: "truncated image"})
    for _ in range(2):
        faces = load(source, on_bad="skip")
        assert len(faces) == 11
        assert faces.skipped == ("faces.csv:4: truncated image",)
        assert logged[-1].startswith("data.on_bad=skip: ")
        assert "1 of 12 images of tiny" in logged[-1]
        assert logged[-1].endswith("faces.csv:4: truncated image")
    assert source.num_listed == 1
    with pytest.raises(FERError, match="1 bad image in tiny"):  # the cache of `skip` does not serve `error`
        load(source)


def test_csv_row_with_unknown_label_can_be_skipped(forms: Any, load: Callable[..., Faces]) -> None:
    path = forms.csv()
    path.write_text(path.read_text().replace("\n0,", "\n9,", 1))
    faces = load(open_fer2013(root=path, classes=EXPRESSIONS), on_bad="skip")
    assert len(faces) == 27
    assert faces.skipped[0].startswith(f"{path}:2: unknown label '9'")


def test_skipping_must_not_empty_a_class_of_a_split(load: Callable[..., Faces]) -> None:
    with pytest.raises(
        FERError, match="class sad is left in the val split of tiny;.* 2 .*faces.csv:1: 0 bytes"
    ):
        load(Counted(bad={1: "0 bytes", 7: "0 bytes"}), on_bad="skip")


def test_duplicate_id_is_an_assertion_error(
    load: Callable[..., Faces], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = list(Counted().records())
    monkeypatch.setattr(Counted, "records", lambda _: iter([*records, records[0]]))
    with pytest.raises(AssertionError, match="not unique"):
        load(Counted())


def test_unusable_cache_dir_leaves_the_images_in_memory(tmp_path: Path, logged: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    faces = load_faces(Counted(), cache_dir=tmp_path / "file" / "caches", log=logged.append)
    assert len(faces) == 12
    assert not faces.images.flags.writeable
    assert logged[0].startswith(
        f"data.cache_dir={tmp_path / 'file' / 'caches'}: cannot be written (Not a dir"
    )


def test_full_disk_leaves_the_images_in_memory_and_no_files(
    load: Callable[..., Faces], tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Any, array: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache_files, "_save", full)
    assert len(load(Counted())) == 12
    assert "cannot be written (No space left on device); the images are kept in memory" in logged[-1]
    assert [entry.suffix for entry in (tmp_path / "caches").iterdir()] == [".lock"]


SCRIPT = """
import os, sys, time
from pathlib import Path
import numpy as np
from fer_lightning.data import cache_files as cache
from fer_lightning.data.cache import load_faces
from fer_lightning.data.readers.fer2013 import open_fer2013
from fer_lightning.data.labels import EXPRESSIONS

root, caches, mode = sys.argv[1:]
save = cache._save
def slow(file, array):
    if mode == "die" and array.dtype == np.int64:
        file.write(b"half"); file.flush()
        os._exit(9)
    time.sleep(0.1)
    save(file, array)
cache._save = slow
faces = load_faces(open_fer2013(root=root, classes=EXPRESSIONS), cache_dir=Path(caches), log=print)
print("fingerprint", len(faces), faces.fingerprint)
"""


def start(root: Path, caches: Path, mode: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(root), str(caches), mode],
        cwd=Path(fer_lightning.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_simultaneous_processes_decode_once_and_agree(forms: Any, tmp_path: Path) -> None:
    root = forms.folder()
    processes = [start(root, tmp_path / "caches", "live") for _ in range(3)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sum("decoded 28 images" in output for output in outputs) == 1, outputs
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert stored(tmp_path).name.startswith("fer2013-")


def test_leftovers_of_a_killed_builder_are_removed(
    forms: Any, tmp_path: Path, load: Callable[..., Faces]
) -> None:
    root = forms.folder()
    process = start(root, tmp_path / "caches", "die")
    process.communicate(timeout=60)
    assert process.returncode == 9
    assert stored(tmp_path).name.startswith(".building-")
    assert len(load(open_fer2013(root=root, classes=EXPRESSIONS))) == 28
    assert stored(tmp_path).name.startswith("fer2013-")


def test_waiting_process_logs_the_cache_folder(
    load: Callable[..., Faces], logged: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = cache_files.FileLock.acquire

    def busy(lock: Any, timeout: float | None = None) -> Any:
        if timeout == 0:
            raise cache.Timeout(str(lock.lock_file))
        return acquire(lock, timeout)

    monkeypatch.setattr(cache_files.FileLock, "acquire", busy)
    assert len(load(Counted())) == 12
    assert logged[0].startswith("Waiting for another process")
    assert logged[0].endswith(str(tmp_path / "caches"))


def reseal(folder: Path, name: str, change: Callable[[NDArray[Any]], None]) -> None:
    """Change an array of a cache, and its checksum with it."""
    array = np.load(folder / f"{name}.npy")
    change(array)
    np.save(folder / f"{name}.npy", array)
    meta = json.loads((folder / "meta.json").read_text())
    meta["crc32"][name] = cache_files._checksum(array)
    meta["bytes"][name] = (folder / f"{name}.npy").stat().st_size
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(("name", "what"), [("images", "hashes.npy"), ("labels", "fingerprint")])
def test_cache_altered_with_its_checksum_is_built_again(
    tmp_path: Path, load: Callable[..., Faces], logged: list[str], name: str, what: str
) -> None:
    whole = load(Counted())
    images, labels, fingerprint = whole.images.copy(), whole.labels.copy(), whole.fingerprint

    def change(array: NDArray[Any]) -> None:
        array[0] = 1 - array[0] if name == "labels" else 99

    reseal(stored(tmp_path), name, change)
    found = load(Counted())
    assert what in next(sentence for sentence in logged if "damaged cache (" in sentence)
    assert (found.images == images).all()
    assert (found.labels == labels).all()
    assert found.fingerprint == fingerprint


def test_cache_is_private_to_the_user(tmp_path: Path, load: Callable[..., Faces]) -> None:
    load(Counted())
    folder = stored(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("what", ["folder", "images.npy", "meta.json"])
def test_cache_that_others_can_write_is_built_again(
    tmp_path: Path, load: Callable[..., Faces], logged: list[str], what: str
) -> None:
    load(source := Counted())
    folder = stored(tmp_path)
    (folder if what == "folder" else folder / what).chmod(0o770 if what == "folder" else 0o666)
    load(source)
    assert source.num_listed == 2
    assert any("not trusted (" in line and "can be changed by other users" in line for line in logged)
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("euid", [0, 1234])
def test_cache_of_another_user_is_built_again(
    tmp_path: Path, load: Callable[..., Faces], logged: list[str], monkeypatch: pytest.MonkeyPatch, euid: int
) -> None:
    load(source := Counted())
    os.chown(stored(tmp_path) / "images.npy", 4321, 4321)
    if euid:
        os.chown(tmp_path / "caches", euid, euid)
        for path in (stored(tmp_path), *stored(tmp_path).iterdir()):
            if path.name != "images.npy":
                os.chown(path, euid, euid)
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    load(source)
    assert source.num_listed == 2
    assert any("images.npy belongs to another user, 4321" in line for line in logged)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_uses_the_cache_of_the_user_whose_folder_it_is(
    tmp_path: Path, load: Callable[..., Faces]
) -> None:
    """As in a container whose root works in the folder of a user of the host."""
    (tmp_path / "caches").mkdir()
    os.chown(tmp_path / "caches", 1234, 1234)
    load(source := Counted())
    load(source)
    assert source.num_listed == 1
    assert {path.stat().st_uid for path in stored(tmp_path).iterdir()} == {1234}


def test_folder_that_others_can_write_gets_one_for_this_user(
    tmp_path: Path, load: Callable[..., Faces]
) -> None:
    (tmp_path / "caches").mkdir()
    (tmp_path / "caches").chmod(0o1777)  # as /tmp
    load(source := Counted())
    load(source)
    own = stored(tmp_path)
    assert (own.name, own.stat().st_mode & 0o777) == (f"user-{os.geteuid()}", 0o700)
    assert source.num_listed == 1


def test_caches_of_different_data_sets_do_not_wait(
    tmp_path: Path, load: Callable[..., Faces], logged: list[str]
) -> None:
    load(Counted(key="one"))
    with cache_files.lock_of(stored(tmp_path)).acquire(timeout=0):
        load(Counted(key="other"))
    assert not any("Waiting" in sentence for sentence in logged)


def test_images_that_fit_on_no_disk_are_refused(load: Callable[..., Faces], logged: list[str]) -> None:
    source = SyntheticFaces(classes=EXPRESSIONS, image_size=2048, num_train=10**9)
    message = "data.image_size=2048: 1,000,002,000 images of synthetic take .* GB in data.cache_dir="
    with pytest.raises(FERError, match=message):
        load(source)
    assert not any("decoding" in sentence for sentence in logged)


def test_images_that_fit_into_no_memory_are_refused_where_there_is_no_cache(log: Log) -> None:
    source = SyntheticFaces(classes=EXPRESSIONS, image_size=2048, num_train=10**9)
    with pytest.raises(FERError, match="data.image_size=2048: 1,000,002,000 images of synthetic take .* GB"):
        load_faces(source, cache_dir=Path("/dev/null/nothing"), log=log)


@REAL
def test_fer2013_has_its_known_duplicates(load: Callable[..., Faces]) -> None:
    source = open_fer2013(root=os.environ["FER2013_ROOT"], classes=EXPRESSIONS)
    faces = load(source)
    train, val, test = (faces.hashes[faces.splits == split] for split in range(3))
    assert [len(part) for part in (train, val, test)] == [28_709, 3_589, 3_589]
    assert np.isin(test, train).sum() == 288
    assert np.isin(val, train).sum() == 280
    assert np.isin(test, val).sum() == 44
    groups = np.unique(faces.hashes, return_counts=True)[1]
    assert ((groups > 1).sum(), groups[groups > 1].sum()) == (1516, 3369)


@pytest.mark.parametrize(
    ("milliseconds", "cores", "forks", "expected"),
    [
        (0, 4, True, ("serial", 1)),
        (25, 4, True, ("forks", 4)),
        (25, 64, True, ("forks", 16)),
        (25, 1, True, ("serial", 1)),
        (0, 4, False, ("serial", 1)),
        (3, 4, False, ("threads", 4)),
        (3, 64, False, ("threads", 8)),
        (3, 1, False, ("serial", 1)),
    ],
)
def test_decode_strategy_follows_the_measured_time(monkeypatch, milliseconds, cores, forks, expected):
    clock = [0.0]  # a fake clock, since a busy machine would make images slow
    monkeypatch.setattr(cache.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(cache, "available_cores", lambda: cores)
    monkeypatch.setattr(cache, "can_fork", lambda: forks)
    source = Counted()

    def slowly(record):
        clock[0] += milliseconds / 1e3
        return record.pixels()

    records = [record._replace(pixels=partial(slowly, record)) for record in source.records()]
    assert cache._decode_strategy(records, source) == expected


@pytest.mark.parametrize("number", [0, 1])
def test_a_single_image_is_decoded_serially(number):
    source = Counted()
    assert cache._decode_strategy(list(source.records())[:number], source) == ("serial", 1)
