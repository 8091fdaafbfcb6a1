import base64

import pytest
from PIL import Image as PILImage

from fer_lightning.core.errors import FERError
from fer_lightning.report.drawing import MARK_COLOR
from fer_lightning.report.figures.style import STYLE_FILE, paper
from fer_lightning.report.rendering import (
    _DARK_INK,
    TEMPLATES,
    Image,
    Table,
    TableCell,
    embed_png,
    embed_svg,
    render_page,
)

HOSTILE = '<i> & "'
MACROS = TEMPLATES.get_template("macros.html").module


def render_string(source, **context):
    imports = '{% from "macros.html" import cards, facts, paragraph, section, side_by_side %}'
    return TEMPLATES.from_string(imports + source).render(context)


@pytest.mark.parametrize(
    "part",
    [
        MACROS.paragraph(HOSTILE),
        MACROS.facts([(HOSTILE, 1)]),
        MACROS.facts([("name", HOSTILE)]),
        MACROS.facts([("name", HOSTILE)], code=["name"]),
        MACROS.cards([("name", "1 %", HOSTILE)]),
        MACROS.banners([(HOSTILE, True)]),
        MACROS.table(Table([HOSTILE], [[TableCell("1", 1)]])),
        MACROS.table(Table(["name"], [[TableCell(HOSTILE, 1)]])),
        MACROS.table(Table(["name"], [[TableCell("1", HOSTILE)]])),
        MACROS.table(Table(["name"], [[TableCell("1", 1, HOSTILE)]])),
        MACROS.table(Table(["name"], [[TableCell("1", 1)]], label=HOSTILE)),
        MACROS.figure(Image("data:", HOSTILE, "caption")),
        MACROS.figure(Image("data:", "alt", HOSTILE)),
        render_string("{% call section(text) %}content{% endcall %}", text=HOSTILE),
    ],
)
def test_every_macro_escapes_text(part):
    assert "&lt;i&gt; &amp; &#34;" in part
    assert "<i>" not in part


def test_parts_without_content_leave_no_trace():
    unknown = [("a", None), ("b", ""), ("c", []), ("d", {})]
    source = (
        '{% call section("Empty") %}{{ paragraph("") }}{{ facts(unknown) }}{{ side_by_side([]) }}'
        "{{ cards([]) }}{% endcall %}"
    )

    assert render_string(source, unknown=unknown).strip() == ""


def test_zero_is_a_fact():
    assert "<dd>0</dd>" in MACROS.facts([("seed", 0)])


def test_cell_with_a_link_is_an_anchor():
    cell = TableCell("run", "run", "a/report.html")

    assert '<a href="a/report.html">run</a></td>' in MACROS.table(Table(["page"], [[cell]]))


def test_cell_without_a_sort_key_sorts_last():
    assert 'data-value="">—</td>' in MACROS.table(Table(["%"], [[TableCell("—")]]))
    assert 'data-value="0">0</td>' in MACROS.table(Table(["%"], [[TableCell("0", 0)]]))


def test_png_is_embedded_with_text_alternative_and_caption(tmp_path):
    PILImage.new("L", (2, 2)).save(tmp_path / "a.png")

    figure = MACROS.figure(embed_png(tmp_path / "a.png", "what it shows", "x < y"))

    assert 'src="data:image/png;base64,iVBOR' in figure
    assert 'alt="what it shows"' in figure
    assert "<figcaption>x &lt; y</figcaption>" in figure


def test_file_that_is_no_png_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("password")

    with pytest.raises(FERError, match=r"a\.png: not a PNG image"):
        embed_png(tmp_path / "a.png", "", "")


def test_svg_is_embedded_with_light_ink_for_dark_mode(tmp_path):
    ink = '<path style="stroke: #222222"/>'
    (tmp_path / "a.svg").write_text(f'<?xml version="1.0"?><svg width="72pt" height="36pt">{ink}</svg>')

    source = embed_svg(tmp_path / "a.svg", "alt", "caption").source

    kind, _, content = source.partition(",")
    text = base64.b64decode(content).decode()
    assert kind == "data:image/svg+xml;base64"
    assert text.endswith(f"</style>{ink}</svg>")
    assert "@media screen and (prefers-color-scheme: dark)" in text
    assert '[style*="stroke: #222222"] { stroke: #e4e8ec !important }' in text
    assert '[style*="fill: #222222"] { fill: #e4e8ec !important }' in text
    assert '<svg width="90.0pt" height="45.0pt"><style>' in text


def test_colours_of_dark_mode_are_those_of_the_style():
    drawn = f"{STYLE_FILE.read_text(encoding='utf-8')} {paper()} {MARK_COLOR}".lower()

    assert all(light in drawn for light in _DARK_INK)


def test_file_that_is_no_svg_is_refused(tmp_path):
    (tmp_path / "a.svg").write_text("password")

    with pytest.raises(FERError, match=r"a\.svg: not an SVG image"):
        embed_svg(tmp_path / "a.svg", "", "")


def test_page_escapes_its_title(tmp_path):
    path = render_page(
        tmp_path / "page.html",
        "comparison.html",
        search=None,
        title="a < b {{ 1 + 1 }}",
        about=[],
        warnings=[],
        mark="",
        limited=False,
        order="",
        configurations=None,
        runs=Table(["run"], []),
        more=Table(["run"], []),
        summary_csv=None,
        split="test",
        accuracy=None,
        tests=None,
        curves=None,
        settings=[],
        classes={"figure": None, "recall": None, "f1": None},
        matrices={"shown": [], "others": [], "runs": []},
    )

    text = path.read_text(encoding="utf-8")
    assert "<title>a &lt; b {{ 1 + 1 }}</title>" in text
    assert "<h1>a &lt; b {{ 1 + 1 }}</h1>" in text


def test_scrolling_table_has_a_name_and_is_reached_by_keyboard():
    table = MACROS.table(Table(["a"], [[TableCell("1", 1)]], label="Table 1"))

    assert '<div class="scroll" tabindex=0 role=region aria-label="Table 1">' in table
