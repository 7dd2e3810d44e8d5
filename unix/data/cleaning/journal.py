"""Answers on their way to the store: appended to a file within half a second, moved into the table every so often.

Each writer has a file of its own below `<store>/journal/clean/`. A run that was killed leaves its file behind; the next
one puts what it holds into the table first, whatever prompt, model or part of the studies it belongs to, so nothing
that was answered is asked again. A file in a writer's hands is locked and only read by others. On an object store,
which cannot append, each flush is an object of its own.
"""

import fcntl
import json
import os
import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import fsspec  # pyright: ignore[reportMissingTypeStubs]

from unix.data.cleaning.usage import Usage
from unix.records import RemovedSpan, Status
from unix.store import Store

SECONDS_BETWEEN_FLUSHES = 0.2
"""Answers reach the disk within half a second: the rest of it is for a busy machine and a slow disk."""


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
    prompt_version: str
    endpoint: str


@dataclass(slots=True)
class Files:
    """Files of a journal that one run has in its hands."""

    locked: dict[str, int] = field(default_factory=dict[str, int])
    """Local files and the descriptors that lock them."""
    objects: list[tuple[Any, str]] = field(default_factory=list[tuple[Any, str]])
    """File systems of an object store, and paths there."""

    def discard(self) -> None:
        """Remove the files."""
        for path in self.locked:
            Path(path).unlink(missing_ok=True)
        for filesystem, path in self.objects:
            with suppress(FileNotFoundError):
                filesystem.rm(path)

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self.locked.values():
            os.close(descriptor)
        self.locked.clear()
        self.objects.clear()


class Journal:
    """The journal of one run; close it after folding. `add` and `flush` may be called from different threads."""

    def __init__(self, store: Store) -> None:
        self._folder = store.location("journal", "clean")
        self._local = "://" not in self._folder
        self._buffer: list[Outcome] = []
        self._flushing = threading.Lock()
        self._files = Files()
        self._num_segments = 0
        self._name = uuid.uuid4().hex
        self._file: int | None = None

    def replay(self) -> tuple[list[Outcome], list[Outcome]]:
        """What earlier runs left behind, whose files are this run's from now on; and what others are writing."""
        return self._replay_local() if self._local else (self._replay_remote(), [])

    def add(self, outcome: Outcome) -> None:
        """Remember an outcome until the next flush."""
        self._buffer.append(outcome)

    def flush(self) -> None:
        """Hand what was added to the file system: the death of this process cannot take it any more.

        Raises:
            OSError: there is no space, or no store any more; what was added stays for the next try.
        """
        with self._flushing:
            outcomes = self._buffer[:]
            if not outcomes:
                return
            lines = "".join(json.dumps(asdict(outcome), ensure_ascii=False) + "\n" for outcome in outcomes).encode()
            if self._local:
                _append(self._own_file(), lines)
            else:
                segment = f"{self._folder}/{self._name}-{self._num_segments:06d}.jsonl"
                filesystem, path = _filesystem(segment)
                filesystem.pipe_file(path, lines)
                self._num_segments += 1
                self._files.objects.append((filesystem, path))
            del self._buffer[: len(outcomes)]

    def sync(self) -> None:
        """Put what was flushed on the disk itself: nor can the death of this machine."""
        with self._flushing:
            if self._file is None:
                return
            descriptor = os.dup(self._file)  # the disk may be slow, and the file done with before it is
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def flushing(self, on_failure: Callable[[OSError], None]) -> Generator[None]:
        """Flush and sync every so often while the body runs, and once after it.

        In threads of their own: neither the body's work nor a slow disk may hold answers back. `on_failure` is called
        in one of them, which then ends.
        """
        ended = threading.Event()

        def regularly(work: Callable[[], None]) -> None:
            try:
                while not ended.wait(SECONDS_BETWEEN_FLUSHES):
                    work()
            except OSError as error:
                on_failure(error)

        threads = [threading.Thread(target=regularly, args=(work,)) for work in (self.flush, self.sync)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            for thread in threads:
                thread.join()
            self.flush()
            self.sync()

    def rotate(self) -> "Files":
        """Go on in a new file; returns the files until now, to discard once their outcomes are in the table.

        Raises:
            OSError: as `flush`.
        """
        self.flush()
        with self._flushing:
            files, self._files = self._files, Files()
            self._file = None
            self._name = uuid.uuid4().hex
        return files

    def discard(self) -> None:
        """Remove the files of this run, whose outcomes are in the table now."""
        files = self.rotate()
        files.discard()
        files.close()

    def close(self) -> None:
        """Let go of the files; they stay for the next run."""
        self._files.close()
        self._file = None

    def _own_file(self) -> int:
        if self._file is None:
            Path(self._folder).mkdir(parents=True, exist_ok=True)
            path = str(Path(self._folder) / f"{self._name}.jsonl")
            self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._files.locked[path] = self._file
        return self._file

    def _replay_local(self) -> tuple[list[Outcome], list[Outcome]]:
        left: list[Outcome] = []
        others: list[Outcome] = []
        for path in sorted(Path(self._folder).glob("*.jsonl")):
            with suppress(FileNotFoundError):
                descriptor = os.open(path, os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._files.locked[str(path)] = descriptor
                    into = left
                except OSError:
                    os.close(descriptor)
                    into = others
                into.extend(_outcomes(path.read_bytes()))
        return left, others

    def _replay_remote(self) -> list[Outcome]:
        """Every object: one that its writer still remembers may go as well once what it holds is in the table."""
        filesystem, folder = _filesystem(self._folder)
        left: list[Outcome] = []
        for path in sorted(cast(list[str], filesystem.glob(f"{folder}/*.jsonl"))):
            with suppress(FileNotFoundError):
                left.extend(_outcomes(cast(bytes, filesystem.cat_file(path))))
                self._files.objects.append((filesystem, path))
        return left


def _append(descriptor: int, lines: bytes) -> None:
    """Write all of it, or nothing: what is left of a line that did not fit would spoil the next one."""
    end = os.fstat(descriptor).st_size
    try:
        written = 0
        while written < len(lines):
            written += os.write(descriptor, lines[written:])
    except OSError:
        os.ftruncate(descriptor, end)
        raise


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
                    prompt_version=value["prompt_version"],
                    endpoint=value["endpoint"],
                )
