"""Predictions in several processes of one thread each, which on a CPU is faster than one process of several threads.

Inputs are cut into batches by position, so the number of processes changes neither batches nor results. The parent
never imports torch: workers are forked from a server process that does so once.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from unix.data.images import Pixels
from unix.errors import UnixError
from unix.evaluation.settings import PredictorConfig
from unix.progress import Progress

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

    from unix.evaluation.predictor import Predictor

Result = TypeVar("Result")
Job = TypeVar("Job")


class PredictorPool:
    """A checkpoint served by `processes` workers; use as a context manager."""

    def __init__(self, config: PredictorConfig, processes: int) -> None:
        self._batch = config.batch
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["unix.evaluation.predictor"])
        self._executor = ProcessPoolExecutor(
            processes, context, initializer=_configure, initargs=(config, context.Value("i", 0))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)

    def describe(self, images: Sequence[Pixels], label: str = "describe") -> list[str]:
        """Reports for images, in their order."""
        return self._run(_describe, [(part,) for part in self._parts(images)], len(images), label)

    def describe_files(self, paths: Sequence[str], label: str = "describe") -> list[str]:
        """Reports for image files, in their order."""
        return self._run(_describe_files, [(part,) for part in self._parts(paths)], len(paths), label)

    def draw(
        self, captions: Sequence[str], seeds: Sequence[int], resolution: int | None, label: str = "draw"
    ) -> list[Pixels]:
        """Images for captions, in their order."""
        parts = zip(self._parts(captions), self._parts(seeds), strict=True)
        return self._run(_draw, [(*part, resolution) for part in parts], len(captions), label)

    def reconstruct(self, images: Sequence[Pixels], label: str = "reconstruct") -> list[Pixels]:
        """Images through the codec, in their order."""
        return self._run(_reconstruct, [(part,) for part in self._parts(images)], len(images), label)

    def _parts(self, items: Sequence[Any]) -> Iterator[list[Any]]:
        return (list(items[start : start + self._batch]) for start in range(0, len(items), self._batch))

    def each(self, function: "Callable[[Predictor, Job], int]", jobs: Sequence[Job], total: int, label: str) -> None:
        """Call `function(predictor, job)` for every job in some worker, in any order; it returns samples done.

        `function` must be importable by its name. The first fault ends the rest that has not begun.
        """
        futures = [self._executor.submit(_with_predictor, function, job) for job in jobs]
        with _counted(label, total) as progress:
            for future in as_completed(futures):
                progress.advance(future.result())

    def _run(
        self, task: Callable[..., list[Result]], calls: list[tuple[Any, ...]], total: int, label: str
    ) -> list[Result]:
        results: list[Result] = []
        with _counted(label, total) as progress:
            for part in self._executor.map(task, *zip(*calls, strict=True)):
                results += part
                progress.advance(len(part))
        return results


@contextmanager
def _counted(label: str, total: int) -> Generator[Progress]:
    """Progress over `total` samples; a worker that dies is one clear error."""
    try:
        with Progress(label, total) as progress:
            yield progress
    except BrokenProcessPool as error:
        raise UnixError(
            f"{label}: a worker process died, most likely for want of memory: lower --batch or --processes"
        ) from error


@dataclass
class _Worker:
    """This worker's settings and model."""

    config: PredictorConfig
    number: int
    predictor: "Predictor | None" = None
    """Loaded by the first task, so that an error in loading reaches the parent as it is."""


_worker: _Worker | None = None


def _configure(config: PredictorConfig, count: "Synchronized[int]") -> None:
    global _worker
    # Ctrl-C is the parent's to handle; should the parent be killed, nobody would ever stop us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    with count.get_lock():
        _worker = _Worker(config, count.value)
        count.value += 1


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _loaded() -> "Predictor":
    if _worker is None:
        raise RuntimeError("a worker was used before it was configured")
    if _worker.predictor is None:
        import torch

        from unix.evaluation.predictor import Predictor

        torch.set_num_threads(1)
        gpus = torch.cuda.device_count()
        _worker.predictor = Predictor.load(_worker.config, f"cuda:{_worker.number % gpus}" if gpus else "cpu")
    return _worker.predictor


def _with_predictor(function: "Callable[[Predictor, Job], int]", job: Job) -> int:
    return function(_loaded(), job)


def _describe(images: list[Pixels]) -> list[str]:
    return _loaded().describe(images)


def _describe_files(paths: list[str]) -> list[str]:
    return _loaded().describe_files(paths)


def _draw(captions: list[str], seeds: list[int], resolution: int | None) -> list[Pixels]:
    return _loaded().draw(captions, seeds, resolution)


def _reconstruct(images: list[Pixels]) -> list[Pixels]:
    return _loaded().reconstruct(images)
