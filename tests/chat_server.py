"""A local server with the chat completions API of OpenAI that can simulate failures."""

import base64
import hashlib
import io
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import numpy as np
from PIL import Image


class Answer(NamedTuple):
    """A reply of the server; with ``body=None`` it never replies."""

    body: str | None
    status: int = 200
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    cut_after: int | None = None  # number of bytes of the body after which the connection is closed

    @property
    def paid(self) -> bool:
        """Return whether a provider would charge for it."""
        return self.status == 200 and self.body is not None


def choice(message: Any, finish_reason: str = "stop") -> Answer:
    """Make a chat completion of any message."""
    usage = {"prompt_tokens": 85, "completion_tokens": 2, "total_tokens": 87}
    chosen = {"index": 0, "message": message, "finish_reason": finish_reason}
    return Answer(json.dumps({"object": "chat.completion", "choices": [chosen], "usage": usage}))


def say(content: Any, finish_reason: str = "stop") -> Answer:
    """Make a chat completion of a text."""
    return choice({"role": "assistant", "content": content}, finish_reason)


def fail(status: int, message: str = "no", **headers: str) -> Answer:
    """Make an error in the form of OpenAI."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(json.dumps({"error": {"message": message, "code": None}}), status, named)


HANG = Answer(None)
HTML = Answer("<!doctype html><html><body>happy: please log in</body></html>")
HALF = Answer(say("Happy").body[:60])  # type: ignore[index]

Behaviour = Callable[
    [str, int], Answer
]  # takes the digest of an image and the number of requests for it, from 1


def digest(image: np.ndarray) -> str:
    """Hash the pixels of an image."""
    return hashlib.sha256(image.tobytes()).hexdigest()[:16]


class ChatServer:
    """A context manager that serves on a free port.

    Attributes:
        behave: Chooses the answer.
        asked: Number of requests for each image.
        paid: Number of requests for each image that a provider would charge for.
        requests: Path, headers and body of each request.
        busiest: Largest number of simultaneous requests.
    """

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.asked: Counter[str] = Counter()
        self.paid: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.images: list[np.ndarray] = []
        self.busiest = 0
        self._busy = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def __enter__(self) -> "ChatServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *arguments: Any) -> None:
                pass  # the client has closed the connection

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def num_requests(self) -> int:
        return len(self.requests)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        image = seen(body)
        name = digest(image)
        with self._lock:
            self.requests.append((handler.path, dict(handler.headers), body))
            self.images.append(image)
            self.asked[name] += 1
            number = self.asked[name]
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
        try:
            answer = self.behave(name, number)
            self._send(handler, answer)
        finally:
            with self._lock:
                self._busy -= 1
        if answer.paid:
            with self._lock:
                self.paid[name] += 1

    def _send(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.body is None:
            self._ending.wait(30)
            handler.close_connection = True
            return
        data = answer.body.encode()
        handler.send_response(answer.status)
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[: answer.cut_after])
        handler.close_connection = answer.cut_after is not None


def seen(body: dict[str, Any]) -> np.ndarray:
    """Decode the image of a request."""
    (_, image) = body["messages"][0]["content"]
    kind, _, data = image["image_url"]["url"].partition(",")
    assert kind == "data:image/png;base64"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


class RawServer:
    """A context manager that sends given bytes one after the other, whatever it is asked.

    Args:
        pieces: Makes the bytes for one connection.
        pause: Seconds after each piece.
    """

    def __init__(self, pieces: Callable[[], Iterable[bytes]], pause: float = 0.02) -> None:
        self._pieces, self._pause = pieces, pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.asked = threading.Event()

    def __enter__(self) -> "RawServer":
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            self.asked.set()
            for piece in self._pieces():
                connection.sendall(piece)
                time.sleep(self._pause)
