import pytest
from PIL import Image

from fer_lightning.report import html


@pytest.mark.parametrize(
    "part",
    [
        html.paragraph('<i> & "'),
        html.section('<i> & "', "content"),
        html.facts([('<i> & "', 1)]),
        html.facts([("name", '<i> & "')]),
        html.cards([("name", "1 %", '<i> & "')]),
        html.table(['<i> & "'], [[(1, 1)]]),
        html.table(["name"], [[('<i> & "', 1)]]),
        html.table(["name"], [[(1, '<i> & "')]]),
    ],
)
def test_text_is_escaped(part):
    assert "&lt;i&gt; &amp; &quot;" in part
    assert "<i>" not in part


def test_markup_of_our_own_stays_markup():
    link = html.Html('<a href="report.html">run</a>')

    assert link in html.paragraph(link)
    assert link in html.facts([("page", link)])
    assert link in html.table(["page"], [[(link, "run")]])


def test_what_has_no_content_leaves_no_trace():
    unknown = html.facts([("a", None), ("b", ""), ("c", []), ("d", {})])

    assert html.section("Empty", html.paragraph(""), unknown, html.side_by_side("", ""), html.cards([])) == ""


def test_zero_is_a_fact():
    assert "<dd>0</dd>" in html.facts([("seed", 0)])


def test_an_image_is_embedded_with_its_text_alternative_and_caption(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")

    figure = html.image(tmp_path / "a.png", 'a "quote"', "x < y")

    assert 'src="data:image/png;base64,iVBOR' in figure
    assert 'alt="a &quot;quote&quot;"' in figure
    assert "<figcaption>x &lt; y</figcaption>" in figure


def test_a_page_holds_title_and_sections_as_given(tmp_path):
    path = html.write(tmp_path / "page.html", "a < b", ["<h1>one</h1>", "", "<p>$two</p>"])

    text = path.read_text(encoding="utf-8")
    assert "<title>a &lt; b</title>" in text
    assert "<h1>one</h1>\n<p>$two</p>" in text


def test_a_table_that_scrolls_is_reached_by_keyboard_under_its_name():
    table = html.table(["a"], [[(1, 1)]], label='Table "1"')

    assert '<div class="scroll" tabindex=0 role=region aria-label="Table &quot;1&quot;">' in table
