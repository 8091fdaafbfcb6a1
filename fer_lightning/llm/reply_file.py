"""The file of saved replies, which is also the cache: a JSONL that only grows."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from fer_lightning.core.errors import FERError
from fer_lightning.core.files import check_not_special, lock_file
from fer_lightning.llm.replies import SCHEMA, ReplyRecord


class ReplyFile:
    """The replies to one question about many images.

    A record is on the disk before its image counts as answered. Records that are truncated, since a process
    was killed, or that lack a required key are skipped.

    Args:
        path: The file, created if missing; one process at a time can open it.

    Attributes:
        records: The last record of each image, by key.

    Raises:
        FERError: If another process has the file open, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        check_not_special(path)
        self.path = path
        self._writing = threading.Lock()
        hint = "choose another predictor.cache"
        self._lock = lock_file(
            path.with_suffix(".lock"),
            guards=path,
            busy="another process is asking the same question; wait until it ends",
            hint=hint,
        )
        try:
            # Unbuffered: closing a buffer would write again what a full disk has refused.
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            content = self._file.read()
            if content and not content.endswith(b"\n"):
                self._file.write(b"\n")
        except OSError as error:
            if hasattr(self, "_file"):
                self._file.close()
            self._lock.release()
            raise FERError(f"{path}: cannot be written ({error.strerror or error}); {hint}") from error
        self.records = dict(self._parse(content))

    @staticmethod
    def _parse(content: bytes) -> Iterator[tuple[str, ReplyRecord]]:
        for line in content.split(b"\n"):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            match record:
                case {"schema": schema, "key": str(key), "failure": None, "body": str()} | {
                    "schema": schema,
                    "key": str(key),
                    "failure": str(),
                    "body": str() | None,
                } if schema == SCHEMA:
                    yield key, record

    def append(self, record: ReplyRecord) -> None:
        """Save a reply.

        Raises:
            FERError: If it cannot be written; continuing would pay for replies that are lost.
        """
        line = json.dumps(record).encode() + b"\n"  # ASCII, since UTF-8 cannot encode every file name
        try:
            with self._writing:
                self._write(line)
        except OSError as error:
            raise FERError(f"{self.path}: a reply cannot be saved ({error.strerror or error})") from error

    def _write(self, line: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = line
            while rest:  # a nearly full disk accepts a part
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                self._file.truncate(end)  # half a line would damage the next
            raise

    def close(self) -> None:
        """Close the file and release its lock."""
        try:
            self._file.close()
        finally:
            self._lock.release()
