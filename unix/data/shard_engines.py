"""Where a build's partitions are written: in processes of this machine, or as tasks of a Ray cluster.

Both call the same function with the same arguments. A partition's outcome is its files, so an engine only has to see
that each one is done at least once.
"""

import importlib
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

from unix.data.images import PictureEncoding
from unix.data.partition import Partition, SetSpec, write_partition
from unix.errors import ConfigError, ShardError
from unix.progress import Progress

EngineName = Literal["processes", "ray"]
Arguments = tuple[Path, Path, Partition, tuple[SetSpec, ...], PictureEncoding]
"""Of `write_partition`."""

_RETRIES_OF_LOST_TASKS = 8


def write_partitions(engine: EngineName, work: Sequence[Arguments], workers: int | None, progress: Progress) -> None:
    """Write every partition; `workers` bounds how many at a time, None: one per core of this machine or cluster.

    Raises:
        ConfigError: Ray is wanted and not installed, or its cluster cannot be reached.
        ShardError: a worker died, or a partition cannot be written.
    """
    if engine == "ray":
        _write_on_ray(work, workers, progress)
    else:
        _write_in_processes(work, min(workers or len(os.sched_getaffinity(0)), len(work)), progress)


def _write_in_processes(work: Sequence[Arguments], workers: int, progress: Progress) -> None:
    if workers <= 1:
        for each in work:
            progress.advance(write_partition(*each))
        return
    # Not forked: neither the store nor threads of the parent survive a fork.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        for done in as_completed([pool.submit(write_partition, *each) for each in work]):
            progress.advance(done.result())
    except BrokenProcessPool as error:
        raise ShardError(
            f"a process that wrote shards below {work[0][1]} died (out of memory?); finished partitions are kept: "
            "run it again, with fewer workers if it was memory"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _write_on_ray(work: Sequence[Arguments], workers: int | None, progress: Progress) -> None:
    """One task of one core per partition; tasks of a node that is lost run again elsewhere.

    The output and the source images must have the same paths on every node.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("engine=ray needs Ray: install the extra, `pip install 'unix-cxr[ray]'`") from error
    joined = not ray.is_initialized()
    if joined:
        try:
            ray.init(log_to_driver=False)  # the cluster of $RAY_ADDRESS or of this machine, else a new local one
        except (ConnectionError, RuntimeError) as error:
            raise ConfigError(f"the Ray cluster cannot be reached: {error!s:.200}") from error
    try:
        task: Any = ray.remote(num_cpus=1, max_retries=_RETRIES_OF_LOST_TASKS)(write_partition)
        waiting = list(reversed(work))
        running: list[Any] = []
        while waiting or running:
            while waiting and (workers is None or len(running) < workers):
                build, out, *rest = waiting.pop()
                running.append(task.remote(build.resolve(), out.resolve(), *rest))
            done, running = ray.wait(running)
            for count in ray.get(done):
                progress.advance(count)
    except ray.exceptions.RayTaskError as error:
        raise ShardError(f"a partition below {work[0][1]} cannot be written: {error.cause!s:.300}") from error
    except ray.exceptions.RayError as error:
        raise ShardError(
            f"the Ray cluster lost a partition below {work[0][1]} ({type(error).__name__}); finished partitions are "
            "kept: run it again"
        ) from error
    finally:
        if joined:
            ray.shutdown()
