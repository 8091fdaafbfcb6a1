"""A vision language model as a predictor: it is shown faces, one a request, as in section 7 of the paper.

Every reply is kept in a file that only grows and is the cache too: a stopped run continues where it was and
pays for nothing twice.
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
from fer_lightning.llm.client import Client, LanguageModel, error_message
from fer_lightning.llm.replies import SCHEMA, Line, Reply, ReplyFile, read_line, tokens_used

log = logging.getLogger(__name__)

FAILURES_IN_A_ROW = 10  # images without the model's words, after which the server is taken for broken
LINE_EVERY = 30.0  # seconds between two lines of progress, away from a terminal


class LLMPredictor:
    """A language model is asked the same question about some images.

    Args:
        model: Whom to ask, and how.
        images: ``(N, S, S)`` uint8 grey levels.
        ids: ``(N,)`` str, unique.
        labels: ``(N,)`` int64 true classes, which the model is not told.
        hashes: ``(N,)`` uint64, equal for pixel-identical images, which are asked about once.
        classes: The class list.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        images: NDArray[np.uint8],
        ids: NDArray[np.str_],
        labels: NDArray[np.int64],
        hashes: NDArray[np.uint64],
        classes: tuple[str, ...],
    ) -> None:
        self.model = model
        self.images = images
        self.ids = ids
        self.labels = labels
        self.classes = classes
        self.num_requests = 0
        self.num_cached = 0
        self._settings = model.settings(classes)
        self._hashes = [f"{number:016x}" for number in hashes.tolist()]
        self._keys = [_hash(self._settings | {"image": name}) for name in self._hashes]
        self._lines: dict[str, Line] = {}  # by key
        self._failed_before: set[str] = set()  # keys of images that an earlier start asked about in vain

    @property
    def cache(self) -> Path:
        """The file that keeps every reply to this question."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", self.model.model)[:60].strip(".")
        return Path(self.model.cache).expanduser() / f"{name}_{_hash(self._settings)[:12]}.jsonl"

    def ask(self, *, check: Callable[[], None]) -> None:
        """Ask about every image of which the model has said nothing yet.

        Args:
            check: Called several times a second; what it raises ends the asking, once the requests under way
                have ended.

        Raises:
            FERError: If the run cannot go on, or brought no word of the model; what was said is kept, and
                asking again goes on from there.
        """
        kept = ReplyFile(self.cache)
        try:
            said = {key: line for key, line in kept.lines.items() if read_line(line, self.classes).said}
            self._lines = {key: said[key] for key in self._keys if key in said}
            self._failed_before = kept.lines.keys() - said.keys()
            self.num_cached = self._num_answered()
            rows = sorted({key: row for row, key in enumerate(self._keys) if key not in said}.values())
            log.info(
                "asking %s at %s about %s images; %s were answered before",
                *(self.model.model, self.model.base_url, f"{len(rows):,}", f"{self.num_cached:,}"),
            )
            if rows:
                self._ask_about(rows, kept, check, answered=bool(said))
        finally:
            kept.close()
        if not self._num_answered():  # an accuracy of 0 would be the server's, not the model's
            lines = [self._lines[key] for key in self._keys]
            raise FERError(
                f"{self.model.base_url}: no word of {self.model.model} about any of {len(lines):,} images "
                f"({self._tally(lines)}); check that the model takes images and the server is well; the "
                "replies are kept, and the same command asks again"
            )

    def _ask_about(
        self, rows: Sequence[int], kept: ReplyFile, check: Callable[[], None], *, answered: bool
    ) -> None:
        client = Client(self.model, answered=answered)
        ended: queue.SimpleQueue[Line | BaseException] = queue.SimpleQueue()

        def work(row: int) -> None:
            try:
                ended.put(self._ask_one(row, client, kept))
            except BaseException as error:  # noqa: BLE001 - raised again by the thread that reads the queue
                ended.put(error)
                client.stop()

        try:
            with _progress(len(rows), client) as advance, ThreadPoolExecutor(self.model.concurrency) as pool:
                try:
                    for row in rows:
                        pool.submit(work, row)
                    self._watch(ended, len(rows), advance, check)
                except BaseException:
                    client.stop()
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise  # and wait for the requests under way, since they are paid for
        except FERError as error:
            if not (num_said := self._num_answered()):
                raise
            raise FERError(
                f"{error}; the replies to {num_said:,} of {len(self._keys):,} images are kept, and the same "
                "command goes on from there"
            ) from error
        finally:
            self.num_requests = client.num_requests
            client.close()

    def _watch(
        self,
        ended: "queue.SimpleQueue[Line | BaseException]",
        num_images: int,
        advance: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        """Follow the threads; end the run with the first that cannot go on, or where the server is broken."""
        failures: list[Line] = []
        while num_images:
            check()
            try:
                line = ended.get(timeout=0.2)
            except queue.Empty:
                continue
            if isinstance(line, BaseException):
                raise line
            num_images -= 1
            advance()
            if self._read(line).said:
                failures = []
            elif line["key"] not in self._failed_before:  # a second failure is the image's own
                failures.append(line)
            if len(failures) == FAILURES_IN_A_ROW:
                raise FERError(
                    f"{self.model.base_url}: no answer to {len(failures)} images in a row "
                    f"({self._tally(failures)})"
                )

    def _tally(self, lines: Sequence[Line]) -> str:
        """Count lines by status, and repeat what the server said last."""
        counts = Counter(self._read(line).status for line in lines)
        bodies = [line["body"] for line in lines if line["body"]]
        last = f"; the last reply: {error_message(bodies[-1])}" if bodies else ""
        return ", ".join(f"{count} {status}" for status, count in counts.most_common()) + last

    def _ask_one(self, row: int, client: Client, kept: ReplyFile) -> Line:
        started = time.perf_counter()
        response = client.ask(self._settings["prompt"], self.images[row])
        line: Line = {
            "schema": SCHEMA,
            "key": self._keys[row],
            "image": self._hashes[row],
            "id": str(self.ids[row]),
            **self._settings,
            "asked": datetime.now().astimezone().isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 3),
            "requests": response.num_requests,
            "http_status": response.http_status,
            "failure": response.failure,
            "body": response.body,
        }
        kept.append(line)
        self._lines[self._keys[row]] = line
        return line

    def _read(self, line: Line) -> Reply:
        return read_line(line, self.classes)

    def _num_answered(self) -> int:
        return sum(key in self._lines and self._read(self._lines[key]).said for key in self._keys)

    def write(self, path: Path) -> None:
        """Write the replies so far, in the images' order, with the true class and what each comes to."""
        rows = []
        for key, face_id, label in zip(self._keys, self.ids, self.labels, strict=True):
            if key in self._lines:
                reply = self._read(self._lines[key])
                answer = None if reply.label < 0 else self.classes[reply.label]
                found = {
                    "id": str(face_id),
                    "label": self.classes[label],
                    "status": reply.status,
                    "answer": answer,
                }
                rows.append(found | {name: value for name, value in self._lines[key].items() if name != "id"})
        write_atomically(path, "".join(f"{json.dumps(row)}\n" for row in rows))

    def facts(self) -> dict[str, Any]:
        """Count this run's requests, the images answered before it, and all tokens the server told of."""
        tokens: Counter[str] = Counter()
        for line in self._lines.values():
            tokens.update(tokens_used(line["body"]))
        return {"num_requests": self.num_requests, "num_cached": self.num_cached, "tokens": dict(tokens)}

    def predictions(self) -> Predictions:
        """Give the answers, after ``ask``: probability 1 for the class named, NaN where none was.

        Nobody knows what such a model was trained on, so no image counts as leaked.
        """
        replies = [self._read(self._lines[key]) for key in self._keys]
        probs = np.full((len(replies), len(self.classes)), np.nan, np.float32)
        for row, reply in enumerate(replies):
            if reply.status == OK:
                probs[row] = 0
                probs[row, reply.label] = 1
        return Predictions(
            ids=self.ids,
            labels=self.labels,
            probs=probs,
            status=np.array([reply.status for reply in replies]),
            leaked=np.zeros(len(replies), dtype=bool),
            classes=self.classes,
        )


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


@contextmanager
def _progress(total: int, client: Client) -> Iterator[Callable[[], None]]:
    """Show how far the asking is: a bar on a terminal, a line now and then elsewhere."""
    started = told = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, told
        done += 1
        now = time.monotonic()
        state = f"{done / max(now - started, 1e-3):.1f} images/s, {client.num_requests:,} requests"
        bar.update(task, completed=done, state=state)
        if bar.disable and (done == total or now - told >= LINE_EVERY):
            told = now
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
