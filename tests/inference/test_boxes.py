import pytest
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.inference.boxes import BoxFile
from fer_lightning.inference.results import Box

PHOTO = Image.new("L", (100, 80))


def table(folder, *lines, header="image,x,y,width,height"):
    (folder / "boxes.csv").write_text("\n".join([header, *lines]) + "\n")
    return BoxFile(folder / "boxes.csv")


def boxes(detector, name):
    return [found.box for found in detector(PHOTO, name)]


def test_boxes_of_an_image_in_the_order_of_the_file(tmp_path, monkeypatch):
    detector = table(tmp_path, "a.png,1,2,30,40", "b.png,5,6,7,8", "a.png,50,2.5,30,40")
    monkeypatch.chdir(tmp_path)
    assert boxes(detector, "a.png") == [Box(1, 2, 30, 40), Box(50, 2.5, 30, 40)]
    assert boxes(detector, str(tmp_path / "b.png")) == [Box(5, 6, 7, 8)]
    assert boxes(detector, "c.png") == []


def test_paths_in_the_file_may_be_relative_to_its_folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    detector = table(tmp_path / "photos", "a.png,1,2,30,40")
    assert boxes(detector, "photos/a.png") == [Box(1, 2, 30, 40)]


def test_columns_may_have_any_order_and_company(tmp_path):
    detector = table(tmp_path, "7,a.png,4,3,2,1", header="\ufeffid,image,height,width,y,x")
    assert boxes(detector, str(tmp_path / "a.png")) == [Box(1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,1,2,30,40", "a.png,1,x,30,40"], "boxes.csv:3: y=x: expected a number of pixels"),
        (["a.png,1,2,nan,40"], "boxes.csv:2: width=nan: expected a number"),
        (["a.png,1,2,30"], "boxes.csv:2: height=None: expected a number"),
        (["a.png,1,2,0,40"], "boxes.csv:2: a box of 0 x 40 pixels, expected more than 0"),
    ],
)
def test_wrong_line_is_named(lines, message, tmp_path):
    with pytest.raises(FERError) as caught:
        table(tmp_path, *lines)
    assert message in str(caught.value)


def test_missing_column_is_named(tmp_path):
    with pytest.raises(FERError, match="no column x, height; expected the columns image, x, y"):
        table(tmp_path, header="image,left,y,width")


@pytest.mark.parametrize("box", ["200,2,30,40", "1,-50,30,40", "1,2,1e9,40"])
def test_box_outside_the_image_is_refused(box, tmp_path):
    detector = table(tmp_path, f"a.png,{box}")
    with pytest.raises(FERError, match="outside the image of 100 x 80 pixels"):
        detector(PHOTO, str(tmp_path / "a.png"))
