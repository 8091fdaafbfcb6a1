"""A vision language model as a predictor: one request per image, as in section 7 of the paper.

Every reply is saved in a file that is also the cache, so a stopped run continues without paying twice.
"""

import hashlib
import json
import logging
import queue
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import write_atomically
from fer_lightning.core.terminal import console
from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.llm.client import Client, error_message
from fer_lightning.llm.replies import SCHEMA, Reply, ReplyRecord, read_record, tokens_used
from fer_lightning.llm.reply_file import ReplyFile
from fer_lightning.llm.settings import LLMSettings

log = logging.getLogger(__name__)

MAX_FAILURES_IN_A_ROW = 10  # images without a reply of the model, after which the run stops
SECONDS_PER_LINE = 30.0  # between two lines of progress if the output is not a terminal


class LLMPredictor:
    """Asks a vision language model the same question about every image.

    Args:
        settings: The model, its server, and how to ask it.
        images: ``(N, S, S)`` uint8 grey levels or ``(N, S, S, 3)`` uint8 colours.
        ids: ``(N,)`` str, unique.
        labels: ``(N,)`` int64 true classes, which the model does not see.
        hashes: ``(N,)`` uint64, equal for pixel-identical images, for which one request is sent.
        classes: The class list.
    """

    def __init__(
        self,
        settings: LLMSettings,
        *,
        images: NDArray[np.uint8],
        ids: NDArray[np.str_],
        labels: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        classes: tuple[str, ...],
    ) -> None:
        self.settings = settings
        self.images = images
        self.ids = ids
        self.labels = labels
        self.classes = classes
        self.num_requests = 0
        self.num_cached = 0
        self.probabilities: dict[str, Any] | None = None  # how many answers have them, after `predict`
        self._request = settings.request_settings(classes)
        self._hashes = [f"{number:016x}" for number in hashes.tolist()]
        self._keys = [_hash(self._request | {"image": name}) for name in self._hashes]
        self._records: dict[str, ReplyRecord] = {}  # by key
        self._failed_before: set[str] = set()  # keys of images without a reply in an earlier run

    @property
    def cache(self) -> Path:
        """The file of all replies to this question."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", self.settings.model)[:60].strip(".")
        return Path(self.settings.cache).expanduser() / f"{name}_{_hash(self._request)[:12]}.jsonl"

    def predict(self, *, check: Callable[[], None]) -> Predictions:
        """Ask about every image that the model has not yet replied to.

        Args:
            check: Called several times a second; an exception it raises ends the run after the requests in
                progress.

        Returns:
            The answers: NaN without an answer; the class probabilities if every answer has them, otherwise
            probability 1 for the class named. No image counts as leaked, since the training data of the model
            are unknown.

        Raises:
            FERError: If the run cannot continue, or the model has not replied to any image. Replies are
                saved, and another call continues from there.
        """
        saved = ReplyFile(self.cache)
        try:
            final = {key: record for key, record in saved.records.items() if self._read(record).is_final}
            self._records = {key: final[key] for key in self._keys if key in final}
            self._failed_before = saved.records.keys() - final.keys()
            self.num_cached = self._num_answered()
            rows = sorted({key: row for row, key in enumerate(self._keys) if key not in final}.values())
            counts = f"{len(rows):,} images; {self.num_cached:,} were answered before"
            log.info("asking %s at %s about %s", self.settings.model, self.settings.base_url, counts)
            if rows:
                self._ask_about(rows, saved, check, answered=bool(final))
        finally:
            saved.close()
        if not self._num_answered():  # an accuracy of 0 would be due to the server, not to the model
            records = [self._records[key] for key in self._keys]
            raise FERError(
                f"{self.settings.base_url}: {self.settings.model} replied to none of {len(records):,} images "
                f"({self._tally(records)}); check that the model accepts images and that the server works; "
                "the replies are saved, and the same command asks again"
            )
        return self._predictions()

    def _ask_about(
        self, rows: Sequence[int], saved: ReplyFile, check: Callable[[], None], *, answered: bool
    ) -> None:
        client = Client(self.settings, answered=answered)
        ended: queue.SimpleQueue[ReplyRecord | BaseException] = queue.SimpleQueue()

        def work(row: int) -> None:
            try:
                ended.put(self._ask_one(row, client, saved))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads the queue
                ended.put(error)
                client.stop()

        try:
            with (
                _progress(len(rows), client) as advance,
                ThreadPoolExecutor(self.settings.concurrency) as pool,
            ):
                try:
                    for row in rows:
                        pool.submit(work, row)
                    self._watch(ended, len(rows), advance, check)
                except BaseException:
                    client.stop()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise  # after the requests in progress, since they are paid for
        except FERError as error:
            if not (num_answered := self._num_answered()):
                raise
            raise FERError(
                f"{error}; the replies to {num_answered:,} of {len(self._keys):,} images are saved, and the "
                "same command continues from there"
            ) from error
        finally:
            self.num_requests = client.num_requests
            client.close()

    def _watch(
        self,
        ended: "queue.SimpleQueue[ReplyRecord | BaseException]",
        num_images: int,
        advance: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        """Wait for the threads; raise the first exception, or an error if too many images in a row fail."""
        failures: list[ReplyRecord] = []
        while num_images:
            check()
            try:
                record = ended.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(record, BaseException):
                raise record
            num_images -= 1
            advance()
            if self._read(record).is_final:
                failures = []
            elif record["key"] not in self._failed_before:  # a second failure is due to the image
                failures.append(record)
            if len(failures) == MAX_FAILURES_IN_A_ROW:
                raise FERError(
                    f"{self.settings.base_url}: no answer to {len(failures)} images in a row "
                    f"({self._tally(failures)})"
                )

    def _tally(self, records: Sequence[ReplyRecord]) -> str:
        """Count records by status, and quote the last error of the server."""
        counts = Counter(self._read(record).status for record in records)
        bodies = [record["body"] for record in records if record["body"]]
        last = f"; the last reply: {error_message(bodies[-1])}" if bodies else ""
        return ", ".join(f"{count} {status}" for status, count in counts.most_common()) + last

    def _ask_one(self, row: int, client: Client, saved: ReplyFile) -> ReplyRecord:
        started = time.perf_counter()
        response_format = self.settings.response_format(self.classes)
        response = client.ask(self._request["prompt"], self.images[row], response_format)
        record: ReplyRecord = {
            "schema": SCHEMA,
            "key": self._keys[row],
            "image": self._hashes[row],
            "id": str(self.ids[row]),
            **self._request,
            "asked": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
            "requests": response.num_requests,
            "http_status": response.http_status,
            "failure": response.failure,
            "body": response.body,
        }
        saved.append(record)
        self._records[self._keys[row]] = record
        return record

    def _read(self, record: ReplyRecord) -> Reply:
        return read_record(record, self.classes)

    def _num_answered(self) -> int:
        return sum(key in self._records and self._read(self._records[key]).is_final for key in self._keys)

    def write(self, path: Path) -> None:
        """Write the replies so far in the order of the images, with true class, status and answer."""
        rows = []
        for key, image_id, label in zip(self._keys, self.ids, self.labels, strict=True):
            if key in self._records:
                reply = self._read(self._records[key])
                answer = None if reply.label < 0 else self.classes[reply.label]
                found = {
                    "id": str(image_id),
                    "label": self.classes[label],
                    "status": reply.status,
                    "answer": answer,
                    **_written_probs(reply, self.classes),
                }
                rows.append(
                    found | {name: value for name, value in self._records[key].items() if name != "id"}
                )
        write_atomically(path, "".join(f"{json.dumps(row)}\n" for row in rows))

    def facts(self) -> dict[str, Any]:
        """Count the requests of this run, the images answered before it, and all tokens reported."""
        tokens: Counter[str] = Counter()
        for record in self._records.values():
            tokens.update(tokens_used(record["body"]))
        facts = {"num_requests": self.num_requests, "num_cached": self.num_cached, "tokens": dict(tokens)}
        return facts if self.probabilities is None else facts | {"probabilities": self.probabilities}

    def _predictions(self) -> Predictions:
        """Convert the replies to predictions, see ``predict``."""
        replies = [self._read(self._records[key]) for key in self._keys]
        probs = np.full((len(replies), len(self.classes)), np.nan, np.float32)
        found = _describe_probabilities(replies)
        if self.settings.logprobs or self.settings.structured or found["with_probabilities"]:
            self.probabilities = found
            _log_probabilities(found)
        for row, reply in enumerate(replies):
            if reply.status == OK:
                one_hot = [float(label == reply.label) for label in range(len(self.classes))]
                probs[row] = reply.probs.values if found["used"] and reply.probs else one_hot
        return Predictions(
            ids=self.ids,
            labels=self.labels,
            probs=probs,
            status=np.array([reply.status for reply in replies]),
            leaked=np.zeros(len(replies), dtype=bool),
            classes=self.classes,
        )


def _log_probabilities(found: Mapping[str, Any]) -> None:
    answers, given = f"{found['answers']:,}", f"{found['with_probabilities']:,}"
    if found["used"]:
        unknown = f"{100 * found['unknown_mean']:.1f} %"
        log.info("probabilities of all %s answers; %s on average belong to no class", answers, unknown)
    else:
        log.warning(
            "no probabilities: %s of %s answers have them, and they are used only if all do; each answer "
            "counts with probability 1",
            given,
            answers,
        )


def _written_probs(reply: Reply, classes: Sequence[str]) -> dict[str, Any]:
    """Return what ``replies.jsonl`` says of the probabilities of a reply."""
    if reply.probs is None:
        return {}
    values = [round(value, 6) for value in reply.probs.values]
    return {"probs": dict(zip(classes, values, strict=True)), "unknown": round(reply.probs.unknown, 6)}


def _describe_probabilities(replies: Sequence[Reply]) -> dict[str, Any]:
    """Count the answers with probabilities, which are used if all answers have them."""
    answers = [reply for reply in replies if reply.status == OK]
    given = [(reply, reply.probs) for reply in answers if reply.probs is not None]
    return {
        "answers": len(answers),
        "with_probabilities": len(given),
        "used": 0 < len(answers) == len(given),
        "unknown_mean": sum(probs.unknown for _, probs in given) / len(given) if given else None,
        "most_probable_is_another": sum(
            probs.values.index(max(probs.values)) != reply.label for reply, probs in given
        ),
    }


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def _progress(total: int, client: Client) -> Iterator[Callable[[], None]]:
    """Show the progress: a bar on a terminal, otherwise a line every ``SECONDS_PER_LINE``."""
    started = printed = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, printed
        done += 1
        now = time.monotonic()
        state = f"{done / max(now - started, 1e-3):.1f} images/s, {client.num_requests:,} requests"
        bar.update(task, completed=done, state=state)
        if bar.disable and (done == total or now - printed >= SECONDS_PER_LINE):
            printed = now
            log.info("%s of %s images, %s", f"{done:,}", f"{total:,}", state)

    with Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=total, state="")
        yield advance
