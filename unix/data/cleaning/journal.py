"""Answers on their way to the store: appended to a file within half a second, folded into the table at the end.

Each writer has a file of its own below `<store>/journal/clean/`. A run that was killed leaves its file behind; the next
one reads it, so nothing that was answered is asked again, and folds it. A file in a writer's hands is locked and only
read by others. On an object store, which cannot append, each flush is an object of its own.
"""

import asyncio
import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import fsspec  # pyright: ignore[reportMissingTypeStubs]

from unix.data.cleaning.client import Usage
from unix.records import RemovedSpan, Status
from unix.store import Store

SECONDS_BETWEEN_FLUSHES = 0.4
"""Answers reach the disk at least so often."""


@dataclass(frozen=True, slots=True)
class AnswerKey:
    """What an answer is looked up by."""

    report_sha256: str
    prompt_digest: str
    model: str
    parameters_digest: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one text: its final status, or why it failed; whichever studies have the text."""

    key: AnswerKey
    status: Status
    flags: tuple[str, ...]
    findings: str
    impression: str
    removed: tuple[RemovedSpan, ...]
    usage: Usage
    created_at: float
    """Seconds since the epoch."""


class Journal:
    """The journal of one run; close it after folding."""

    def __init__(self, store: Store) -> None:
        self._folder = store.location("journal", "clean")
        self._local = "://" not in self._folder
        self._buffer: list[Outcome] = []
        self._locks: dict[str, int] = {}
        self._segments: list[str] = []
        self._name = uuid.uuid4().hex
        self._file: int | None = None

    def replay(self) -> list[Outcome]:
        """What earlier runs left behind and what others are writing. Files that nobody holds become this run's."""
        return list(self._read_local() if self._local else self._read_remote())

    def add(self, outcome: Outcome) -> None:
        """Remember an outcome until the next flush."""
        self._buffer.append(outcome)

    def flush(self) -> None:
        """Put what was added on disk."""
        if not self._buffer:
            return
        lines = "".join(json.dumps(asdict(outcome), ensure_ascii=False) + "\n" for outcome in self._buffer).encode()
        if self._local:
            os.write(self._own_file(), lines)
            os.fdatasync(self._own_file())
        else:
            segment = f"{self._folder}/{self._name}-{len(self._segments):06d}.jsonl"
            filesystem, path = _filesystem(segment)
            filesystem.pipe_file(path, lines)
            self._segments.append(segment)
        self._buffer.clear()

    async def flush_regularly(self) -> None:
        """Flush every so often until cancelled, then once more."""
        try:
            while True:
                await asyncio.sleep(SECONDS_BETWEEN_FLUSHES)
                self.flush()
        finally:
            self.flush()

    def discard(self) -> None:
        """Remove the files of this run, whose outcomes are in the table now, and let go of the rest."""
        for path in self._locks:
            Path(path).unlink(missing_ok=True)
        for segment in self._segments:
            filesystem, path = _filesystem(segment)
            filesystem.rm(path)
        self.close()

    def close(self) -> None:
        """Let go of the files; they stay for the next run."""
        for descriptor in self._locks.values():
            os.close(descriptor)
        self._locks.clear()
        self._segments.clear()
        self._file = None

    def _own_file(self) -> int:
        if self._file is None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            path = str(Path(self._folder) / f"{self._name}.jsonl")
            self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._locks[path] = self._file
        return self._file

    def _read_local(self) -> Iterator[Outcome]:
        for path in sorted(Path(self._folder).glob("*.jsonl")):
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._locks[str(path)] = descriptor
                except OSError:
                    os.close(descriptor)
                yield from _outcomes(path.read_bytes())

    def _read_remote(self) -> Iterator[Outcome]:
        filesystem, folder = _filesystem(self._folder)
        for path in sorted(cast(list[str], filesystem.glob(f"{folder}/*.jsonl"))):
            yield from _outcomes(cast(bytes, filesystem.cat_file(path)))


def _filesystem(url: str) -> tuple[Any, str]:
    return cast(tuple[Any, str], fsspec.core.url_to_fs(url))  # pyright: ignore[reportUnknownMemberType]


def _outcomes(data: bytes) -> Iterator[Outcome]:
    """The whole lines of a journal; one cut by a kill is not an answer."""
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            with suppress(ValueError, KeyError, TypeError):
                value = cast(dict[str, Any], json.loads(line))
                yield Outcome(
                    key=AnswerKey(**value["key"]),
                    status=Status(value["status"]),
                    flags=tuple(value["flags"]),
                    findings=value["findings"],
                    impression=value["impression"],
                    removed=tuple(RemovedSpan(**span) for span in value["removed"]),
                    usage=Usage(**value["usage"]),
                    created_at=value["created_at"],
                )
