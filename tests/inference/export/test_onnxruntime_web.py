"""The files of onnxruntime-web: from a registry, from the user's cache, from the disk."""

import base64
import hashlib
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest

from fer_lightning.core.errors import FERError
from fer_lightning.inference.export import onnxruntime_web
from fer_lightning.inference.export.onnxruntime_web import FILES, VERSION, find_runtime

CONTENTS = {name: f"the content of {name}".encode() for name in FILES}
ARCHIVE_NAME = f"onnxruntime-web-{VERSION}.tgz"


def make_archive(contents):
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"../../evil": b"x", **contents}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_archive(CONTENTS)


class Registry(BaseHTTPRequestHandler):
    """Serves one archive, after a redirection."""

    def do_GET(self):
        self.server.requested.append(self.path)
        if not self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", f"/moved{self.path}")
            self.end_headers()
            return
        self.send_response(self.server.code)
        self.send_header("Content-Length", str(len(self.server.archive)))
        self.end_headers()
        self.wfile.write(self.server.archive)

    def log_message(self, *words):
        pass


@pytest.fixture
def registry(monkeypatch, tmp_path):
    """A registry of a small archive, which is the expected one, and an empty home folder."""
    sha512 = base64.b64encode(hashlib.sha512(ARCHIVE).digest()).decode()
    monkeypatch.setattr(onnxruntime_web, "_INTEGRITY", f"sha512-{sha512}")
    for name, content in CONTENTS.items():
        monkeypatch.setitem(FILES, name, hashlib.sha256(content).hexdigest())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    server.archive, server.code, server.requested = ARCHIVE, 200, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("npm_config_registry", f"http://user:secret@127.0.0.1:{server.server_port}/npm/")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_files_are_downloaded_once(registry, tmp_path):
    assert find_runtime() == CONTENTS
    path = f"/npm/onnxruntime-web/-/{ARCHIVE_NAME}"
    assert registry.requested == [path, f"/moved{path}"]

    assert find_runtime() == CONTENTS
    assert len(registry.requested) == 2
    cached = tmp_path / ".cache/fer_lightning" / f"onnxruntime-web-{VERSION}"
    assert {each.name: each.read_bytes() for each in cached.iterdir()} == CONTENTS


def test_damaged_cache_is_downloaded_again(registry, tmp_path):
    find_runtime()
    next(tmp_path.rglob("ort.wasm.min.mjs")).write_bytes(b"cut")

    assert find_runtime() == CONTENTS
    assert len(registry.requested) == 4


def test_cache_that_cannot_be_written_does_not_stop_the_export(registry, tmp_path, caplog):
    (tmp_path / ".cache").write_text("a file")

    assert find_runtime() == CONTENTS
    assert "is not kept for the next time" in caplog.text


@pytest.mark.parametrize("code", [404, 500])
def test_error_of_the_registry_names_address_and_remedy_without_password(registry, code):
    registry.code = code
    with pytest.raises(
        FERError, match=rf"{ARCHIVE_NAME} could not be downloaded \(HTTP {code}\); --ort"
    ) as caught:
        find_runtime()
    assert "secret" not in str(caught.value)


def test_too_long_archive_is_not_read_to_its_end(registry, monkeypatch):
    monkeypatch.setattr(onnxruntime_web, "_MAX_ARCHIVE", 100)
    with pytest.raises(FERError, match="more than 100 bytes"):
        find_runtime()


def test_archive_with_another_hash_is_refused_and_not_kept(registry, tmp_path):
    registry.archive = make_archive({**CONTENTS, "ort.wasm.min.mjs": b"hostile"})
    with pytest.raises(FERError, match="its sha512 is another one"):
        find_runtime()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["", "dist", "package/dist", "node_modules/onnxruntime-web/dist"])
def test_folder_of_the_files_or_of_npm_is_taken(registry, tmp_path, place):
    folder = tmp_path / "ort" / place
    folder.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)

    assert find_runtime(tmp_path / "ort") == CONTENTS
    assert registry.requested == []


def test_archive_of_npm_is_taken(registry, tmp_path):
    (tmp_path / ARCHIVE_NAME).write_bytes(ARCHIVE)

    assert find_runtime(str(tmp_path / ARCHIVE_NAME)) == CONTENTS
    assert registry.requested == []
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE_NAME]


def test_registry_that_is_no_address_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("npm_config_registry", "http://host:port")
    with pytest.raises(FERError, match="npm_config_registry: not an address"):
        find_runtime()
