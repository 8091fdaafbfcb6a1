"""Settings of a vision language model and its server, checked so that no API key reaches a file."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import httpx

from fer_lightning.config.secrets import KEY_VALUE, MIN_KEY_LENGTH, SECRET_NAME
from fer_lightning.core.errors import FERError

MAX_TIMEOUT = 86_400  # seconds, a day; sockets overflow above some 9e9


@dataclass(frozen=True, kw_only=True)
class LLMSettings:
    """The ``predictor`` node: a model, its server, and how to ask it. Errors never repeat a possible key.

    Attributes:
        model: The name of the model on the server.
        base_url: The URL up to ``/chat/completions``, without user name, password or query.
        api_key_env: The environment variable that holds the key; if it is unset, no key is sent.
        prompt: The question; ``{classes}`` is replaced by the class list.
        enlarge: Side of the square that each pixel becomes, in pixels, 1 to 32.
        concurrency: Maximum number of simultaneous requests, 1 to 256.
        timeout: Seconds for a whole reply, above 0 and at most ``MAX_TIMEOUT``.
        max_retries: Maximum number of further requests for one image after transient failures, 0 to 100.
        max_requests: Number of requests, including retries, after which the run stops; None for no limit.
        logprobs: ``auto`` asks for the probabilities of the first tokens, and goes on without them where the
            server has none; None does not ask.
        structured: ``label`` asks for a JSON object with one class, ``probabilities`` for one with a number
            for each class, by a JSON schema; None leaves the form of the answer to the prompt.
        extra: Further keys of the request body.
        cache: The folder of the saved replies; may start with ``~``.
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
    logprobs: str | None = None
    structured: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "prompt", "cache"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name).strip():
                raise FERError(f"predictor.{name}={getattr(self, name)!r}: expected a string")
        for name, lowest, highest in (("enlarge", 1, 32), ("concurrency", 1, 256), ("max_retries", 0, 100)):
            _check_count(name, getattr(self, name), lowest, highest)
        if self.max_requests is not None:
            _check_count("max_requests", self.max_requests, 1, 10**9)
        is_number = isinstance(self.timeout, int | float) and not isinstance(self.timeout, bool)
        if not is_number or not 0 < self.timeout <= MAX_TIMEOUT:
            raise FERError(
                f"predictor.timeout={self.timeout}: expected a number of seconds above 0 and at most "
                f"{MAX_TIMEOUT:,} (a day)"
            )
        for name, known in (("logprobs", ("auto",)), ("structured", ("label", "probabilities"))):
            if (value := getattr(self, name)) is not None and value not in known:
                raise FERError(f"predictor.{name}={value}: expected null or {' or '.join(known)}")
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
                "predictor.base_url: contains a user name, a password or a query, which would be written to "
                "files; keep only scheme, host and path, and pass the key through predictor.api_key_env"
            )
        try:
            parts = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise FERError(f"predictor.base_url={url}: not a URL ({error})") from error
        if parts.scheme not in ("http", "https") or not parts.host:
            raise FERError(f"predictor.base_url={url}: expected a URL such as http://localhost:11434/v1")

    def _check_secrets(self) -> None:
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", str(self.api_key_env)):  # keys have lower-case letters
            raise FERError(
                "predictor.api_key_env: expected the NAME of an environment variable in capitals, such as "
                "OPENAI_API_KEY; store the key itself in that variable"
            )
        if not isinstance(self.extra, Mapping):
            raise FERError("predictor.extra: expected keys and values, such as {temperature: 0}")
        for name in map(str, self.extra):
            if name in ("model", "messages", "stream", "n"):
                raise FERError(f"predictor.extra.{name}: set by this program; remove it")
        for name, value in _walk(self.extra):
            if SECRET_NAME.search(name) or (isinstance(value, str) and KEY_VALUE.match(value)):
                raise FERError(
                    f"predictor.extra.{name}: looks like a key, which would be written to files; pass it "
                    "through predictor.api_key_env"
                )
        key = self.api_key() or ""
        settings = (str(getattr(self, field.name)) for field in fields(self))
        if len(key) >= MIN_KEY_LENGTH and any(key in value for value in settings):
            raise FERError(
                f"predictor: the config contains the value of ${self.api_key_env}, which would be written "
                "to files; keep it only in the environment"
            )

    @classmethod
    def from_config(cls, node: Mapping[str, Any]) -> "LLMSettings":
        """Build the settings from the plain ``predictor`` node."""
        known = [field.name for field in fields(cls)]
        for name in node.keys() - {"name", *known}:  # its value may be a secret
            raise FERError(f"predictor.{name}: unknown, expected one of {', '.join(known)}")
        return cls(**{name: value for name, value in node.items() if name != "name"})

    def api_key(self) -> str | None:
        """Read the key from the environment; refuse one that no HTTP header can hold."""
        key = os.environ.get(self.api_key_env, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]*", key):  # httpx would repeat it in its own message
            raise FERError(
                f"${self.api_key_env}: contains spaces or characters outside ASCII, which no key does; "
                "set it again"
            )
        return key or None

    def question(self, classes: Sequence[str]) -> str:
        """Fill the class list into the prompt, as in ``angry, disgust, and fear``."""
        *others, last = classes
        comma = "," if len(others) > 1 else ""
        listed = f"{', '.join(others)}{comma} and {last}" if others else last
        return self.prompt.replace("{classes}", listed)

    def request_settings(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return everything that an answer depends on, except the image."""
        asked = {"logprobs": self.logprobs, "structured": self.structured}
        return {
            "model": self.model,
            "base_url": self.base_url.rstrip("/"),
            "prompt": self.question(classes),
            "enlarge": self.enlarge,
            "extra": dict(self.extra),
            # Without them, the replies to the same question that were saved before these settings count.
            **{name: value for name, value in asked.items() if value is not None},
        }

    def response_format(self, classes: Sequence[str]) -> dict[str, Any] | None:
        """Return the ``response_format`` of a request; None without ``structured``."""
        if self.structured is None:
            return None
        properties: dict[str, Any] = {"emotion": {"type": "string", "enum": list(classes)}}
        if self.structured == "probabilities":
            properties = {name: {"type": "number"} for name in classes}
        schema = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": "emotion", "strict": True, "schema": schema}}


def _walk(content: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """List the values in nested mappings and lists with their dotted names: ``a``, ``a.b``, ``a.0.b``."""
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
