"""A client for servers with the chat completions API of OpenAI.

The API key is read from the environment and sent to the server, and to nothing else.
"""

import base64
import io
import ipaddress
import json
import math
import random
import threading
import time
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.config.secrets import MIN_KEY_LENGTH, secret_pattern
from fer_lightning.core.errors import FERError
from fer_lightning.llm.deadline import bound_waits
from fer_lightning.llm.probabilities import NUM_TOKENS
from fer_lightning.llm.replies import Failure, is_filtered
from fer_lightning.llm.settings import LLMSettings

FIRST_WAIT = 0.5  # seconds before the first retry of an image, doubled for each further retry
MAX_WAIT = 60.0  # seconds, whatever the server asks for
LAST_SECONDS = 10.0  # for requests in progress when the run is stopped
MAX_REPLY_BYTES = 4 * 2**20  # a hundred times the length of a long reply

_RETRIED_STATUS = {408, 409, 429}  # in addition to every 5xx
_RETRIED: set[Failure | None] = {"rate_limited", "server_error", "timeout", "connection_error"}
_UNSUPPORTED = {400, 403, 422, 501}  # sent by servers that know, and do not give, log-probabilities
_NO_CREDIT = "insufficient_quota"  # sent by OpenAI with status 429, although waiting does not help


def is_loopback(host: str) -> bool:
    """Return whether a host name or address refers to this machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def png_url(image: NDArray[np.uint8], *, enlarge: int) -> str:
    """Encode an image as a data URL.

    Args:
        image: ``(S, S)`` uint8 grey levels or ``(S, S, 3)`` uint8 colours.
        enlarge: Side of the square that each pixel becomes, without interpolation.
    """
    file = io.BytesIO()
    Image.fromarray(image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def clean(text: str) -> str:
    """Reduce an untrusted text to one printable line of at most 200 characters."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return plain if len(plain) <= 200 else f"{plain[:200]}..."


def error_message(body: str) -> str:
    """Find the message in the body of an error; return the whole body if it has no usual form."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return clean(body)
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return clean(error if isinstance(error, str) else json.dumps(error))


def retry_after(value: str | None, *, now: datetime) -> float:
    """Convert a ``Retry-After`` header, seconds or a date, to seconds from now, 0 to ``MAX_WAIT``."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            date = parsedate_to_datetime(str(value))
        except (ValueError, OverflowError):
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(seconds, MAX_WAIT) if seconds > 0 else 0.0


def _unpack(received: bytes, headers: httpx.Headers) -> bytes:
    """Undo a single compression, which was not asked for, up to ``MAX_REPLY_BYTES``."""
    coding = headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("gzip", "x-gzip", "deflate"):
        return received
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # with a header, and without
        with suppress(zlib.error):
            return zlib.decompressobj(window).decompress(received, MAX_REPLY_BYTES)
    return received


class Stopped(Exception):  # noqa: N818 - not an error
    """Another thread has ended the run, so this thread ends too."""


class Response(NamedTuple):
    """The result of asking about one image.

    Attributes:
        failure: Why there is no usable reply; None if there is one.
        http_status: The HTTP status of the last reply; None without a reply.
        body: The body of the last reply, without the key; None without a reply.
        num_requests: Number of requests, including retries.
    """

    failure: Failure | None
    http_status: int | None
    body: str | None
    num_requests: int


class Client:
    """Sends questions to one server from several threads, and retries after transient failures.

    Waits before retries grow exponentially, with jitter. A ``Retry-After`` of the server makes all threads
    wait. A failure that every image would have (a wrong key, model or URL, no server, no requests left) ends
    the run.

    Args:
        settings: The model, its server, and how to ask it.
        answered: Whether the server has answered such a question before; HTTP 403 then concerns one image.

    Attributes:
        num_requests: Number of requests so far, including retries.
        asks_for_logprobs: Whether requests ask for log-probabilities, which this server has not refused.
    """

    def __init__(self, settings: LLMSettings, *, answered: bool = False) -> None:
        self.settings = settings
        self._answered = answered
        self.asks_for_logprobs = settings.logprobs is not None
        self.num_requests = 0
        self._key = settings.api_key()
        self._echo = secret_pattern(self._key) if self._key and len(self._key) >= MIN_KEY_LENGTH else None
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._connected = False  # whether the server has replied in this run
        self._not_before = 0.0  # on the monotonic clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._last_moment = math.inf  # on the monotonic clock
        self._thread = threading.local()  # the deadline of a thread's request
        try:
            self._http = httpx.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx.Timeout(settings.timeout, connect=min(settings.timeout, 10.0)),
                limits=httpx.Limits(max_connections=None),
                trust_env=not is_loopback(
                    httpx.URL(settings.base_url).host
                ),  # a proxy cannot reach this machine
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise FERError(f"the proxy set in the environment cannot be used ({error})") from error
        bound_waits(self._http, self._remaining)

    def stop(self) -> None:
        """Start no further requests; those in progress, which are paid for, get ``LAST_SECONDS``."""
        if not self._stop.is_set():
            self._last_moment = time.monotonic() + LAST_SECONDS
        self._stop.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(
        self, prompt: str, image: NDArray[np.uint8], response_format: dict[str, Any] | None = None
    ) -> Response:
        """Ask about one image until there is a reply or no retry is left.

        Args:
            prompt: The question.
            image: ``(S, S)`` uint8 grey levels or ``(S, S, 3)`` uint8 colours.
            response_format: That of the request; None for free text.

        Raises:
            FERError: If every other image would fail too, or no requests are left.
            Stopped: If ``stop`` was called in the meantime.
        """
        content = [
            {"type": "text", "text": prompt},
            {"type": "image_url", "image_url": {"url": png_url(image, enlarge=self.settings.enlarge)}},
        ]
        messages = [{"role": "user", "content": content}]
        request: dict[str, Any] = {"model": self.settings.model, "messages": messages}
        if response_format is not None:
            request["response_format"] = response_format
        request |= self.settings.extra
        number = 1
        while (
            response := self._try(request, number)
        ).failure in _RETRIED and number <= self.settings.max_retries:
            wait = min(FIRST_WAIT * 2 ** (number - 1), MAX_WAIT)
            self._sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - not for security
            number += 1
        return response

    def _try(self, request: dict[str, Any], number: int) -> Response:
        asked = {"logprobs": True, "top_logprobs": NUM_TOKENS} if self.asks_for_logprobs else {}
        self._wait_for_turn()
        try:
            status, headers, text = self._post(json.dumps(request | asked).encode())
            if asked and status in _UNSUPPORTED and "logprobs" in text:
                self.asks_for_logprobs = False
                self._wait_for_turn()
                number += 1
                status, headers, text = self._post(json.dumps(request).encode())
        except httpx.RequestError as error:
            if not self._connected and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise FERError(
                    f"predictor.base_url={self.settings.base_url}: no server answers there "
                    f"({clean(str(error)) or type(error).__name__}); start the server or correct the address"
                ) from error
            timed_out = isinstance(error, httpx.TimeoutException)
            return Response("timeout" if timed_out else "connection_error", None, None, number)
        self._connected = True
        if 200 <= status < 300 or (status == 400 and is_filtered(text)):
            self._answered = True
            return Response(None, status, text, number)
        self._raise_if_permanent(status, text)
        if status in _RETRIED_STATUS or status >= 500:
            with self._lock:
                pause = retry_after(headers.get("Retry-After"), now=datetime.now(UTC))
                self._not_before = max(self._not_before, time.monotonic() + pause)
            return Response("rate_limited" if status == 429 else "server_error", status, text, number)
        return Response("rejected", status, text, number)

    def _wait_for_turn(self) -> None:
        """Wait until the server accepts requests again, and count this one."""
        while (seconds := self._not_before - time.monotonic()) > 0:
            self._sleep(seconds)
        with self._lock:
            if self._stop.is_set():
                raise Stopped
            if self.settings.max_requests is not None and self.num_requests >= self.settings.max_requests:
                raise FERError(f"predictor.max_requests={self.settings.max_requests}: used up")
            self.num_requests += 1

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _post(self, body: bytes) -> tuple[int, httpx.Headers, str]:
        self._thread.deadline = time.monotonic() + self.settings.timeout
        received = bytearray()
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            for piece in response.iter_raw():
                received += piece
                if len(received) > MAX_REPLY_BYTES:
                    break
        text = _unpack(bytes(received), response.headers).decode(errors="replace")
        return response.status_code, response.headers, self._redact(text)

    def _remaining(self) -> float:
        """Return the seconds that the request of this thread may still take."""
        deadline = min(getattr(self._thread, "deadline", math.inf), self._last_moment)
        return deadline - time.monotonic()

    def _redact(self, text: str) -> str:
        """Remove the key, which a server may repeat in its reply."""
        return text if self._echo is None else self._echo.sub("***", text)

    def _raise_if_permanent(self, status: int, text: str) -> None:
        """Raise an error for a status that every other image would get too."""
        reason = f"{self._url}: HTTP {status} ({error_message(text) or 'no reason given'})"
        if status == 401 or (status == 403 and not self._answered):
            fault = "holds a key that the server rejects" if self._key else "is not set"
            raise FERError(f"{reason}; ${self.settings.api_key_env} {fault}")
        if status == 402 or (status == 429 and _NO_CREDIT in text):
            raise FERError(f"{reason}; the account has no credit")
        if status in (404, 405):
            raise FERError(
                f"{reason}; check predictor.model={self.settings.model} and predictor.base_url, which "
                "usually ends in /v1"
            )
        if 300 <= status < 400:
            raise FERError(f"{reason}; it has moved, correct predictor.base_url")
