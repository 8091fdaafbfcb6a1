"""A model behind a server that speaks OpenAI's chat completions: its settings, and a client.

The key comes from the environment and goes to the server, nowhere else.
"""

import base64
import io
import ipaddress
import json
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_lightning.core.errors import FERError
from fer_lightning.llm.replies import Failure, is_filtered

FIRST_WAIT = 0.5  # seconds before the first retry of an image; doubled before each further one
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
LONGEST_TIMEOUT = 86_400  # seconds, a day; sockets take no more than some 9e9
MAX_REPLY_BYTES = 4 * 2**20  # a hundred times the longest honest reply

_RETRIED_STATUS = {408, 409, 429}  # and every 5xx
_RETRIED: set[Failure | None] = {"rate_limited", "server_error", "timeout", "connection_error"}
_OUT_OF_CREDIT = "insufficient_quota"  # OpenAI says it with a 429, which no waiting ends
# Names of what may be secret. OpenAI's prompt_cache_key is not, nor are numbers of tokens (max_tokens) or the
# vocabulary's own (eos_token).
_SECRET = re.compile(
    r"(?<!prompt_cache_)keys?$|(?:api|access|private)[-_ ]?key|secret|passw|passphrase|credential|bearer"
    r"|cookie|authorization|(?<![a-z])o?auth(?![a-z])|(?:access|auth|api)[-_ ]?tokens?$"
    r"|(?<!bos_)(?<!eos_)(?<!pad_)(?<!unk_)(?<!stop_)token$",
    re.IGNORECASE,
)
# How keys begin: of OpenAI and many others, Groq, Hugging Face, xAI, NVIDIA, Perplexity, Google.
_KEY = re.compile(r"\s*(?:sk-|gsk_|hf_|xai-|nvapi-|pplx-|AIza|(?i:bearer\s))")
_SHORTEST_KEY = 8  # local servers take keys such as "ollama": no secret, and a word of other texts


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """A model, its server and how to ask it: the ``predictor`` node.

    Attributes:
        model: The model's name, as the server knows it.
        base_url: What stands before ``/chat/completions``; no user name, password or query.
        api_key_env: The environment variable that holds the key; where it is unset, no key is sent.
        prompt: The question; ``{classes}`` becomes the class list.
        enlarge: Pixels of each side that one pixel becomes, 1 to 32.
        concurrency: Requests at a time.
        timeout: Seconds for a whole reply, at most ``LONGEST_TIMEOUT``.
        max_retries: Further requests for one image, after failures that may pass.
        max_requests: Requests after which the run stops, retries counted; None for no limit.
        extra: Further keys of the request's body.
        cache: The folder that keeps the replies; ``~`` is understood.

    Raises:
        FERError: If a value is not such. What may hold a key is not repeated.
    """

    model: str
    base_url: str
    api_key_env: str
    prompt: str
    enlarge: int
    concurrency: int
    timeout: float
    max_retries: int
    max_requests: int | None
    extra: Mapping[str, Any]
    cache: str

    def __post_init__(self) -> None:
        for name in ("model", "prompt", "cache"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise FERError(f"predictor.{name}={getattr(self, name)!r}: expected a text")
        for name, lowest, highest in (("enlarge", 1, 32), ("concurrency", 1, 256), ("max_retries", 0, 100)):
            _check_count(name, getattr(self, name), lowest, highest)
        if self.max_requests is not None:
            _check_count("max_requests", self.max_requests, 1, 10**9)
        is_number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not is_number or not 0 < self.timeout <= LONGEST_TIMEOUT:
            raise FERError(
                f"predictor.timeout={self.timeout}: expected a number of seconds above 0, at most "
                f"{LONGEST_TIMEOUT:,} (a day)"
            )
        self._check_address()
        self._check_secrets()

    def __str__(self) -> str:
        return f"{self.model} at {self.base_url}"

    @property
    def name(self) -> str:
        """The model's name, as the server knows it."""
        return self.model

    def facts(self) -> dict[str, Any]:
        """Describe the model for ``run.json``."""
        return {"model": self.model, "base_url": self.base_url, "api_key_env": self.api_key_env}

    def _check_address(self) -> None:
        url = str(self.base_url)
        if any(sign in url for sign in "@?#"):
            raise FERError(
                "predictor.base_url: holds a user name, a password or a query, which would be written to "
                "files; keep scheme, host and path, and give the key by predictor.api_key_env"
            )
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise FERError(f"predictor.base_url={url}: not a URL ({error})") from error
        if parts.scheme not in ("http", "https") or not parts.host:
            raise FERError(f"predictor.base_url={url}: expected something like http://localhost:11434/v1")

    def _check_secrets(self) -> None:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", str(self.api_key_env)):  # keys have small letters
            raise FERError(
                "predictor.api_key_env: expected the NAME of an environment variable in capitals, such as "
                "OPENAI_API_KEY; the key itself belongs into that variable"
            )
        if not isinstance(self.extra, Mapping):
            raise FERError("predictor.extra: expected keys and values, such as {temperature: 0}")
        for name in map(str, self.extra):
            if name in ("model", "messages", "stream", "n"):
                raise FERError(f"predictor.extra.{name}: this program sets it; leave it out")
        for name, value in _walk(self.extra):
            if _SECRET.search(name) or (isinstance(value, str) and _KEY.match(value)):
                raise FERError(
                    f"predictor.extra.{name}: looks like a key, which would be written to files; give it by "
                    "predictor.api_key_env"
                )
        key = self.key() or ""
        if len(key) >= _SHORTEST_KEY and any(key in str(getattr(self, one.name)) for one in fields(self)):
            raise FERError(
                f"predictor: what ${self.api_key_env} holds stands in the config too, which would be written "
                "to files; leave it to the environment"
            )

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> "LanguageModel":
        """Read the plain ``predictor`` node.

        Raises:
            FERError: If it has unknown keys or unusable values.
        """
        known = [field.name for field in fields(cls)]
        for name in node.keys() - {"name", *known}:  # its value may be a secret
            raise FERError(f"predictor.{name}: unknown, expected one of {', '.join(known)}")
        return cls(**{name: value for name, value in node.items() if name != "name"})

    def key(self) -> str | None:
        """Read the key from the environment.

        Raises:
            FERError: If it holds what no HTTP header can; httpx would repeat it in its own message.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", key):
            raise FERError(
                f"${self.api_key_env}: holds spaces or letters outside ASCII, as no key does; set it again"
            )
        return key or None

    def question(self, classes: Sequence[str]) -> str:
        """Write the prompt with the class list in it: ``angry, disgust, and fear``."""
        *others, last = classes
        comma = "," if len(others) > 1 else ""
        listed = f"{', '.join(others)}{comma} and {last}" if others else last
        return self.prompt.replace("{classes}", listed)

    def settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """List everything but the image that an answer depends on."""
        return {
            "model": self.model,
            "base_url": self.base_url.rstrip("/"),
            "prompt": self.question(classes),
            "enlarge": self.enlarge,
            "extra": dict(self.extra),
        }


def _walk(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """List what nested mappings and lists hold, each after what it is in: by ``a``, ``a.b``, ``a.0.b``."""
    pairs: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(content, Mapping):
        pairs = iter(content.items())
    elif isinstance(content, list):
        pairs = enumerate(content)
    for key, value in pairs:
        yield f"{above}{key}", value
        yield from _walk(value, f"{above}{key}.")


def _check_count(name: str, value: Any, lowest: int, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise FERError(f"predictor.{name}={value}: expected a whole number from {lowest} to {highest:,}")


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address means this very machine."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def png_url(image: NDArray[np.uint8], *, enlarge: int) -> str:
    """Write a face as a data URL.

    Args:
        image: ``(S, S)`` uint8 grey levels.
        enlarge: Each pixel becomes a square of this side; nothing is interpolated.
    """
    file = io.BytesIO()
    Image.fromarray(image.repeat(enlarge, axis=0).repeat(enlarge, axis=1)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def clean(text: str) -> str:
    """Make a stranger's text fit for one line of a terminal."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return plain if len(plain) <= 200 else f"{plain[:200]}..."


def error_message(body: str) -> str:
    """Find what a server says of an error; all it says where it does so in no usual way."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return clean(body)
    error = content.get("error", content) if isinstance(content, dict) else content
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return clean(error if isinstance(error, str) else json.dumps(error))


def retry_after(value: str | None, *, now: datetime) -> float:
    """Read a ``Retry-After`` header, seconds or a date, as seconds from now, 0 to ``LONGEST_WAIT``."""
    try:
        seconds = float(value or 0)
    except ValueError:
        try:
            date = parsedate_to_datetime(str(value))
        except (ValueError, OverflowError):
            return 0.0
        seconds = (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds()
    return min(seconds, LONGEST_WAIT) if seconds > 0 else 0.0


class Stopped(Exception):  # noqa: N818 - not an error: the run ends, and this thread with it
    """Another thread has ended the run."""


class Response(NamedTuple):
    """How asking about one image ended.

    Attributes:
        failure: Why there is no reply to read; None if there is one.
        http_status: Of the last reply; None where there was none.
        body: Its text, without the key; None where there was none.
        num_requests: How many it took.
    """

    failure: Failure | None
    http_status: int | None
    body: str | None
    num_requests: int


class Client:
    """Sends questions to one server, from several threads, and repeats what may succeed.

    The waits before retries grow exponentially, with jitter. Where a server says how long it wants to be left
    alone, all threads leave it alone. What every image would meet alike (a wrong key, model or URL, nobody
    listening, the budget used up) ends the run.

    Args:
        model: Whom to ask, and how.
        answered: Whether the server has answered such a question before; then HTTP 403 is about one image.

    Raises:
        FERError: If the environment names a proxy that cannot be used.
    """

    def __init__(self, model: LanguageModel, *, answered: bool = False) -> None:
        self.model = model
        self._answered = answered
        self.num_requests = 0
        self._key = model.key()
        self._url = f"{model.base_url.rstrip('/')}/chat/completions"
        self._heard = False  # from the server, in this run
        self._not_before = 0.0  # by the monotonic clock
        self._lock = threading.Lock()
        self._stop = threading.Event()
        try:
            self._http = httpx.Client(
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                timeout=httpx.Timeout(model.timeout, connect=min(model.timeout, 10.0)),
                limits=httpx.Limits(max_connections=None),
                trust_env=not is_loopback(httpx.URL(model.base_url).host),  # no proxy leads to this machine
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise FERError(f"the proxy that the environment names cannot be used ({error})") from error

    def stop(self) -> None:
        """Let no further request start; those under way end as they will."""
        self._stop.set()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, prompt: str, image: NDArray[np.uint8]) -> Response:
        """Ask about one image until there is a reply, or no retry is left.

        Args:
            prompt: The question.
            image: ``(S, S)`` uint8 grey levels.

        Raises:
            FERError: If every other image would fail alike, or the budget is used up.
            Stopped: If ``stop`` was called meanwhile.
        """
        content = [
            {"type": "text", "text": prompt},
            {"type": "image_url", "image_url": {"url": png_url(image, enlarge=self.model.enlarge)}},
        ]
        messages = [{"role": "user", "content": content}]
        body = json.dumps({"model": self.model.model, "messages": messages, **self.model.extra}).encode()
        number = 1
        while (response := self._try(body, number)).failure in _RETRIED and number <= self.model.max_retries:
            wait = min(FIRST_WAIT * 2 ** (number - 1), LONGEST_WAIT)
            self._sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads requests, hides nothing
            number += 1
        return response

    def _try(self, body: bytes, number: int) -> Response:
        self._take_turn()
        try:
            status, headers, text = self._post(body)
        except httpx.RequestError as error:
            if not self._heard and isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise FERError(
                    f"predictor.base_url={self.model.base_url}: nothing answers there "
                    f"({clean(str(error)) or type(error).__name__}); start the server, or correct the address"
                ) from error
            timed_out = isinstance(error, httpx.TimeoutException)
            return Response("timeout" if timed_out else "connection_error", None, None, number)
        self._heard = True
        if 200 <= status < 300 or (status == 400 and is_filtered(text)):
            self._answered = True
            return Response(None, status, text, number)
        self._check_hopeless(status, text)
        if status in _RETRIED_STATUS or status >= 500:
            with self._lock:
                pause = retry_after(headers.get("Retry-After"), now=datetime.now(UTC))
                self._not_before = max(self._not_before, time.monotonic() + pause)
            return Response("rate_limited" if status == 429 else "server_error", status, text, number)
        return Response("rejected", status, text, number)

    def _take_turn(self) -> None:
        """Wait until the server takes requests again, and count one."""
        while (seconds := self._not_before - time.monotonic()) > 0:
            self._sleep(seconds)
        with self._lock:
            if self._stop.is_set():
                raise Stopped
            if self.model.max_requests is not None and self.num_requests >= self.model.max_requests:
                raise FERError(f"predictor.max_requests={self.model.max_requests}: used up")
            self.num_requests += 1

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped

    def _post(self, body: bytes) -> tuple[int, httpx.Headers, str]:
        # httpx limits the wait for each piece; a server that sends a byte a minute would hold us for ever.
        deadline = time.monotonic() + self.model.timeout
        received = bytearray()
        headers = {"Content-Type": "application/json"}
        with self._http.stream("POST", self._url, content=body, headers=headers) as response:
            for piece in response.iter_bytes():
                received += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout("the whole reply took too long")
                if len(received) > MAX_REPLY_BYTES:
                    break
        return response.status_code, response.headers, self._redact(received.decode(errors="replace"))

    def _redact(self, text: str) -> str:
        """Remove the key, which a server may repeat."""
        if self._key is None or len(self._key) < _SHORTEST_KEY:
            return text
        return text.replace(self._key, "***").replace(self._key.replace("/", r"\/"), "***")

    def _check_hopeless(self, status: int, text: str) -> None:
        """End the run where every other image would be turned down as well."""
        told = f"{self._url}: HTTP {status} ({error_message(text) or 'no reason given'})"
        if status == 401 or (status == 403 and not self._answered):
            fault = "holds a key that this server does not take" if self._key else "is not set"
            raise FERError(f"{told}; ${self.model.api_key_env} {fault}")
        if status == 402 or (status == 429 and _OUT_OF_CREDIT in text):
            raise FERError(f"{told}; the account has no credit")
        if status in (404, 405):
            raise FERError(
                f"{told}; check predictor.model={self.model.model}, and predictor.base_url, which usually "
                "ends in /v1"
            )
        if 300 <= status < 400:
            raise FERError(f"{told}; it has moved, correct predictor.base_url")
