"""ONNX Runtime for browsers: three files whose content is fixed here, from npm or from the disk."""

import base64
import hashlib
import logging
import os
import tarfile
import time
from io import BytesIO
from pathlib import Path

import httpx

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special, replacing

log = logging.getLogger(__name__)

VERSION = "1.30.0"
# As `npm view onnxruntime-web@1.30.0 dist.integrity` prints it.
_INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = {  # name -> sha256
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
PACKAGE = f"onnxruntime-web {VERSION}"
CACHE = Path("~/.cache/fer_lightning") / f"onnxruntime-web-{VERSION}"
REGISTRY = "https://registry.npmjs.org/"
_MAX_ARCHIVE = 64 * 2**20  # bytes; it has 33 million
_MAX_FILE = 32 * 2**20  # bytes; the largest has 14 million
_MAX_SECONDS = 600  # of a download
_ADVICE = (
    f"--ort takes it from the disk: a folder with {', '.join(FILES)}, or the .tgz that `npm pack "
    f"onnxruntime-web@{VERSION}` writes"
)


def find_runtime(given: str | Path | None = None) -> dict[str, bytes]:
    """Return the content of ``FILES``, each with the hash that it must have.

    Args:
        given: A folder with the files, also one of the package as npm installs it, or npm's archive; None for
            the user's cache, which is filled from npm's registry (``npm_config_registry``) if it is empty.

    Raises:
        FERError: If a file is missing or has another hash, or the registry cannot be reached.
    """
    if given is not None:
        return _read_given(Path(given).expanduser())
    cache = CACHE.expanduser()
    cached = {name: content for name in FILES if (content := _read_right(cache / name)) is not None}
    if len(cached) == len(FILES):
        return cached
    found = unpack(_download(), "the archive of npm")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for name, content in found.items():
            with replacing(cache / name) as file:
                file.write(content)
    except OSError as error:
        log.warning("%s is not kept for the next time: %s", PACKAGE, error)
    return found


def unpack(archive: bytes, what: str) -> dict[str, bytes]:
    """Take ``FILES`` out of the archive of npm, whose hash is checked first.

    Args:
        archive: The content of ``onnxruntime-web-VERSION.tgz``.
        what: How a message names it.

    Raises:
        FERError: If it is another archive, or damaged.
    """
    if f"sha512-{base64.b64encode(hashlib.sha512(archive).digest()).decode()}" != _INTEGRITY:
        raise FERError(f"{what}: not the archive of {PACKAGE}, as its sha512 is another one; {_ADVICE}")
    found = {}
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
        for name in FILES:
            file = tar.extractfile(f"package/dist/{name}")
            assert file is not None
            found[name] = file.read(_MAX_FILE)
    return found


def _read_given(path: Path) -> dict[str, bytes]:
    check_not_special(path, given=f"--ort {path}")
    if not path.exists():
        raise FERError(f"--ort {path}: no such file or folder; {_ADVICE}")
    if path.is_file():
        return unpack(_read(path, _MAX_ARCHIVE), f"--ort {path}")
    places = (
        path,
        path / "dist",
        path / "package" / "dist",
        path / "node_modules" / "onnxruntime-web" / "dist",
    )
    folder = max(places, key=lambda place: sum((place / name).is_file() for name in FILES))
    found = {}
    for name in FILES:
        if not (folder / name).is_file():
            raise FERError(f"--ort {path}: no {name} in it; {_ADVICE}")
        content = _read_right(folder / name)
        if content is None:
            raise FERError(
                f"--ort {folder / name}: not the file of {PACKAGE}, as its sha256 is another one; {_ADVICE}"
            )
        found[name] = content
    return found


def _read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FERError(f"--ort {path}: {error.strerror or error}") from error


def _read_right(path: Path) -> bytes | None:
    """Return the content of a file, if it is the one of this version."""
    if not path.is_file():
        return None
    content = _read(path, _MAX_FILE)
    return content if hashlib.sha256(content).hexdigest() == FILES[path.name] else None


def _download() -> bytes:
    """Download the archive from the registry of npm."""
    names = ("npm_config_registry", "NPM_CONFIG_REGISTRY")
    registry = next(filter(None, map(os.environ.get, names)), REGISTRY)
    address = f"{registry.rstrip('/')}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
    try:
        url = httpx.URL(address)
        shown = str(url.copy_with(username="", password="")) if url.userinfo else str(url)
    except httpx.InvalidURL as error:
        raise FERError(
            f"npm_config_registry: not an address ({error}); expected such as {REGISTRY}"
        ) from error
    log.warning("downloading %s from %s", PACKAGE, shown)
    client = httpx.Client(follow_redirects=True, timeout=30.0, headers={"Accept-Encoding": "identity"})
    try:
        with client, client.stream("GET", url) as reply:
            reply.raise_for_status()
            return _receive(reply)
    except (httpx.HTTPError, ValueError, OSError) as error:
        reason = f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else error
        raise FERError(f"--format web: {shown} could not be downloaded ({reason}); {_ADVICE}") from error


def _receive(reply: httpx.Response) -> bytes:
    archive, start = bytearray(), time.monotonic()
    for part in reply.iter_raw():
        archive += part
        if len(archive) > _MAX_ARCHIVE:
            raise ValueError(f"more than {_MAX_ARCHIVE:,} bytes")
        if time.monotonic() - start > _MAX_SECONDS:
            raise ValueError(f"not complete after {_MAX_SECONDS} seconds")
    return bytes(archive)
