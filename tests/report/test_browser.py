"""The pages in Debian's Chromium: on screen, clicked and printed."""

import itertools
import json
import math
import shutil
from io import BytesIO

import numpy as np
import pytest
from PIL import Image as PILImage
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from fer_lightning.cli.report import load_images
from fer_lightning.report.comparison_page import write_comparison
from fer_lightning.report.drawing import draw_all
from fer_lightning.report.paper.page import write_paper
from fer_lightning.report.run_page import write_page
from tests.axe import faults, read_axe
from tests.chromium import CONTRASTS, each, open_chromium, overflow, show
from tests.report.conftest import add_explanations
from tests.slow import slow_except

PAPER_WIDTH = 718  # A4 within Chromium's own margins, in CSS pixels


@pytest.fixture(scope="module")
def runs(make_shared_run):
    """Return a run with all its figures, one with a long name and the same figures, and a failed one."""
    small = make_shared_run("0_cnn", n=70)
    long_name = f"2_resnet,{'a_long_override_without_a_space=' * 4}0.001"
    large = make_shared_run(
        long_name, model="resnet", seed=1, lr=0.01, n=70, extra_info={"num_parameters": 980_679}
    )
    images = np.random.default_rng(0).integers(0, 256, (70, 48, 48), dtype=np.uint8)
    add_explanations(small)
    draw_all(small, split="test", images=images, train_samples=(images, np.arange(70) % 7))
    shutil.copytree(small / "figures", large / "figures")  # drawing them takes seconds
    return [small, large, make_shared_run("10_cnn", state="failed")]


@pytest.fixture(scope="module")
def paper_runs(make_shared_paper_run):
    """Return two seeds of an MLP and one run recorded as a CNN."""
    return [
        make_shared_paper_run("mlp_0", right=range(20)),
        make_shared_paper_run("mlp_1", seed=1, right=range(9)),
        make_shared_paper_run("cnn_0", model="cnn", right=range(40)),
    ]


# Every test below opens each page, by default that of a run. For each: the fixture with its runs, and how
# it is written.
PAGES = {
    "run": ("runs", lambda runs, path: write_page(runs[0])),
    "comparison": ("runs", write_comparison),
    "paper": ("paper_runs", lambda runs, path: write_paper(runs, path.parent, load_images)),
}


@pytest.fixture(scope="module", params=slow_except(["run"], PAGES))
def page(request, tmp_path_factory):
    runs, write = PAGES[request.param]
    return write(request.getfixturevalue(runs), tmp_path_factory.mktemp(request.param) / "report.html")


@pytest.fixture(scope="module")
def browser():
    with open_chromium("host-resolver-rules=MAP * ~NOTFOUND") as chrome:
        yield chrome


@pytest.fixture
def opened(browser, page):
    """Open the page on a light screen of 1200 pixels, with its folded parts open; the console stays empty."""
    show(browser)
    browser.get(page.as_uri())
    browser.execute_script("for (const folded of document.querySelectorAll('details')) folded.open = true")
    yield browser
    assert browser.get_log("browser") == []


def test_page_loads_without_console_messages(opened):
    images = each(opened, "img", "[element.alt, element.complete && element.naturalWidth]")

    assert len(images) >= 2
    assert all(alt and width > 100 for alt, width in images)
    assert opened.get_log("browser") == []


def test_page_makes_no_requests(opened):
    assert opened.execute_script("return performance.getEntriesByType('resource')") == []
    formats = set(each(opened, "[src]", "element.src.match(/^data:image.([a-z]+)/)[1]"))
    assert "svg" in formats
    assert formats <= {"svg", "png"}
    assert each(opened, "link, iframe, object, [srcset], :not(a)[href]", "element.outerHTML") == []
    assert not [url for url in each(opened, "a", "element.href") if not url.startswith("file:")]


SORTED = """
const state = head => [
  head.getAttribute("aria-sort"),
  [...head.closest("table").tBodies[0].rows].map(row => row.cells[head.cellIndex].dataset.value),
];
return [...document.querySelectorAll("th")].map(head => {
  const click = () => { head.firstElementChild.click(); return state(head) };
  return [state(head)[1], click(), click(), head.parentElement.querySelectorAll("[aria-sort]").length];
});
"""


def test_columns_sort_both_ways_with_missing_values_last(opened):
    num_numeric = 0
    for before, ascending, descending, num_marked in opened.execute_script(SORTED):
        try:
            numbers = sorted(float(value) for value in before if value)
        except ValueError:
            continue
        missing = [None] * before.count("")
        up, down = ([float(value) if value else None for value in way[1]] for way in (ascending, descending))

        assert (ascending[0], descending[0], num_marked) == ("ascending", "descending", 1)
        assert up == numbers + missing
        assert down == numbers[::-1] + missing
        num_numeric += numbers != [float(text) for text in sorted(filter(None, before))]
    assert num_numeric  # some column sorts otherwise as text


def test_header_sorts_by_mouse_and_keyboard(opened):
    head = opened.find_elements(By.CSS_SELECTOR, "th")[-1]
    button = head.find_element(By.CSS_SELECTOR, "button")

    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"


def test_figure_enlarges_by_mouse_and_keyboard(opened):
    small = opened.find_element(By.CSS_SELECTOR, "figure img")
    button, dialog = small.find_element(By.XPATH, ".."), opened.find_element(By.CSS_SELECTOR, "dialog")

    for width in (1200, 380):
        show(opened, width)
        button.send_keys(Keys.ENTER)
        large = dialog.find_element(By.CSS_SELECTOR, "img")
        assert large.get_attribute("src") == small.get_attribute("src")
        assert large.size["height"] > 1.1 * small.size["height"]
        assert overflow(opened) <= 0
        opened.switch_to.active_element.send_keys(Keys.ESCAPE)
        assert not dialog.is_displayed()
        assert opened.switch_to.active_element == button

        button.click()
        assert dialog.is_displayed()
        dialog.find_element(By.CSS_SELECTOR, "button").click()
        assert not dialog.is_displayed()


@pytest.mark.parametrize("width", [380, 1200])
def test_page_does_not_scroll_sideways(opened, width):
    show(opened, width)

    assert overflow(opened) <= 0


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_is_legible_in_light_and_dark_mode(opened, scheme, dark):
    show(opened, scheme=scheme)

    brightness = each(opened, "body", "Number(getComputedStyle(element).backgroundColor.match(/\\d+/)[0])")
    assert (brightness[0] < 64) == dark
    contrasts = opened.execute_script(CONTRASTS)
    assert len(contrasts) > 20
    assert [text for contrast, text in contrasts if contrast < 4.5] == []  # WCAG 2.2, level AA
    assert set(each(opened, "img.opaque", "getComputedStyle(element).backgroundColor")) <= {
        "rgb(255, 255, 255)"
    }


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_figures_have_no_ground_and_the_ink_of_the_page(opened, scheme, dark):
    show(opened, scheme=scheme)

    figure = opened.find_element(By.CSS_SELECTOR, "figure img:not(.opaque)")
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    pixels = np.asarray(PILImage.open(BytesIO(figure.screenshot_as_png)).convert("L"), dtype=int)

    assert (pixels[2, 2] < 64) == dark
    assert (pixels.min() < 64, pixels.max() > 200) == (True, True)
    assert (np.median(pixels) < 64) == dark


def test_print_shows_whole_tables_and_no_controls(opened):
    opened.find_element(By.CSS_SELECTOR, "figure button").send_keys(Keys.ENTER)
    show(opened, PAPER_WIDTH, scheme="dark", media="print")

    assert not opened.find_element(By.CSS_SELECTOR, "dialog").is_displayed()
    assert set(each(opened, "th button", "getComputedStyle(element, '::after').display")) == {"none"}
    assert set(each(opened, "main", "getComputedStyle(element).color")) == {"rgb(0, 0, 0)"}
    widths = each(opened, "table", "[element.offsetWidth, element.parentElement.clientWidth]")
    assert [(table, room) for table, room in widths if table > room] == []


@pytest.fixture(scope="module")
def axe():
    return read_axe()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [380, 1280])
def test_page_has_no_serious_fault_of_accessibility(opened, axe, width, scheme):
    show(opened, width, scheme=scheme)

    assert faults(opened, axe) == []
    opened.find_element(By.CSS_SELECTOR, "figure button").send_keys(Keys.ENTER)
    assert faults(opened, axe) == []


@pytest.fixture
def embeddings(browser, runs):
    """Open the page of a run at its map of the embeddings, on a light screen."""
    show(browser)
    browser.get(write_page(runs[0]).as_uri())
    browser.execute_script("document.querySelector('.map').scrollIntoView()")
    yield browser
    assert browser.get_log("browser") == []


# Where a face is drawn, in pixels from the centre of the plot; a face that is far from others.
PLACES = """
const data = JSON.parse(document.getElementById("embeddings").textContent);
const plot = document.querySelector(".points"), width = plot.clientWidth, height = plot.clientHeight;
const scale = Math.min((width - 16) / data.width, (height - 16) / data.height);
return data.ids.map((id, i) => ({ id, label: data.classes[data.labels[i]],
  answer: data.classes[data.answers[i]],
  x: scale * (data.x[i] - data.width / 2), y: scale * (data.height / 2 - data.y[i]) }));
"""


def lonely(places):
    return max(places, key=lambda one: min(
        math.hypot(one["x"] - other["x"], one["y"] - other["y"]) for other in places if other is not one
    ))  # fmt: skip


def shown_face(browser):
    return browser.find_element(By.CSS_SELECTOR, ".face p").text.splitlines()


def point_at(browser, place):
    plot = browser.find_element(By.CSS_SELECTOR, ".points")
    ActionChains(browser).move_to_element_with_offset(plot, round(place["x"]), round(place["y"])).perform()


PIXELS = """
const canvas = arguments[0], copy = new OffscreenCanvas(canvas.width, canvas.height);
const context = copy.getContext("2d", { willReadFrequently: true });
context.drawImage(canvas, 0, 0);
return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
"""


@pytest.mark.parametrize("width", [380, 1280])
def test_map_shows_the_face_under_the_pointer(embeddings, width):
    show(embeddings, width)
    place = lonely(embeddings.execute_script(PLACES))
    canvas = embeddings.find_element(By.CSS_SELECTOR, ".face canvas")
    assert not any(embeddings.execute_script(PIXELS, canvas))

    point_at(embeddings, place)
    true, predicted, name = shown_face(embeddings)
    assert (true, name) == (f"true class: {place['label']}", place["id"])
    assert predicted.startswith(f"predicted: {place['answer']} ")
    assert predicted.endswith(" %")
    pixels = embeddings.execute_script(PIXELS, canvas)
    assert len(set(pixels)) > 50
    assert overflow(embeddings) <= 0


def test_map_shows_the_face_that_is_tapped(embeddings):
    place = lonely(embeddings.execute_script(PLACES))
    plot = embeddings.find_element(By.CSS_SELECTOR, ".points")
    touch = ActionBuilder(embeddings, mouse=PointerInput("touch", "finger"))
    touch.pointer_action.move_to(plot, round(place["x"]), round(place["y"])).pointer_down().pointer_up()
    touch.perform()
    assert shown_face(embeddings)[2] == place["id"]


def test_map_moves_from_face_to_face_by_keyboard(embeddings):
    places = {place["id"]: place for place in embeddings.execute_script(PLACES)}
    plot = embeddings.find_element(By.CSS_SELECTOR, ".points")
    plot.send_keys(Keys.ARROW_RIGHT)
    first = places[shown_face(embeddings)[2]]
    assert first == min(places.values(), key=lambda place: math.hypot(place["x"], place["y"]))
    plot.send_keys(Keys.ARROW_RIGHT)
    assert places[shown_face(embeddings)[2]]["x"] > first["x"]
    before = places[shown_face(embeddings)[2]]
    plot.send_keys(Keys.ARROW_UP)
    assert places[shown_face(embeddings)[2]]["y"] < before["y"]


@pytest.mark.slow
def test_legend_and_wrong_answers_choose_what_is_shown(embeddings):
    place = lonely(embeddings.execute_script(PLACES))
    button = embeddings.find_element(
        By.XPATH, f"//div[@class='legend']/button[contains(., '{place['label']}')]"
    )
    plot = embeddings.find_element(By.CSS_SELECTOR, ".points")
    everything = embeddings.execute_script(PIXELS, plot)

    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "false"
    point_at(embeddings, place)
    assert place["id"] not in shown_face(embeddings)
    button.send_keys(Keys.ENTER)
    point_at(embeddings, place | {"x": place["x"] + 1})
    assert place["id"] in shown_face(embeddings)

    embeddings.find_element(By.CSS_SELECTOR, ".legend .wrong").send_keys(Keys.ENTER)
    fewer = embeddings.execute_script(PIXELS, plot)
    assert 0 < sum(map(bool, fewer)) < sum(map(bool, everything))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_map_is_visible_in_light_and_dark_mode(embeddings, scheme):
    show(embeddings, scheme=scheme)
    colours = each(embeddings, ".legend i", "getComputedStyle(element).backgroundColor")
    assert len(set(colours)) == 7
    ink = each(embeddings, ".points", "getComputedStyle(element).color")[0]
    assert (ink == "rgb(29, 35, 40)") == (scheme == "light")


@pytest.fixture(scope="module")
def sweep(make_shared_run, tmp_path_factory):
    """Return the page of twelve runs that differ in two settings, some with long names."""
    runs = [
        make_shared_run(
            f"sweep/{number}_cnn" if number % 2 else f"sweep/{number}_resnet,optimizer.lr=0.00{number}",
            lr=0.0001 * 3**number,
            n=70,
            seed=number,
            extra_info={"overrides": [f"optimizer.lr={0.0001 * 3**number}", f"model.dropout=0.{number}"]},
        )
        for number in range(12)
    ]
    figures = runs[0] / "figures"
    write_page(runs[0])
    for run in runs[1:]:
        shutil.copytree(figures, run / "figures")  # drawing them takes seconds
    return write_comparison(runs, tmp_path_factory.mktemp("sweep") / "report.html")


# Words of a table that are broken, or lie outside of the box in which the table scrolls.
BROKEN = """
const broken = [];
for (const cell of document.querySelectorAll("th, td")) {
  const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) for (const word of texts.currentNode.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
    const range = document.createRange();
    range.setStart(texts.currentNode, word.index);
    range.setEnd(texts.currentNode, word.index + word[0].length);
    if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1) broken.push(word[0]);
  }
}
return broken;
"""


@pytest.mark.parametrize("width", [380, 1280])
def test_no_word_of_the_comparison_s_tables_is_broken(browser, sweep, width):
    show(browser, width)
    browser.get(sweep.as_uri())
    browser.execute_script("for (const folded of document.querySelectorAll('details')) folded.open = true")

    assert browser.execute_script(BROKEN) == []
    assert overflow(browser) <= 0


def test_comparison_shows_every_column_of_the_runs_at_1280_pixels(browser, sweep):
    show(browser, 1280)
    browser.get(sweep.as_uri())

    table, room = each(browser, "[aria-label='the runs']", "[element.scrollWidth, element.clientWidth]")[0]
    assert table <= room
    headers = each(browser, "[aria-label='the runs'] th", "element.innerText")
    assert headers[:6] == ["run", "test acc %", "95 % CI", "val acc %", "seed", "optimizer.lr"]


def test_accuracy_is_visible_on_a_phone(browser, sweep):
    show(browser, 380)
    browser.get(sweep.as_uri())

    accuracies = "[aria-label='the runs'] tr > :nth-child(2)"
    boxes = each(
        browser, accuracies, "[element.getBoundingClientRect().left, element.getBoundingClientRect().right]"
    )
    names = each(
        browser, "[aria-label='the runs'] tr > :first-child", "element.getBoundingClientRect().right"
    )
    assert len(boxes) == 13
    assert all(name <= left + 1 and right <= 364 for name, (left, right) in zip(names, boxes, strict=True))


def test_filter_hides_rows_and_counts_the_others(browser, sweep):
    show(browser)
    browser.get(sweep.as_uri())
    box = browser.find_element(By.CSS_SELECTOR, ".filter input")
    assert box.accessible_name == "Filter the rows"

    box.send_keys("CNN 0.1")
    shown = each(browser, "[aria-label='the runs'] tbody tr:not([hidden])", "element.cells[0].innerText")
    assert shown
    assert all("cnn" in name for name in shown)
    assert len(shown) < 6
    assert browser.find_element(By.CSS_SELECTOR, ".filter output").text == f"{len(shown)} of 12 rows"

    box.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert len(each(browser, "[aria-label='the runs'] tbody tr:not([hidden])", "1")) == 12
    assert browser.find_element(By.CSS_SELECTOR, ".filter output").text == ""


@pytest.mark.slow
@pytest.mark.parametrize("width", [380, 1280])
def test_tables_and_figures_of_the_paper_s_page_begin_at_the_left_edge_of_the_text(
    browser, paper_runs, tmp_path, width
):
    page = write_paper(paper_runs, tmp_path, load_images)
    show(browser, width)
    browser.get(page.as_uri())
    browser.execute_script("for (const folded of document.querySelectorAll('details')) folded.open = true")

    left = "Math.round(element.getBoundingClientRect().left)"
    [edge] = each(browser, "main h1", left)
    assert set(each(browser, ".scroll, figure img", left)) == {edge}
    wide = each(browser, ".scroll, figure img", "element.getBoundingClientRect().right")
    assert max(wide) <= width - 15
    assert max(wide) > 1100 or width == 380  # as far as the window
    hints = set(each(browser, "figure button", "getComputedStyle(element, '::after').content"))
    assert hints == {'"Tap to enlarge"' if width == 380 else "none"}


@pytest.mark.parametrize("width", [380, 1280])
def test_sort_arrows_do_not_touch_the_next_header(browser, runs, width):
    show(browser, width)
    browser.get(write_page(runs[0]).as_uri())

    edges = each(browser, "[aria-label='results per class'] th button", "element.getBoundingClientRect()")
    assert len(edges) == 6
    gaps = [after["left"] - before["right"] for before, after in itertools.pairwise(edges)]
    assert min(gaps) >= 4


@pytest.mark.slow
def test_settings_of_a_limited_run_are_not_broken_within_a_word(browser, make_shared_run):
    limits = ["trainer=smoke", "trainer.limit_train_batches=2", "trainer.limit_predict_batches=2"]
    run = make_shared_run("limited", n=60)
    metrics = json.loads((run / "metrics.json").read_text()) | {"limited": limits}
    (run / "metrics.json").write_text(json.dumps(metrics))
    page = write_page(run)

    for width in (380, 1280):
        show(browser, width)
        browser.get(page.as_uri())
        broken = browser.execute_script(BROKEN.replace("th, td", ".cards small, .banner p"))
        assert broken == []
