"""axe-core, which finds faults of accessibility in a page: a file of npm's archive, whose hash is fixed."""

import base64
import hashlib
import os
import tarfile
from io import BytesIO
from pathlib import Path

import httpx

from tests.chromium import skip_or_fail

VERSION = "4.14.1"
# As `npm view axe-core@4.14.1 dist.integrity` prints it.
_INTEGRITY = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="

# The faults that matter, each as id, what is wrong, and the first elements.
_RUN = """
const done = arguments[arguments.length - 1];
axe.run().then(found => done(found.violations
  .filter(one => ["serious", "critical"].includes(one.impact))
  .map(one => [one.id, one.help, one.nodes.slice(0, 3).map(node => node.html.slice(0, 200))])));
"""


def read_axe() -> str:
    """Return the script: from npm's registry, or from the archive that ``$AXE_CORE`` names (``npm pack``)."""
    names = ("npm_config_registry", "NPM_CONFIG_REGISTRY")
    registry = next(filter(None, map(os.environ.get, names)), "https://registry.npmjs.org").rstrip("/")
    try:
        if given := os.environ.get("AXE_CORE"):
            archive = Path(given).read_bytes()
        else:
            url = f"{registry}/axe-core/-/axe-core-{VERSION}.tgz"
            archive = httpx.get(url, follow_redirects=True, timeout=60).raise_for_status().content
    except (httpx.HTTPError, OSError) as error:
        skip_or_fail(f"axe-core {VERSION}: {error}; AXE_CORE names the file that npm pack writes")
    hashed = f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}"
    assert hashed == _INTEGRITY, f"not the archive of axe-core {VERSION}"
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
        return tar.extractfile("package/axe.min.js").read().decode()


def faults(browser, axe):
    """Return the serious and critical faults of the page that is open."""
    browser.set_script_timeout(120)
    browser.execute_script(axe)
    return browser.execute_async_script(_RUN)
