"""Work in the background: one process at a time beside the server, which says how it stands."""

import logging
import multiprocessing
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Literal

from pydantic import BaseModel

from unix.errors import UnixError
from unix.parent import stop_with_parent

logger = logging.getLogger(__name__)
_SHOWN = 5
_SPAWN = multiprocessing.get_context("spawn")  # a forked process cannot use the store


@dataclass
class Job:
    """One piece of work."""

    title: str
    work: Callable[..., BaseModel]
    arguments: tuple[Any, ...]
    state: Literal["waiting", "running", "done", "failed"] = "waiting"
    message: str = ""
    """The fault, in one line, or ""."""
    summary: dict[str, Any] = field(default_factory=dict[str, Any])
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))


class Jobs:
    """A queue of jobs and the thread that runs them; `finished` is called after each."""

    def __init__(self, finished: Callable[[], object]) -> None:
        self._finished = finished
        self._queue: queue.Queue[Job | None] = queue.Queue()
        self._jobs: list[Job] = []
        self._process: BaseProcess | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, title: str, work: Callable[..., BaseModel], *arguments: Any) -> Job:
        """Do `work(*arguments)` in a process of its own, after the jobs before it."""
        job = Job(title, work, arguments)
        self._jobs = [*self._jobs, job][-50:]
        self._queue.put(job)
        return job

    @property
    def latest(self) -> list[Job]:
        """The last few jobs, the newest first."""
        return self._jobs[: -_SHOWN - 1 : -1]

    @property
    def busy(self) -> bool:
        """Whether something waits or runs."""
        return any(job.state in ("waiting", "running") for job in self._jobs)

    def finish(self) -> None:
        """Wait until every job that was submitted is done."""
        self._queue.join()

    def close(self) -> None:
        """Stop the running job, which keeps what it has, and forget the waiting ones."""
        self._closing = True
        self._queue.put(None)
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
        self._thread.join(10)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None and not self._closing:
            job.state = "running"
            try:
                self._work(job)
                self._finished()
            except Exception as error:  # the thread must live on for the jobs behind this one
                job.state, job.message = "failed", job.message or f"the job stopped with {type(error).__name__}"
                logger.error("%s: %s", job.title, type(error).__name__)
            self._queue.task_done()

    def _work(self, job: Job) -> None:
        ours, theirs = _SPAWN.Pipe(duplex=False)
        self._process = process = _SPAWN.Process(target=_do, args=(job.work, job.arguments, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            fault, summary = ours.recv()
        except EOFError:
            fault, summary = "its process was ended", {}
        process.join()
        ours.close()
        job.message, job.summary = fault, summary
        job.state = "failed" if fault else "done"


def _do(work: Callable[..., BaseModel], arguments: tuple[Any, ...], answer: Connection) -> None:
    stop_with_parent()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        answer.send(("", work(*arguments).model_dump(mode="json")))
    except (UnixError, OSError) as error:
        answer.send((str(error) or type(error).__name__, {}))
