"""Faults of ``fer-lightning export --format web``: where onnxruntime-web and the detector come from."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fer_lightning.inference.export.onnxruntime_web import FILES
from tests.commands import run

WEB = ("-m", "fer_lightning.export", "--format", "web", "--out", "out")


class Registry(BaseHTTPRequestHandler):
    """Answers with something else than the archive."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"not the archive")

    def log_message(self, *words):
        pass


@pytest.fixture
def registry():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def failing(trained, tmp_path, fault_row):
    """Run the command, which has to fail as the row of the test says, and to write nothing."""

    def export(*options, **extra):
        environment = {"no_proxy": "*", "HOME": str(tmp_path / "home")} | extra
        fault_row.check(run(*WEB, trained, *options, cwd=tmp_path, cache=tmp_path / "home", **environment))
        assert not (tmp_path / "out").exists()

    return export


def test_page_without_a_network_names_the_option_that_needs_none(failing):
    failing(npm_config_registry="http://127.0.0.1:9")  # nothing listens there


def test_download_with_another_hash_is_refused(failing, registry, tmp_path):
    failing(npm_config_registry=registry)
    assert not (tmp_path / "home/.cache/fer_lightning").exists()


def test_given_folder_without_the_files_is_refused(failing, tmp_path):
    (tmp_path / "ort").mkdir()
    (tmp_path / "ort/ort.wasm.min.mjs.map").write_text("{}")
    failing("--ort", "ort")


def test_given_files_of_another_version_are_refused(failing, tmp_path):
    (tmp_path / "ort").mkdir()
    for name in FILES:
        (tmp_path / "ort" / name).write_text("of another version")
    failing("--ort", "ort")


def test_given_file_that_is_not_the_archive_is_refused(failing, tmp_path):
    (tmp_path / "ort.tgz").write_bytes(b"\x1f\x8b cut")
    failing("--ort", "ort.tgz")


def test_given_place_that_does_not_exist_is_named(failing):
    failing("--ort", "nowhere")


def test_option_of_the_page_is_refused_for_other_formats(trained, tmp_path, cache, fault_row):
    done = run(
        "-m", "fer_lightning.export", trained, "--out", "out", "--ort", "ort", cwd=tmp_path, cache=cache
    )
    fault_row.check(done)
