"""The page of ``export --format web`` in Chromium, with photographs and with a fake camera."""

import os
import threading
import time
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from skimage import data

from fer_lightning import FERPredictor
from fer_lightning.core.errors import FERError
from fer_lightning.inference.export.describe import describe_network
from fer_lightning.inference.export.onnxruntime_web import find_runtime
from fer_lightning.inference.export.web import NAMES, write_web
from fer_lightning.inference.faces import Detection
from fer_lightning.inference.network import load_network
from fer_lightning.inference.results import Box
from tests.chromium import CONTRASTS, each, open_chromium, overflow, show, skip_or_fail
from tests.commands import TINY, succeed
from tests.slow import slow_except

SECONDS = 120  # that an answer may take on a machine with other work


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *words):
        self.server.requested.append(self.path)


@contextmanager
def serve(folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder))
    server.requested = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def address(server):
    return f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """The files of onnxruntime-web in a folder: downloaded once, or from $ONNXRUNTIME_WEB."""
    folder = tmp_path_factory.mktemp("ort")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        try:
            found = find_runtime(os.environ.get("ONNXRUNTIME_WEB"))
        except FERError as error:
            skip_or_fail(f"{error}; for the tests, ONNXRUNTIME_WEB names such a place")
    for name, content in found.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def server(runtime, tmp_path_factory):
    folder, network = tmp_path_factory.mktemp("page"), load_network()
    write_web(network, describe_network(network), folder, runtime=find_runtime(runtime))
    (folder / "README.md").write_text("the card")
    with serve(folder) as running:
        yield running


ASTRONAUT = Image.fromarray(data.astronaut())


def camera_frame():
    frame = Image.new("RGB", (640, 480))
    frame.paste(ASTRONAUT.resize((480, 480)))
    return frame


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    video, jpeg = tmp_path_factory.mktemp("video") / "camera.mjpeg", BytesIO()
    camera_frame().save(jpeg, "JPEG", quality=95)
    video.write_bytes(jpeg.getvalue() * 4)
    with open_chromium(
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
        f"use-file-for-fake-video-capture={video}",
    ) as chrome:
        yield chrome


@pytest.fixture
def opened(browser, server):
    """Open the page, with its networks loaded; the console stays empty."""
    show(browser)
    browser.get(address(server))
    wait(browser, "Ready.")
    yield browser
    assert browser.get_log("browser") == []


def status(browser):
    return browser.find_element(By.ID, "status").text


def wait(browser, *texts):
    end = time.monotonic() + SECONDS
    while not any(text in status(browser) for text in texts):
        assert time.monotonic() < end, status(browser)
        time.sleep(0.02)


def choose(browser, path):
    """Choose a photograph and wait for the answer."""
    browser.execute_script("document.getElementById('status').textContent = ''")
    browser.find_element(By.ID, "file").send_keys(str(path))
    wait(browser, "found.", "face: ", "faces: ", "cannot")


CARDS = """({
  box: element.dataset.box.split(" ").map(Number),
  probs: [...element.querySelectorAll("li")].map(row => Number(row.dataset.prob)),
  names: [...element.querySelectorAll(".name")].map(name => name.textContent),
  percents: [...element.querySelectorAll(".percent")].map(percent => percent.textContent),
  widths: [...element.querySelectorAll(".fill")].map(bar => bar.offsetWidth / bar.parentElement.offsetWidth),
  flags: element.querySelector(".flags").textContent,
  title: element.querySelector("h2").textContent,
})"""


def cards(browser):
    return each(browser, "#faces > li", CARDS)


def two_faces():
    image = Image.new("RGB", (1027, 512), "white")
    image.paste(ASTRONAUT)
    image.paste(ASTRONAUT.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (515, 0))
    return image


def rotated():
    """Return an image that is upright after its EXIF rotation, and the options that store this."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return ASTRONAUT.transpose(Image.Transpose.ROTATE_90), {"exif": exif}


def transparent():
    image = ASTRONAUT.convert("RGBA")
    image.putalpha(Image.fromarray((np.indices((512, 512)).sum(axis=0) % 256).astype(np.uint8)))
    return image, {}


# name -> the image and options of saving it, the number of faces
PHOTOGRAPHS = {
    "one.png": (lambda: (ASTRONAUT, {}), 1),
    "two.jpg": (lambda: (two_faces(), {"quality": 95}), 2),
    "rotated.jpg": (rotated, 1),
    "transparent.png": (transparent, 1),
    "grey.png": (lambda: (Image.fromarray(data.camera()), {}), 1),  # unsure
    "large.jpg": (lambda: (two_faces().resize((4109, 2049)), {}), 2),
    # fills the image, and is found in 160 pixels only
    "fills.png": (lambda: (ASTRONAUT.crop((190, 80, 258, 148)).resize((1200, 1200)), {}), 1),
    "at_the_border.png": (lambda: (ASTRONAUT.crop((190, 90, 512, 512)), {}), 1),
    "half.png": (lambda: (ASTRONAUT.resize((1280, 1073)), {}), 1),  # 536.5 pixels in half the size
    "dark.png": (lambda: (ASTRONAUT.point(lambda level: level // 5), {}), 1),
}


@pytest.fixture(scope="module")
def predictor():
    return FERPredictor.load()


@pytest.mark.parametrize(
    "name", slow_except(("one.png", "rotated.jpg", "grey.png", "at_the_border.png"), PHOTOGRAPHS)
)
def test_photograph_has_the_boxes_and_probabilities_of_python(opened, predictor, tmp_path, name):
    make, num_faces = PHOTOGRAPHS[name]
    image, options = make()
    image.save(tmp_path / name, **options)

    choose(opened, tmp_path / name)

    found, expected = cards(opened), predictor(tmp_path / name)
    # Browsers may decode JPEG otherwise than Pillow; from the same pixels follow the same answers.
    box_bound, prob_bound = (2, 0.01) if name.endswith(".jpg") else (0.1, 1e-4)
    assert len(found) == len(expected) == num_faces
    for number, (card, face) in enumerate(zip(found, expected, strict=True), 1):
        assert np.abs(np.subtract(card["box"], face.box)).max() < box_bound
        assert card["names"] == list(face.probs)
        probs = np.array(list(face.probs.values()))
        assert np.abs(card["probs"] - probs).max() < prob_bound
        assert card["percents"] == [f"{100 * prob:.0f} %" for prob in card["probs"]]
        assert np.abs(np.subtract(card["widths"], probs)).max() < 0.02
        assert card["flags"] == ", ".join(face.flags)
        mark = "?" if "unsure" in face.flags else ""
        assert card["title"].startswith(f"{number}: {face.expression}{mark} ")
    count = "1 face: " if num_faces == 1 else f"{num_faces} faces: "
    assert status(opened) == count + ", ".join(card["title"][3:] for card in found) + "."
    assert opened.find_element(By.ID, "canvas").get_attribute("aria-label").endswith(status(opened))


DRAWN = """
const {data, width} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const place = x => arguments[0] ? width - x : x;
const start = (x, y) => 4 * (Math.round(y) * width + Math.round(place(x)));
const level = (x, y) => [...data.subarray(start(x, y), start(x, y) + 3)];
return [...document.querySelectorAll("#faces > li")].map(card => {
  const [x, y, across, down] = card.dataset.box.split(" ").map(Number), middle = y + down / 2;
  return [level(x, middle), level(x + across, middle), level(x + across / 2, y + down)].map(String);
});
"""  # colours of three sides of each box; the argument: in a mirror


def test_boxes_are_drawn_where_the_faces_are(opened, tmp_path):
    two_faces().save(tmp_path / "two.png")
    choose(opened, tmp_path / "two.png")

    assert opened.execute_script(DRAWN, False) == [["0,114,178"] * 3] * 2


def test_page_says_that_there_is_no_face(opened, tmp_path):
    ASTRONAUT.save(tmp_path / "face.png")
    choose(opened, tmp_path / "face.png")
    Image.new("RGB", (20, 300), "white").save(tmp_path / "none.png")
    choose(opened, tmp_path / "none.png")

    assert status(opened) == "No face was found."
    assert cards(opened) == []


def test_unreadable_file_is_named_and_the_old_result_goes(opened, tmp_path):
    ASTRONAUT.save(tmp_path / "face.png")
    choose(opened, tmp_path / "face.png")
    (tmp_path / "text.png").write_text("hello")
    choose(opened, tmp_path / "text.png")

    assert status(opened) == "text.png: this browser cannot read it; save it as JPEG or PNG."
    assert cards(opened) == []
    assert not opened.find_element(By.ID, "canvas").is_displayed()


def test_dropped_photograph_is_taken(opened):
    opened.execute_script("""
      const drawn = Object.assign(document.createElement("canvas"), {width: 90, height: 90});
      drawn.getContext("2d").fillRect(0, 0, 90, 90);
      drawn.toBlob(blob => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([blob], "black.png"));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true, cancelable: true}));
      });
    """)

    wait(opened, "No face was found.")


@pytest.mark.slow
def test_last_of_two_photographs_wins(opened, tmp_path):
    two_faces().resize((4109, 2049)).save(tmp_path / "slow.jpg")
    ASTRONAUT.save(tmp_path / "quick.jpg")
    choosing = opened.find_element(By.ID, "file")

    choosing.send_keys(str(tmp_path / "slow.jpg"))
    choosing.send_keys(str(tmp_path / "quick.jpg"))
    wait(opened, "1 face: ")
    time.sleep(2)

    assert len(cards(opened)) == 1


@pytest.mark.slow
def test_camera_shows_the_face_and_its_expression_until_it_is_stopped(opened, predictor):
    opened.find_element(By.ID, "camera").send_keys(Keys.ENTER)
    wait(opened, "1 face: happy.")

    (card,) = cards(opened)
    half = camera_frame().resize((320, 240), Image.Resampling.BILINEAR)
    (detection,) = predictor.detector(half, "")
    box = Box(*(2 * value for value in detection.box))
    (face,) = FERPredictor(predictor.network, detector=lambda *_: [Detection(box, 1)])(camera_frame())
    assert np.abs(np.subtract(card["box"], box)).max() < 2
    assert np.abs(np.subtract(card["probs"], list(face.probs.values()))).max() < 0.05
    assert opened.execute_script(DRAWN, True) == [["0,114,178"] * 3]
    assert opened.switch_to.active_element.text == "Stop the camera"
    opened.execute_script("window.track = video.srcObject.getTracks()[0]")

    opened.switch_to.active_element.send_keys(Keys.ENTER)

    assert opened.execute_script("return [track.readyState, video.srcObject]") == ["ended", None]
    assert status(opened) == "The camera is off."
    assert cards(opened) == []
    assert opened.switch_to.active_element.text == "Use the camera"
    time.sleep(0.5)  # a picture that was being recognised
    assert cards(opened) == []


@pytest.mark.slow
def test_photograph_stops_the_camera(opened, tmp_path):
    opened.find_element(By.ID, "camera").click()
    wait(opened, "1 face: happy.")
    opened.execute_script("window.track = video.srcObject.getTracks()[0]")
    two_faces().save(tmp_path / "two.png")

    choose(opened, tmp_path / "two.png")

    assert opened.execute_script("return [track.readyState, video.srcObject]") == ["ended", None]
    assert len(cards(opened)) == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NotAllowedError", "The camera was not allowed."),
        ("NotFoundError", "No camera was found."),
        ("NotReadableError", "The camera cannot be read; another program may be using it."),
        ("OverconstrainedError", "The camera cannot be used: why"),
    ],
)
def test_camera_that_cannot_be_used_is_explained(opened, name, message):
    opened.execute_script(
        "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('why', arguments[0]))",
        name,
    )
    opened.find_element(By.ID, "camera").click()

    wait(opened, message)
    assert opened.find_element(By.ID, "camera").is_displayed()


def test_probabilities_are_averaged_over_time(opened):
    first, second, other = opened.execute_async_script("""
      const done = arguments[0];
      import("./faces.js").then(({smooth}) => {
        const at = (x, ...probs) => ({box: {x, y: 0, width: 10, height: 10}, probs});
        const known = smooth([], [at(0, 1, 0)], 1000);
        const next = smooth(known, [at(50, 0.5, 0.5), at(2, 0, 1)], 1500);
        done([known[0].probs, next[1].probs, next[0].probs]);
      });
    """)

    assert first == [1, 0]
    assert second == pytest.approx([np.exp(-1), 1 - np.exp(-1)])  # half a second later
    assert other == [0.5, 0.5]  # another face


def test_page_asks_only_for_its_own_files(opened, server, tmp_path):
    ASTRONAUT.save(tmp_path / "face.png")
    choose(opened, tmp_path / "face.png")
    opened.find_element(By.ID, "camera").click()
    wait(opened, "1 face: happy.")
    opened.find_element(By.ID, "stop").click()

    names = opened.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert {name.removeprefix(address(server)) for name in names} <= {*NAMES}
    assert {path.strip("/") for path in server.requested} <= {"", *NAMES}


def test_page_cannot_send_anything_elsewhere(opened, server, tmp_path):
    with serve(tmp_path) as other:
        blocked = opened.execute_async_script(
            """
            const [url, done] = arguments, seen = [];
            const add = event => seen.push(event.effectiveDirective);
            document.addEventListener("securitypolicyviolation", add);
            const image = new Image();
            image.src = url + "image";
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            fetch(url + "fetch", {method: "POST", body: "x"}).catch(() => {});
            navigator.sendBeacon(url + "beacon");
            setTimeout(() => done([window.ran ?? false, seen.sort()]), 500);
            """,
            address(other),
        )
        assert other.requested == []
    assert blocked == [False, ["connect-src", "connect-src", "img-src", "script-src-elem"]]
    assert opened.get_log("browser")  # each violation


def test_page_works_by_keyboard(opened):
    focused = []
    for _ in range(4):
        ActionChains(opened).send_keys(Keys.TAB).perform()
        focused.append(opened.switch_to.active_element)
        if focused[-1].get_attribute("id") == "file":  # its label has the ring that shows the focus
            (ring,) = each(opened, "label[for=file]", "getComputedStyle(element).outlineStyle")

    assert [element.get_attribute("id") or element.text for element in focused] == [
        "file", "camera", "Model card", "Licences",
    ]  # fmt: skip
    assert each(opened, "label[for=file]", "element.textContent") == ["Choose a photograph"]
    assert ring == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_and_the_page_fits_the_window(opened, tmp_path, scheme):
    two_faces().save(tmp_path / "two.png")
    show(opened, 1280, scheme=scheme)
    choose(opened, tmp_path / "two.png")

    brightness = each(opened, "body", "Number(getComputedStyle(element).backgroundColor.match(/\\d+/)[0])")
    assert (brightness[0] < 64) == (scheme == "dark")
    contrasts = opened.execute_script(CONTRASTS)
    assert len(contrasts) > 20
    assert [text for contrast, text in contrasts if contrast < 4.5] == []  # WCAG 2.2, level AA
    for width in (1280, 380):
        show(opened, width, scheme=scheme)
        assert overflow(opened) <= 0
        assert opened.find_element(By.ID, "canvas").size["width"] > 300


def test_page_that_lacks_a_file_says_so(browser, server, tmp_path):
    for path in Path(server.RequestHandlerClass.keywords["directory"]).iterdir():
        if path.name != "network.onnx":
            (tmp_path / path.name).symlink_to(path)
    with serve(tmp_path) as running:
        browser.get(address(running))
        wait(browser, "The network could not be loaded: ")
    assert not browser.find_element(By.ID, "file").is_enabled()
    browser.get_log("browser")


@pytest.mark.slow
def test_command_writes_a_page_for_a_network_of_colours(browser, runtime, tmp_path):
    small = ("model=mlp", "model.hidden=[16]", *TINY, "data.image_size=16", "data.channels=3", "logger=none")
    succeed("train.py", *small, "trainer=smoke", "hydra.run.dir=run", cwd=tmp_path, cache=tmp_path / "home")
    options = ("--format", "web", "--out", "page", "--ort", runtime)
    done = succeed("-m", "fer_lightning.export", "run", *options, cwd=tmp_path, cache=tmp_path / "home")
    assert "page/index.html" in done.stdout
    assert sorted(path.name for path in (tmp_path / "page").iterdir()) == sorted((*NAMES, "README.md"))
    two_faces().save(tmp_path / "two.png")

    with serve(tmp_path / "page") as running:
        browser.get(address(running))
        wait(browser, "Ready.")
        choose(browser, tmp_path / "two.png")
        found = cards(browser)
        about = each(browser, "#about li", "element.textContent")

    expected = FERPredictor.load(tmp_path / "run")(tmp_path / "two.png")
    assert len(found) == len(expected) == 2
    for card, face in zip(found, expected, strict=True):
        assert np.abs(np.subtract(card["probs"], list(face.probs.values()))).max() < 0.01
    assert any("trained on synthetic faces" in text for text in about)
    assert any(text.startswith("Accuracy on test: ") for text in about)
    assert browser.get_log("browser") == []
