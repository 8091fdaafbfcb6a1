from itertools import permutations

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.sampling import (
    Entry,
    draw_sample,
    parse_sample,
    read_manifest,
    select_rows,
    write_manifest,
)

SAD, HAPPY = 0, 1


@pytest.fixture
def faces(make_faces):
    """Make six test images, two of them duplicates, and two other images."""
    return make_faces(
        ("train", SAD, 1), ("test", SAD, 10), ("test", SAD, 11), ("test", SAD, 12), ("test", HAPPY, 20),
        ("test", HAPPY, 21), ("test", HAPPY, 20), ("val", HAPPY, 20),
    )  # fmt: skip


TEST = np.arange(1, 7)


def choose(choice, faces, rows=TEST, seed=0):
    return select_rows(choice, faces, rows, split="test", seed=seed).tolist()


def written(path, text):
    path.write_text(text)
    return path


def test_draw_has_equal_class_counts_in_ascending_order():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    drawn = draw_sample(labels, 5, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [5] * 7
    assert len(set(drawn.tolist())) == 35
    assert (np.diff(drawn) > 0).all()
    assert drawn.dtype == np.int64


def test_draw_depends_only_on_its_seed():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    np.testing.assert_array_equal(draw_sample(labels, 5, seed=3), draw_sample(labels.copy(), 5, seed=3))
    assert draw_sample(labels, 5, seed=3).tolist() != draw_sample(labels, 5, seed=4).tolist()
    # A class that is gone changes no other's draw.
    others = draw_sample(np.where(labels == 6, 0, labels), 5, seed=3)
    drawn = draw_sample(labels, 5, seed=3)
    middle = (labels > 0) & (labels < 6)
    assert [row for row in drawn if middle[row]] == [row for row in others if middle[row]]


def test_every_image_can_be_drawn():
    labels = np.zeros(10, dtype=np.int64)
    drawn = {row for seed in range(100) for row in draw_sample(labels, 2, seed).tolist()}
    assert drawn == set(range(10))


def test_sample_is_a_word_a_number_or_a_list(tmp_path):
    assert parse_sample("auto", auto=5) == 5
    assert parse_sample("auto", auto=None) is None
    assert parse_sample("all", auto=5) is None
    assert parse_sample(3, auto=5) == 3
    listed = written(tmp_path / "list.txt", "test/sad/1\n")
    assert parse_sample(str(listed), auto=5) == [Entry("test/sad/1", None)]


@pytest.mark.parametrize("sample", [0, -1, 1.5, True, None, [1]])
def test_any_other_sample_is_refused(sample):
    with pytest.raises(
        FERError, match="sample=.*expected auto, all, a number of images per class, or the path"
    ):
        parse_sample(sample, auto=5)


def test_missing_list_is_named(tmp_path):
    with pytest.raises(FERError, match="sample=.*nowhere.csv: No such file"):
        parse_sample(str(tmp_path / "nowhere.csv"), auto=5)
    with pytest.raises(FERError, match="Is a directory"):
        parse_sample(str(tmp_path), auto=5)
    with pytest.raises(FERError, match="lists no image"):
        parse_sample(str(written(tmp_path / "empty.csv", "id,label,hash\n")), auto=5)
    with pytest.raises(FERError, match="lists no image"):
        parse_sample(str(written(tmp_path / "blank.txt", "\n# nothing\n")), auto=5)


def test_all_selects_the_split_and_a_number_each_class(faces):
    assert choose(None, faces) == TEST.tolist()
    assert faces.labels[choose(2, faces)].tolist() == [SAD, SAD, HAPPY, HAPPY]
    assert choose(3, faces) == TEST.tolist()


def test_class_with_too_few_images_is_named(faces):
    with pytest.raises(FERError, match="sample=4: the test split has only 3 images of class sad"):
        choose(4, faces)


def test_class_without_images_is_not_sampled(faces):
    assert choose(2, faces, rows=np.array([4, 5, 6]), seed=1) in ([4, 5], [4, 6], [5, 6])


def test_empty_split_is_named(faces):
    for choice in (None, 1, [Entry("a", None)]):
        with pytest.raises(FERError, match="split=test: this split is empty"):
            choose(choice, faces, rows=np.array([], dtype=np.int64))


def test_written_manifest_selects_the_same_rows(faces, tmp_path):
    rows = np.array([2, 4, 5, 6])  # 4 and 6 are duplicates
    write_manifest(tmp_path / "sample.csv", faces, rows)
    lines = (tmp_path / "sample.csv").read_text().splitlines()
    assert lines[0] == "id,label,hash"
    assert lines[1] == f"test/sad/2,sad,{int(faces.hashes[2]):016x}"
    assert choose(read_manifest(tmp_path / "sample.csv"), faces) == rows.tolist()


def test_hash_finds_an_image_whatever_its_name(faces, tmp_path):
    pixels = f"{int(faces.hashes[3]):016X}"
    listed = written(tmp_path / "list.csv", f"hash,id\n{pixels},somewhere/else.png\n")
    assert choose(read_manifest(listed), faces) == [3]
    # An altered image with the same name is another image.
    altered = written(tmp_path / "list.csv", "id,hash\ntest/sad/3,0123456789abcdef\n")
    with pytest.raises(FERError, match="1 of 1 images of the list are not in the test split .'test/sad/3'"):
        choose(read_manifest(altered), faces)


@pytest.mark.parametrize(
    "text",
    [
        "test/sad/1\ntest/happy/5\n",
        "\ufeff# mine\r\n\r\ntest/sad/1\r\ntest/happy/5",
        "id\ntest/happy/5\ntest/sad/1\n",
        " ID ,model\ntest/happy/5,x\ntest/sad/1\n",
        "id,hash\ntest/happy/5,\ntest/sad/1,\n",
        "sad/1\nHappiness/5\n",
        "/home/me/fer/private/sad/1\nC:\\fer\\test\\happy\\5\n",
        "val/happy/5\ntrain/sad/1\n",
    ],
)
def test_entries_without_hash_match_by_id_or_class_and_name(faces, tmp_path, text):
    assert choose(read_manifest(written(tmp_path / "list", text)), faces) == [1, 5]


def test_entries_missing_in_the_split_are_named(faces, tmp_path):
    listed = written(tmp_path / "list", "test/sad/1\n" + "".join(f"test/sad/9{n}\n" for n in range(7)))
    with pytest.raises(FERError) as error:
        choose(read_manifest(listed), faces)
    assert "7 of 8 images of the list are not in the test split ('test/sad/90', " in str(error.value)
    assert "'test/sad/94', ...)" in str(error.value)


def test_long_list_is_matched_in_few_passes(make_faces):
    hashed = 0

    class Counted(Entry):
        def __hash__(self):
            nonlocal hashed
            hashed += 1
            return super().__hash__()

    faces = make_faces(*(("test", SAD, shade) for shade in range(50)))
    entries = [Counted(face_id, None) for face_id in faces.ids.tolist()]
    assert choose(entries, faces, rows=np.arange(50)) == list(range(50))
    assert hashed <= 4 * 50


def test_ambiguous_name_is_not_guessed(make_faces):
    faces = make_faces(("train", SAD, 1), ("test", SAD, 2))
    faces.ids[:] = ["train/sad/x", "test/sad/x"]
    with pytest.raises(FERError, match="1 of 1 images"):
        choose([Entry("sad/x", None)], faces, rows=np.array([0, 1]))
    assert choose([Entry("test/sad/x", None)], faces, rows=np.array([0, 1])) == [1]


def test_image_listed_twice_is_named(faces):
    for entries in permutations((Entry("test/sad/1", None), Entry("sad/1", None))):
        with pytest.raises(FERError, match="names test/sad/1 twice, as 'test/sad/1' and as 'sad/1'"):
            choose(list(entries), faces)


def test_each_of_several_duplicates_finds_its_own_image(faces):
    pixels = int(faces.hashes[4])  # of 4 and 6
    for own in (Entry("test/happy/4", pixels), Entry("test/happy/4", None), Entry("happy/4", None)):
        for entries in permutations((Entry("mine/a", pixels), own)):
            assert choose(list(entries), faces) == [4, 6]
    assert choose([Entry("mine/a", pixels), Entry("mine/b", pixels)], faces) == [4, 6]


def test_repeated_entry_does_not_select_two_duplicates(faces):
    with pytest.raises(FERError, match="names test/happy/4 twice, as 'mine/a' and as 'mine/a'"):
        choose([Entry("mine/a", int(faces.hashes[4]))] * 2, faces)


@pytest.mark.parametrize("digits", ["xyz", "0123", "0" * 64])
def test_invalid_hash_is_named(tmp_path, digits):
    listed = written(tmp_path / "list.csv", f"id,hash\nsad/1,{digits}\n")
    with pytest.raises(FERError, match="expected 16 hexadecimal digits .* remove the column"):
        read_manifest(listed)


def test_image_file_is_not_a_list(tmp_path, faces):
    (tmp_path / "face.png").write_bytes(bytes(range(256)) * 10)
    with pytest.raises(FERError) as error:
        choose(read_manifest(tmp_path / "face.png"), faces)
    assert str(error.value).isprintable()
