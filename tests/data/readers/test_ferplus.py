"""FER+ from a made-up pair of fer2013.csv and fer2013new.csv."""

import csv
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from fer_lightning.core.errors import FERError
from fer_lightning.data.batch_transforms import transform_batch
from fer_lightning.data.cache import load_faces
from fer_lightning.data.datamodule import FERDataModule
from fer_lightning.data.faces import Faces, Record
from fer_lightning.data.loader import Batch
from fer_lightning.data.readers.ferplus import EMOTIONS, FERPlus, keep_majority, keep_votes
from tests.commands import succeed

CLASSES = ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise")
HEADER = ["Usage", "Image name", *EMOTIONS, "unknown", "NF"]

# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
CLEAR = [[10 * (row == column) for column in range(10)] for row in range(8)]
SPLIT_VOTE = [0, 0, 0, 0, 4, 0, 6, 0, 0, 0]  # anger, fear


def some_votes(usages: list[str]) -> list[list[int]]:
    """Give every class an image in Training; PublicTest and PrivateTest get clear votes, too."""
    return [CLEAR[number % 8] for number, _ in enumerate(usages)]


@pytest.fixture
def pair(forms: Any) -> Any:
    """Write both files; return the folder and a function that writes other votes."""
    forms.csv()
    usages = [usage for usage, *_ in forms.faces]

    def write(
        changes: dict[int, list[Any]] | None = None, *, usage: str | None = None, drop: int = 0
    ) -> Path:
        votes = some_votes(usages)
        for row, changed in (changes or {}).items():
            votes[row] = changed
        lines = [[own, f"fer{row:07d}.png", *votes[row]] for row, own in enumerate(usages)]
        if usage:
            lines[3][0] = usage
        with (forms.root / "fer2013new.csv").open("w", newline="") as file:
            csv.writer(file).writerows([HEADER, *lines[: len(lines) - drop]])
        return Path(forms.root)

    write()
    return write


def source(root: Path, **settings: Any) -> FERPlus:
    return FERPlus(root=root / "fer2013.csv", classes=CLASSES, **settings)


def listed(root: Path, **settings: Any) -> list[Record]:
    return list(source(root, **settings).records())


def load(root: Path, **settings: Any) -> Faces:
    return load_faces(source(root, **settings), cache_dir=root / "cache", log=lambda _: None)


def test_votes_become_targets_in_the_order_of_the_classes(pair: Any) -> None:
    faces = load(pair({3: SPLIT_VOTE}))
    assert (len(faces), faces.targets.shape) == (28, (28, 8))
    row = faces.ids.tolist().index("train/fear/row_5")  # line 1 is the header
    assert faces.targets[row].tolist() == pytest.approx([0.4, 0, 0, 0.6, 0, 0, 0, 0])
    assert CLASSES[faces.labels[row]] == "fear"


def test_images_are_those_of_the_same_rows(pair: Any, forms: Any) -> None:
    records = listed(pair())
    assert [record.id.rpartition("_")[2] for record in records] == [str(line) for line in range(2, 30)]
    for record, (_, _, _, pixels) in zip(records, forms.faces, strict=True):
        assert np.array_equal(record.pixels(), pixels)


def test_images_of_unknown_expressions_and_no_face_are_left_out(pair: Any) -> None:
    unknown, no_face = [0, 0, 0, 0, 0, 0, 0, 0, 10, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]
    names = {record.id.rpartition("/")[2] for record in listed(pair({9: unknown, 10: no_face}))}
    assert names == {f"row_{line}" for line in range(2, 30)} - {"row_11", "row_12"}


def test_classes_that_are_not_named_are_left_out_for_an_evaluation(pair: Any) -> None:
    root, seven = pair({3: SPLIT_VOTE}), CLASSES[:1] + CLASSES[2:]
    whole = {record.id.rpartition("/")[2]: record for record in listed(root)}
    read = FERPlus(root=root / "fer2013.csv", classes=seven, partial=True)
    found = {record.id.rpartition("/")[2]: record for record in read.records()}
    lost = [record.id for name, record in whole.items() if name not in found]
    assert lost
    assert all("/contempt/" in name for name in lost)
    assert read.left_out == (
        f"FER+: {len(lost)} images of class contempt, which data.classes does not name, left out",
    )
    assert all(seven[record.label] == CLASSES[whole[name].label] for name, record in found.items())
    assert found["row_5"].target is not None
    assert found["row_5"].target.tolist() == [4, 0, 6, 0, 0, 0, 0]
    with pytest.raises(FERError, match="no image of class bored, tired is left"):
        list(FERPlus(root=root / "fer2013.csv", classes=("bored", "tired"), partial=True).records())


def test_a_tie_goes_to_the_first_class(pair: Any) -> None:
    """Not to the first column: happiness comes before anger there."""
    tie = [0, 5, 0, 0, 5, 0, 0, 0, 0, 0]
    (record,) = [each for each in listed(pair({3: tie})) if each.id.endswith("/row_5")]
    assert CLASSES[record.label] == "angry"
    no_anger = FERPlus(root=pair({3: tie}) / "fer2013.csv", classes=CLASSES[1:], partial=True)
    assert not [each for each in no_anger.records() if each.id.endswith("/row_5")], "it may be anger"


def test_the_votes_are_found_in_any_case(pair: Any) -> None:
    root = pair()
    before = [record.id for record in listed(root)]
    (root / "fer2013new.csv").rename(root / "FER2013New.csv")
    assert [record.id for record in listed(root)] == before


def test_majority_gives_labels_without_targets(pair: Any) -> None:
    faces = load(pair({3: SPLIT_VOTE, 9: [5, 5, 0, 0, 0, 0, 0, 0, 0, 0]}), targets="majority")
    assert faces.targets is None
    assert "train/fear/row_5" in faces.ids
    assert len(faces) == 27, "an image without a majority is left out"


@pytest.mark.parametrize(
    ("votes", "kept", "majority"),
    [
        ([0, 9, 1, 0, 0, 0, 0, 0, 0, 0], {1: 9}, {1: 9}),  # a single vote is an outlier
        ([0, 0, 0, 0, 4, 0, 6, 0, 0, 0], {4: 4, 6: 6}, {6: 6}),
        ([5, 3, 2, 0, 0, 0, 0, 0, 0, 0], {0: 5, 1: 3}, None),  # 8 of 10 suffice; 5 are not more than half
        ([4, 2, 2, 2, 0, 0, 0, 0, 0, 0], None, None),  # four classes
        ([3, 3, 2, 2, 0, 0, 0, 0, 0, 0], None, None),
        ([4, 3, 3, 0, 0, 0, 0, 0, 0, 0], {0: 4, 1: 3, 2: 3}, None),
        ([6, 0, 0, 0, 0, 0, 0, 0, 4, 0], {0: 6}, {0: 6}),  # unknown is next
        ([4, 2, 0, 0, 0, 0, 0, 0, 4, 0], None, None),  # 4 of 10 before unknown
        ([0, 4, 0, 0, 0, 0, 0, 0, 6, 0], None, None),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 10], None, None),
        ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], None, None),
    ],
)
def test_votes_are_processed_as_by_the_authors(votes: Any, kept: Any, majority: Any) -> None:
    for keep, expected in ((keep_votes, kept), (keep_majority, majority)):
        found = keep(np.array(votes, np.float32))
        assert (None if found is None else {i: n for i, n in enumerate(found.tolist()) if n}) == expected


def test_changed_votes_change_key_and_fingerprint(pair: Any) -> None:
    root = pair()
    key, fingerprint = source(root).cache_key(), load(root).fingerprint
    assert source(root).cache_key() == key
    assert source(root, targets="majority").cache_key() != key
    pair({3: SPLIT_VOTE})
    assert source(root).cache_key() != key
    assert load(root).fingerprint != fingerprint


def test_colour_repeats_the_grey_levels_with_the_same_fingerprint(pair: Any) -> None:
    grey, colour = load(pair()), load(pair(), channels=3)
    assert np.array_equal(colour.images, np.repeat(grey.images[..., None], 3, axis=3))
    assert colour.fingerprint == grey.fingerprint


def test_the_data_module_gives_batches_of_votes(pair: Any) -> None:
    data = FERDataModule(root=pair(), source=FERPlus, classes=CLASSES, cache_dir=pair() / "cache")
    data.setup()
    assert data.name == "ferplus"
    assert next(iter(data.train_dataloader())).targets.shape == (14, 8)


def fault(root: Path, **settings: Any) -> str:
    with pytest.raises(FERError) as caught:
        listed(root, **settings)
    return str(caught.value)


def test_another_order_of_the_rows_is_refused(pair: Any) -> None:
    message = fault(pair(usage="PublicTest"))
    assert "fer2013new.csv:5: a val image, but" in message
    assert "fer2013.csv:5 is a train image" in message


def test_another_number_of_rows_is_refused(pair: Any) -> None:
    assert "fer2013new.csv: fewer rows than" in fault(pair(drop=1))


@pytest.mark.parametrize("cell", ["many", "-1", "nan"])
def test_an_invalid_vote_is_named(pair: Any, cell: str) -> None:
    message = fault(pair({3: [cell, *[0] * 9]}))
    assert f"fer2013new.csv:5: votes {cell}, 0" in message
    assert "expected numbers of at least 0" in message


def test_a_file_without_the_columns_is_refused(pair: Any) -> None:
    root = pair()
    assert "no column neutral, happiness" in fault(root, labels=root / "fer2013.csv")


def test_missing_votes_are_an_error_with_the_place_to_get_them(pair: Any) -> None:
    root = pair()
    (root / "fer2013new.csv").unlink()
    assert "no such file; download fer2013new.csv from github.com/microsoft/FERPlus" in fault(root)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_form_without_rows_is_refused(pair: Any, forms: Any, form: str) -> None:
    labels = pair() / "fer2013new.csv"
    with pytest.raises(FERError, match="joined with FER-2013 row by row, .* give fer2013.csv"):
        FERPlus(root=getattr(forms, form)(), classes=CLASSES, labels=labels)


def test_the_classes_are_the_eight_of_ferplus(pair: Any) -> None:
    with pytest.raises(FERError, match="FER\\+ has eight classes, neutral, .*, contempt; name each once"):
        FERPlus(root=pair() / "fer2013.csv", classes=CLASSES[:1] + CLASSES[2:])
    with pytest.raises(FERError, match="FER\\+ has eight classes"):
        FERPlus(root=pair() / "fer2013.csv", classes=(*CLASSES, "bored"))


def test_a_truncated_row_is_a_bad_image_and_keeps_its_place(pair: Any, forms: Any) -> None:
    lines = (forms.root / "fer2013.csv").read_text().splitlines()
    lines[4] = lines[4].rpartition(",")[0]
    (forms.root / "fer2013.csv").write_text("\n".join(lines))
    with pytest.raises(FERError, match="fer2013.csv:5: 2 columns, expected 3"):
        load(pair())
    faces = load_faces(source(pair()), cache_dir=forms.root, on_bad="skip", log=lambda _: None)
    assert len(faces) == 27
    assert "fer2013.csv:5" in faces.skipped[0]


def test_probability_draws_a_class_from_the_votes_in_each_batch(pair: Any) -> None:
    root = pair(dict.fromkeys(range(14), SPLIT_VOTE) | {row: CLEAR[row] for row in range(8)})
    data = FERDataModule(
        root=root,
        source=partial(FERPlus, targets="probability"),
        classes=CLASSES,
        cache_dir=root / "cache",
        batch_size=14,
    )
    data.setup()
    (batch,) = data.train_dataloader()
    data.trainer = SimpleNamespace(training=True, current_epoch=0, max_epochs=1)
    batches = [data.on_after_batch_transfer(batch._replace(seed=seed), 0) for seed in range(400)]
    drawn = torch.stack([each.targets for each in batches])
    assert torch.equal(drawn.sum(2), torch.ones(400, 14)), "one class each"
    assert set(drawn.unique().tolist()) == {0, 1}
    assert torch.allclose(drawn.mean(0), batch.targets, atol=0.1)
    assert all(torch.equal(each.labels, batch.labels) for each in batches)
    again = data.on_after_batch_transfer(batch._replace(seed=7), 0)
    assert torch.equal(again.targets, drawn[7]), "the draw follows the seed of the batch"
    data.trainer.training = False
    assert data.on_after_batch_transfer(batch, 0) is batch, "val and test have the votes"


def test_probability_and_votes_share_a_cache(pair: Any) -> None:
    root = pair({3: SPLIT_VOTE})
    assert source(root, targets="probability").cache_key() == source(root).cache_key()
    assert load(root, targets="probability").fingerprint == load(root).fingerprint
    with pytest.raises(FERError, match="expected votes, probability or majority"):
        source(root, targets="multi")


def test_batch_transforms_get_the_class_that_was_drawn() -> None:
    targets = torch.tensor([[0.5, 0.5]] * 4)
    batch = Batch(
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4).long(), torch.arange(4), 3, targets
    )
    seen = []

    def look(images: Any, answers: Any) -> Any:
        seen.append(answers)
        return images, answers

    after = transform_batch([look], batch, num_classes=2, draw_labels=True)
    assert torch.equal(seen[0], after.targets)
    assert set(seen[0].unique().tolist()) == {0, 1}
    assert torch.equal(targets, torch.tensor([[0.5, 0.5]] * 4)), "the votes are not changed"
    without = transform_batch([], batch._replace(targets=None), num_classes=2, draw_labels=True)
    assert without.targets is None


@pytest.mark.slow
def test_a_run_that_draws_labels_is_repeated_by_its_seed(pair: Any, tmp_path: Path) -> None:
    pair({row: SPLIT_VOTE if row % 2 else CLEAR[row % 8] for row in range(8, 14)})
    (tmp_path / "home").mkdir()
    data = ("data=ferplus", "data.root=fer2013.csv", "data.image_size=48", "data.batch_size=7")
    small = ("model=mlp", "model.hidden=[8]", "logger=none", "trainer=smoke", "num_threads=1")
    weights = {}
    for name, targets in (("one", "probability"), ("again", "probability"), ("votes", "votes")):
        command = (*small, *data, f"data.source.targets={targets}", f"hydra.run.dir={name}")
        succeed("train.py", *command, cwd=tmp_path, cache=tmp_path / "home")
        weights[name] = (tmp_path / name / "predictions_test.npz").read_bytes()
    assert weights["one"] == weights["again"] != weights["votes"]
