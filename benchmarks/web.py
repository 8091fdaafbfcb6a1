"""The page of ``fer-lightning export --format web`` in headless Chromium: differences from Python, and times.

``python -m benchmarks.web FOLDER PHOTO...``, where FOLDER holds an export of the network of the package.
"""

import argparse
import os
import shutil
import statistics
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from selenium import webdriver
from selenium.webdriver.common.by import By

from fer_lightning import FERPredictor

_READ = """
const cards = [...document.querySelectorAll("#faces > li")].map(card => ({
  box: card.dataset.box.split(" ").map(Number),
  probs: [...card.querySelectorAll("li")].map(row => Number(row.dataset.prob)),
}));
return [cards, document.getElementById("times").textContent.match(/\\d+/g).map(Number)];
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *words: Any) -> None:
        pass


def _open(folder: Path) -> webdriver.Chrome:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ |= {"SE_OFFLINE": "true", "SE_AVOID_STATS": "true", "no_proxy": "*"}
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    started = time.perf_counter()
    browser.get(f"http://127.0.0.1:{server.server_port}/")
    _wait(browser, "Ready.")
    print(f"{browser.capabilities['browserVersion']}: ready after {time.perf_counter() - started:.1f} s")
    return browser


def _wait(browser: webdriver.Chrome, *texts: str) -> None:
    while not any(text in browser.find_element(By.ID, "status").text for text in texts):
        time.sleep(0.01)


def main() -> None:
    """Compare all photographs, and print the largest differences and the medians of the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    size = sum(path.stat().st_size for path in given.folder.iterdir())
    print(f"{size / 1e6:.1f} MB in {len(list(given.folder.iterdir()))} files")
    predictor, browser = FERPredictor.load(), _open(given.folder)
    boxes, probs, counts, times = [0.0], [0.0], [], []
    for photo in given.photos:
        expected = predictor(photo)
        for _ in range(given.repeats):
            browser.execute_script("document.getElementById('status').textContent = ''")
            browser.find_element(By.ID, "file").send_keys(str(photo.absolute()))
            _wait(browser, "found.", "face: ", "faces: ")
            cards, (width, height, detection, recognition) = browser.execute_script(_READ)
            times.append((detection, recognition))
        counts.append((len(cards), len(expected)))
        detection, recognition = map(statistics.median, zip(*times[-given.repeats :], strict=True))
        print(
            f"{photo.name}: {width} x {height}, {len(cards)} faces (Python {len(expected)}), medians: "
            f"detection {detection:.0f} ms, expressions {recognition:.0f} ms"
        )
        for card, face in zip(cards, expected, strict=False):
            assert face.box is not None
            boxes.append(float(np.abs(np.subtract(card["box"], face.box)).max()))
            probs.append(float(np.abs(np.subtract(card["probs"], list(face.probs.values()))).max()))
    browser.quit()
    same = sum(one == other for one, other in counts)
    print(f"the same number of faces in {same} of {len(counts)} photographs, {len(probs) - 1} faces compared")
    print(f"largest difference: box {max(boxes):.3f} pixels, probability {max(probs):.1e}")


if __name__ == "__main__":
    main()
