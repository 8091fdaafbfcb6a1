import json

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.facts import audit_data
from fer_lightning.data.faces import Faces, pixel_digest, pixel_hash
from fer_lightning.report.audit import audit_section, read_audit
from fer_lightning.report.page import write_page
from fer_lightning.report.runs import read_run

pytestmark = pytest.mark.usefixtures("saving_costs_nothing")


@pytest.fixture
def facts():
    """The audit of six faces: one of test stands in train under another label, one is constant."""
    images = np.random.default_rng(0).integers(0, 256, (6, 24, 24)).astype(np.uint8)
    images[4], images[2] = images[0], 9
    faces = Faces(
        images=images,
        labels=np.array([0, 0, 0, 0, 1, 1]),
        splits=np.array([0, 0, 0, 0, 2, 2], np.uint8),
        hashes=np.array([pixel_hash(pixel_digest(image)) for image in images], np.uint64),
        ids=np.array([f"train/sad/{i}" for i in range(6)]),
        classes=("sad", "happy"),
        fingerprint="f",
    )
    return audit_data(faces, name="mine")


def section(make_run, facts, **changes):
    folder = make_run(n=60)
    (folder / "audit.json").write_text(json.dumps(facts | changes))
    return audit_section(read_run(folder))


def test_the_figures_of_an_audit_are_told_in_words(make_run, facts):
    text = section(make_run, facts)
    for told in (
        "2 images in 1 groups, 1 redundant; 1 groups with conflicting labels",
        "1 of 2 test images also stand in train, 0 more have a near-duplicate there",
        "<dd>1 (1 in train)</dd>",
        "largest class sad, smallest happy, which has no image",
        facts["near_duplicates"]["definition"][:40],
    ):
        assert told in text, told
    assert "val images" not in text  # there are none
    assert "banner" not in text


def test_warnings_are_banners_and_stay_text(make_run, facts):
    text = section(make_run, facts, warnings=["train images look <b>blurred</b>"])
    assert '<p class="banner bad">train images look &lt;b&gt;blurred&lt;/b&gt;</p>' in text


def test_a_search_that_was_not_whole_is_said(make_run, facts):
    facts["near_duplicates"]["complete"] = False
    assert "not all looked for; found 0 pairs" in section(make_run, facts)


def test_known_values_stand_beside_the_measured_ones(make_run, facts):
    facts["quality"]["known"] = {"train": {"sharpness": 2021.0}}
    assert "(known 2,021.0)" in section(make_run, facts)


@pytest.mark.parametrize(
    ("published", "told"), [(True, "pixel for pixel"), (False, "not FER-2013 as published")]
)
def test_whether_the_pixels_are_those_published_is_said(make_run, facts, published, told):
    assert told in section(make_run, facts, as_published=published)


def test_the_page_of_a_run_holds_its_audit_and_its_pictures(make_run, facts):
    folder = make_run(n=60)
    assert "audit" not in write_page(folder).read_text()
    (folder / "audit.json").write_text(json.dumps(facts))
    (folder / "figures" / "audit.png").write_bytes(b"\x89PNG\r\n a picture")
    page = write_page(folder).read_text()
    assert "The data&#x27;s audit" in page
    assert "pixel-identical pictures under two labels" in page


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_audit_is_told(tmp_path, content):
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(FERError, match="audit.json: "):
        read_audit(tmp_path)


def test_an_audit_of_another_make_does_not_stop_the_page(make_run):
    folder = make_run(n=60)
    (folder / "audit.json").write_text(json.dumps({"near_duplicates": 3}))

    assert "audit.json is not as" in write_page(folder).read_text()
