"""Parse the replies of a language model.

Nothing is guessed: a reply is an answer if it names exactly one class and otherwise only says that the face
shows it. Everything else (a refusal, two classes, half a reply, a login page) has a separate status.
"""

import json
import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

from fer_lightning.data.labels import canonical_name
from fer_lightning.llm.probabilities import Probabilities, from_json, from_logprobs, text_of_tokens

SCHEMA = 1

# The model has replied. These are final: asking again would only pay again.
ModelStatus = Literal["ok", "refusal", "unparsable", "two_labels", "empty", "null_content", "truncated"]
# There is no reply of the model; a later run asks again.
UnreadableStatus = Literal["html", "invalid_json", "no_choices"]
Failure = Literal["rejected", "rate_limited", "server_error", "timeout", "connection_error"]

ReplyRecord = dict[str, Any]  # one line of the JSONL file of replies


class Reply(NamedTuple):
    """The result of parsing one reply.

    Attributes:
        status: ``ok``, or why there is no answer.
        label: Position of the answer in the class list; -1 without an answer.
        probs: Class probabilities of an answer, if the reply has them.
    """

    status: ModelStatus | UnreadableStatus | Failure
    label: int = -1
    probs: Probabilities | None = None

    @property
    def is_final(self) -> bool:
        """Return whether the model itself has replied, so that asking again would only pay again."""
        return self.status in get_args(ModelStatus)


_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# The reasoning before an answer; some servers drop the opening tag.
_THOUGHTS = re.compile(
    r"^.*(?:</(?:think|thinking|thought|reasoning)>|\[/think\]|<\|channel\|>final(?:<\|message\|>)?)"
    r"|^\s*(?:<(?:think|thinking|thought|reasoning)>|\[think\]|<\|channel\|>analysis).*",
    re.DOTALL,
)
# Special tokens that a server left in the text: of the end of a turn, and others.
_END = re.compile(
    r"</s>|<eos>|<end_of_turn>|<end_of_utterance>|\[(?:eos|/?inst)\]"
    r"|<\|(?:im_end|eot_id|eom_id|eot|end|return|end_of_text|endoftext|end\W?of\W?sentence|/assistant)\|>"
)
_MARK = re.compile(
    r"<\|(?:im_start|start|start_header_id)\|>\s*(?:assistant|model)?|<start_of_turn>\s*(?:model)?"
    r"|<\|[^<>\s]{1,40}\|>|<(?:s|bos|pad|unk|sep|cls|start_of_image)>|\[(?:bos|pad|unk|sep|cls)\]"
)
# The language of a fenced code block is not part of the answer.
_FENCE = re.compile(r"(?:`{3,}|~{3,})(?:json[5c]?|ya?ml|te?xt|plaintext|markdown|md)\b")
_REFUSAL = re.compile(
    r"\b(i'm|i am|we're|we are) (\w+ )?(sorry|unable|not able|not allowed|not permitted|not comfortable)\b"
    r"|\b(i|we) (cannot|can not|can't|won't|will not|must decline|decline|refuse)\b"
    r"|\bas an? (ai|(large )?language model)\b|^\W*sorry\b|\bapologi[sz]e\b"
)
# The only words allowed next to the class, since the texts that deny one ("too blurry", "zero") cannot be
# listed. "to" and "be" alone are not allowed: "Happy to answer!" and "Be happy" do not name an expression.
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
# Synonyms with another common meaning ("I'm afraid the image is too small", "a normal photo").
_AMBIGUOUS = {"afraid", "normal", "disgusting"}
# Error codes of servers that withheld an image from the model, or its reply from us.
_FILTERED = {"content_filter", "content_policy_violation"}


def _classes_named(words: Sequence[str], classes: Sequence[str]) -> tuple[set[int], str]:
    """Find the classes that some words name, and return them with the remaining words."""
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
    """Find the one class that a reply names.

    Case, punctuation, markdown and the synonyms of ``labels`` are ignored. So an incomplete JSON object is an
    answer too: the model itself ended there, unless ``cut``.

    Args:
        text: The content of a reply.
        classes: The class list, in the order of the labels.
        cut: Whether the reply reached its token limit; then a class alone counts, but no sentence.
    """
    text = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").casefold()
    text = _THOUGHTS.sub("", text)
    turns = [turn for turn in _END.split(text) if _MARK.sub("", turn).strip()]
    text = _FENCE.sub("", _MARK.sub("", turns[0] if turns else ""))
    if not text.strip():
        return Reply("truncated" if cut else "empty")
    if not cut and (written := from_json(text.strip("`~ \n\r\t"), classes)):
        return _most_probable(written)
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


def _most_probable(written: Probabilities) -> Reply:
    """Answer with the most probable class; two of them are two labels."""
    highest = max(written.values)
    if written.values.count(highest) > 1:
        return Reply("two_labels")
    return Reply("ok", written.values.index(highest), written)


def answer_start(text: str) -> int:
    """Find where the words of an answer begin, after reasoning, marks, a code fence and the key of JSON.

    Args:
        text: The content of a reply.

    Returns:
        The position of its first letter; the length of the text if there is none.
    """
    lower = text.lower()
    if len(lower) != len(text):  # rare letters change the number of characters
        lower = text
    thoughts = _THOUGHTS.match(lower)
    start = thoughts.end() if thoughts else 0
    for pattern in (_MARK, _FENCE):
        while (found := re.compile(rf"\s*(?:{pattern.pattern})").match(lower, start)) and found.end() > start:
            start = found.end()
    if found := re.compile(r'[\s`~]*\{\s*"[^"]*"\s*:').match(lower, start):
        start = found.end()
    word = _WORD.search(lower, start)
    return word.start() if word else len(text)


def is_filtered(body: str) -> bool:
    """Return whether the body of an error reports that a content filter rejected this image."""
    try:
        error = json.loads(body)["error"]
        return bool(error["code"] in _FILTERED)
    except (ValueError, RecursionError, LookupError, TypeError):
        return False


def read_reply(body: str, classes: Sequence[str]) -> Reply:
    """Find the answer in the body of a successful HTTP reply, whatever a server or a proxy sent.

    Args:
        body: A chat completion, or the error of a content filter; anything else has a separate status.
        classes: The class list, in the order of the labels.
    """
    body = body.strip("\ufeff \t\r\n")
    if body.startswith("<"):
        return Reply("html")
    try:
        completion = json.loads(body)
    except (ValueError, RecursionError):
        return Reply("invalid_json")
    if is_filtered(body):
        return Reply("refusal")
    choices = completion.get("choices") if isinstance(completion, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Reply("no_choices")
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return Reply("refusal")
    cut = choice.get("finish_reason") == "length"
    content = message.get("content")
    if isinstance(content, list):  # some servers send the text in parts
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    if content is None:
        return Reply("truncated" if cut else "null_content")
    if not isinstance(content, str):
        return Reply("unparsable")
    reply = read_answer(content, classes, cut=cut)
    if reply.status == "ok" and reply.probs is None:
        start = answer_start(text_of_tokens(choice))
        return reply._replace(probs=from_logprobs(choice, start, classes))
    return reply


def read_record(record: ReplyRecord, classes: Sequence[str]) -> Reply:
    """Parse a saved reply."""
    return Reply(record["failure"]) if record["failure"] else read_reply(record["body"], classes)


def tokens_used(body: str | None) -> dict[str, int]:
    """Read the token counts of a reply (``prompt``, ``completion``); empty if the server sends none."""
    try:
        reply = json.loads(body or "")
    except (ValueError, RecursionError):
        return {}
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return {}
    counts = {kind: usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")}
    return {kind: count for kind, count in counts.items() if isinstance(count, int)}
