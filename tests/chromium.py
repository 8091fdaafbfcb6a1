"""Debian's Chromium without a window, for the tests of pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver


@contextmanager
def open_chromium(*flags: str) -> Iterator[webdriver.Chrome]:
    """Start Chromium; skip the test where it is not installed, or fail it in CI.

    Args:
        flags: Further ones of the command line, without ``--``.
    """
    programs = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    chromium, driver = next(filter(None, programs), None), shutil.which("chromedriver")
    if chromium is None or driver is None:
        skip_or_fail("no Chromium with its driver on PATH: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # Root and most containers have no sandbox and little /dev/shm.
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", *flags):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SE_OFFLINE", "true")  # selenium downloads no driver and sends no statistics
        patch.setenv("SE_AVOID_STATS", "true")
        patch.setenv("no_proxy", "*")  # the driver is on this machine
        chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
        yield chrome
        chrome.quit()


def skip_or_fail(missing: str) -> None:
    """Skip a test for lack of something, or fail it in CI, where it has to be there."""
    pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def show(browser, width=1200, *, scheme="light", media="screen"):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def each(browser, css, expression):
    """Evaluate a JavaScript expression of ``element`` for everything that a selector finds."""
    script = f"return [...document.querySelectorAll(arguments[0])].map(element => {expression})"
    return browser.execute_script(script, css)


def overflow(browser):
    """Return how far the page extends beyond the window's right edge, in pixels."""
    root = "document.documentElement"
    return browser.execute_script(f"return {root}.scrollWidth - {root}.clientWidth")


CONTRASTS = """
const channels = color => color.match(/[\\d.]+/g).map(Number);
const luminance = color => {
  const linear = channels(color).slice(0, 3).map(c => c / 255).map(
    c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
};
const ground = element => {
  const color = getComputedStyle(element).backgroundColor;
  return channels(color)[3] === 0 && element.parentElement ? ground(element.parentElement) : color;
};
return [...document.querySelectorAll("main *, dialog *")]
  .filter(element => [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()))
  .map(element => {
    const pair = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => a - b);
    return [(pair[1] + 0.05) / (pair[0] + 0.05), element.textContent];
  });
"""
