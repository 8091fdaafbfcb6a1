import json

import numpy as np
import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.data.audit.facts import audit_data
from fer_lightning.data.faces import Faces, pixel_digest, pixel_hash
from fer_lightning.report.audit_section import audit_context
from fer_lightning.report.rendering import TEMPLATES
from fer_lightning.report.run_page import write_page
from fer_lightning.report.run_results import read_audit, read_run

pytestmark = pytest.mark.usefixtures("fast_figures")


@pytest.fixture
def facts():
    """Return the audit of six images: one duplicate with another label in another split, one constant."""
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
    return audit_context(read_run(folder))


def text_of(context):
    """Render the section."""
    macro = TEMPLATES.get_template("audit.html").module.audit_section
    return str(macro(context))


def test_audit_numbers_are_listed_as_facts(make_run, facts):
    text = text_of(section(make_run, facts))
    for part in (
        "2 images in 1 groups, 1 redundant; 1 groups with conflicting labels",
        "1 of 2 test images are duplicates of train images, 0 more have a near-duplicate",
        "<dd>1 (1 in train)</dd>",
        "largest class sad, smallest happy, which has no image",
        facts["near_duplicates"]["definition"][:40],
    ):
        assert part in text, part
    assert "val images" not in text  # there are none
    assert text.count("banner") == 1  # of the leak


def test_audit_warnings_are_escaped_banners(make_run, facts):
    text = text_of(section(make_run, facts, warnings=["train images look <b>blurred</b>"]))
    assert '<p class="banner bad">train images look &lt;b&gt;blurred&lt;/b&gt;</p>' in text


def test_incomplete_near_duplicate_search_is_stated(make_run, facts):
    facts["near_duplicates"]["complete"] = False
    assert "search incomplete; found 0 pairs" in dict(section(make_run, facts)["facts"])["near-duplicates"]


def test_known_medians_are_shown_with_the_measured_ones(make_run, facts):
    facts["quality"]["known"] = {"train": {"sharpness": 2021.0}}
    assert "(published 2,021.0)" in text_of(section(make_run, facts))


@pytest.mark.parametrize(
    ("published", "text"), [(True, "pixel for pixel"), (False, "not FER-2013 as published")]
)
def test_audit_compares_pixels_with_the_published_data(make_run, facts, published, text):
    assert text in dict(section(make_run, facts, as_published=published)["facts"])["pixels"]


def test_run_page_shows_audit_and_its_examples(make_run, facts):
    folder = make_run(n=60)
    assert "Data audit" not in write_page(folder).read_text()
    (folder / "audit.json").write_text(json.dumps(facts))
    (folder / "figures" / "audit.png").write_bytes(b"\x89PNG\r\n an image")
    page = write_page(folder).read_text()
    assert "<h2>Data audit</h2>" in page
    assert "pixel-identical images with different labels" in page


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_damaged_audit_names_the_file(tmp_path, content):
    (tmp_path / "audit.json").write_text(content)
    with pytest.raises(FERError, match="audit.json: "):
        read_audit(tmp_path)


def test_malformed_audit_does_not_stop_the_page(make_run):
    folder = make_run(n=60)
    (folder / "audit.json").write_text(json.dumps({"near_duplicates": 3}))

    assert "audit.json is not as" in write_page(folder).read_text()
