"""What a language model's replies say, and the file that keeps them.

Nothing is guessed: a reply is an answer if it names one class, and beside it says nothing but that the face
shows it. Whatever else comes back (a refusal, two classes, half a reply, a login page) is a status of its
own.
"""

import contextlib
import json
import os
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from filelock import FileLock, Timeout

from fer_lightning.core.errors import FERError
from fer_lightning.data.labels import canonical_name

SCHEMA = 1

# What the model said, for good: it was asked, it replied, it was paid.
Said = Literal["ok", "refusal", "unparsable", "two_labels", "empty", "null_content", "truncated"]
# What kept the model's words away; a later run asks again.
Unread = Literal["html", "invalid_json", "no_choices"]
Failure = Literal["rejected", "rate_limited", "server_error", "timeout", "connection_error"]

Line = dict[str, Any]  # of a JSONL of replies


class Reply(NamedTuple):
    """What one reply comes to.

    Attributes:
        status: ``ok``, or why there is no answer.
        label: Position in the class list; -1 where there is no answer.
    """

    status: Said | Unread | Failure
    label: int = -1

    @property
    def said(self) -> bool:
        """Whether these are the model's words, which asking again would only pay for once more."""
        return self.status in get_args(Said)


_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# Reasoning models think aloud before they answer.
# Some servers swallow the opening tag.
_THOUGHTS = re.compile(r"^.*</think>|^\s*<think>.*", re.DOTALL)
# What a fence of code says that it holds is no word of the answer.
_FENCE = re.compile(r"(?:`{3,}|~{3,})(?:json[5c]?|ya?ml|te?xt|plaintext|markdown|md)\b")
_REFUSAL = re.compile(
    r"\b(i'm|i am|we're|we are) (\w+ )?(sorry|unable|not able|not allowed|not permitted|not comfortable)\b"
    r"|\b(i|we) (cannot|can not|can't|won't|will not|must decline|decline|refuse)\b"
    r"|\bas an? (ai|(large )?language model)\b|^\W*sorry\b|\bapologi[sz]e\b"
)
# All that may stand beside the class; a list of what denies one ("too blurry to tell", "zero") has no end.
# Bare "to" and "be" are not here: "Happy to answer!" and "Be happy" name no face's expression.
_FILLER = re.compile(
    r"(?:(?:"
    r"a|an|the|this|that|these|it|he|she|they|it's|he's|she's|they're|that's|his|her|hers|their|its|my|who|"
    r"(?:person|individual|subject|man|woman|child|boy|girl|baby|face|image)(?:'s)?|men|women|children|people|"
    r"faces|photo|photograph|picture|young|old|older|elderly|"
    r"is|are|seems?|seeming|appears?|appearing|looks?|looking|feels?|feelings?|has|have|having|to be|to have|"
    r"express(?:es|ed|ing)?|expressions?|facial|shows?|showing|shown|displays?|displaying|displayed|"
    r"conveys?|conveying|conveyed|emotions?|emotional|state|mood|"
    r"answer|response|option|choice|label|class|category|final|best|primary|main|dominant|overall|"
    r"most likely|likely|probably|very|quite|really|extremely|clearly|slightly|somewhat|"
    r"of|with|in|from|by|like|based on|provided|given"
    r")(?: |$))+"
)
# Synonyms with another everyday meaning ("I'm afraid the image is too small", "a normal photo").
_AMBIGUOUS = {"afraid", "normal", "disgusting"}
# What servers call it if they kept an image from the model, or its words from us.
_FILTERED = {"content_filter", "content_policy_violation"}


def _classes_named(words: Sequence[str], classes: Sequence[str]) -> tuple[set[int], str]:
    """Find the classes that some words name, and the text that is left without them."""
    names = {canonical_name(name): index for index, name in enumerate(classes)}
    longest = 1 + max(name.count("_") for name in names)
    found, rest, start = set(), [], 0
    while start < len(words):
        for length in range(min(longest, len(words) - start), 0, -1):
            index = names.get(canonical_name("_".join(words[start : start + length])))
            if index is not None:
                found.add(index)
                start += length
                break
        else:
            rest.append(words[start])
            start += 1
    return found, " ".join(rest)


def read_answer(text: str, classes: Sequence[str], *, cut: bool = False) -> Reply:
    """Find the one class that a model's words name.

    Case, punctuation, markdown and the synonyms of ``labels`` make no difference. So a JSON object whose end
    is missing is an answer as well: the model itself ended there, unless ``cut``.

    Args:
        text: The content of a reply.
        classes: The class list, in the order of the labels.
        cut: Whether the reply met its limit of tokens; then a bare class counts, but no sentence.
    """
    text = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").casefold()
    text = _FENCE.sub("", _THOUGHTS.sub("", text))
    if not text.strip():
        return Reply("truncated" if cut else "empty")
    words = _WORD.findall(text)
    labels, rest = _classes_named(words, classes)
    if len(labels) == 1 and not rest:
        return Reply("ok", labels.pop())
    if _REFUSAL.search(text):
        return Reply("refusal")
    if len(labels) > 1:
        return Reply("two_labels")
    if cut:
        return Reply("truncated")
    unclear = "?" in text or not _AMBIGUOUS.difference(classes).isdisjoint(words)
    if not labels or unclear or not _FILLER.fullmatch(rest):
        return Reply("unparsable")
    return Reply("ok", labels.pop())


def is_filtered(body: str) -> bool:
    """Tell whether the body of an error says that a filter of content turned this one image down."""
    try:
        error = json.loads(body)["error"]
        return bool(error["code"] in _FILTERED)
    except (ValueError, RecursionError, LookupError, TypeError):
        return False


def read_reply(body: str, classes: Sequence[str]) -> Reply:
    """Find the answer in the body of a successful HTTP reply, whatever a server or a proxy sent.

    Args:
        body: Expected to be a chat completion, or the error of a filter of content.
        classes: The class list, in the order of the labels.
    """
    body = body.strip("\ufeff \t\r\n")
    if body.startswith("<"):
        return Reply("html")
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return Reply("invalid_json")
    if is_filtered(body):
        return Reply("refusal")
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Reply("no_choices")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Reply("refusal")
    cut = choice.get("finish_reason") == "length"
    content = message.get("content")
    if isinstance(content, list):  # some servers send a text in parts
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if content is None:
        return Reply("truncated" if cut else "null_content")
    return read_answer(content, classes, cut=cut) if isinstance(content, str) else Reply("unparsable")


def read_line(line: Line, classes: Sequence[str]) -> Reply:
    """Say what a kept reply comes to."""
    return Reply(line["failure"]) if line["failure"] else read_reply(line["body"], classes)


def tokens_used(body: str | None) -> dict[str, int]:
    """Read how many tokens a server counted (``prompt``, ``completion``); empty if it does not tell."""
    try:
        reply = json.loads(body or "")
    except (ValueError, RecursionError):
        return {}
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return {}
    told = {kind: usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")}
    return {kind: count for kind, count in told.items() if isinstance(count, int)}


class ReplyFile:
    """The replies to one question about many images: a JSONL that only grows.

    A line is on the disk before its image counts as answered. A line that a killed process tore, or that
    lacks what is read of it, is skipped.

    Args:
        path: Made if it does not exist; one process at a time writes it.

    Raises:
        FERError: If another process writes it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = threading.Lock()
        self._lock = FileLock(path.with_suffix(".lock"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
            # Of a buffer, closing would write again what a full disk has refused.
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            content = self._file.read()
            if content and not content.endswith(b"\n"):
                self._file.write(b"\n")
        except Timeout as error:
            raise FERError(
                f"{path}: another process is asking the same question; wait until it has ended"
            ) from error
        except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
            if hasattr(self, "_file"):
                self._file.close()
            self._lock.release()
            reason = getattr(error, "strerror", None) or error
            raise FERError(f"{path}: cannot be written ({reason}); choose another predictor.cache") from error
        self.lines = dict(self._parse(content))

    @staticmethod
    def _parse(content: bytes) -> Iterator[tuple[str, Line]]:
        for text in content.split(b"\n"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            match line:
                case {"schema": schema, "key": str(key), "failure": None, "body": str()} | {
                    "schema": schema,
                    "key": str(key),
                    "failure": str(),
                    "body": str() | None,
                } if schema == SCHEMA:
                    yield key, line

    def append(self, line: Line) -> None:
        """Keep a reply.

        Raises:
            FERError: If it cannot be written; to go on would be to pay for what is lost.
        """
        text = json.dumps(line).encode() + b"\n"  # in ASCII: a file's name may hold what UTF-8 cannot
        try:
            with self._writing:
                self._write(text)
        except OSError as error:
            raise FERError(f"{self.path}: a reply cannot be kept ({error.strerror or error})") from error

    def _write(self, text: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = text
            while rest:  # a disk that is nearly full takes a part
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)  # half a line would spoil the next
            raise

    def close(self) -> None:
        """Close the file, and let others write it."""
        try:
            self._file.close()
        finally:
            self._lock.release()
