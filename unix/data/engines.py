"""Where the parts of a job are done: in processes of this machine, or as tasks of a Ray cluster.

Both call the same function with the same arguments, and neither keeps anything: what a part does is in the store or in
its files. So an engine only has to see that each part is done at least once, and a part must bear being done twice.
"""

import importlib
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from unix.errors import ConfigError, UnixError
from unix.parent import stop_with_parent

EngineName = Literal["local", "ray"]
Result = TypeVar("Result")

_RETRIES_OF_LOST_TASKS = 8


def spread(
    engine: EngineName,
    function: Callable[..., Result],
    parts: Sequence[tuple[Any, ...]],
    workers: int | None,
    job: str,
    fault: type[UnixError],
) -> Iterator[Result]:
    """Yield `function(*part)` for every part, in the order in which they are done.

    Args:
        engine: `local` or `ray`.
        function: of a module, so that other processes find it.
        parts: its arguments; paths must be absolute and, on Ray, the same on every node.
        workers: parts at a time; None: one per core of this machine, or of the cluster.
        job: what is done, for messages, such as "writing shards below /store/shards".
        fault: the error to raise where a worker is lost.

    Raises:
        ConfigError: Ray is wanted and not installed, or its cluster cannot be reached.
        UnixError: what a part raised; or `fault`.
    """
    if engine == "ray":
        return _on_ray(function, parts, workers, job, fault)
    workers = min(workers or len(os.sched_getaffinity(0)), len(parts))
    return _in_processes(function, parts, workers, job, fault) if workers > 1 else (function(*part) for part in parts)


def _in_processes(
    function: Callable[..., Result], parts: Sequence[tuple[Any, ...]], workers: int, job: str, fault: type[UnixError]
) -> Iterator[Result]:
    # Not forked: neither the store nor threads of the parent survive a fork.
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=stop_with_parent, initargs=(os.getpid(),))
    try:
        for done in as_completed([pool.submit(function, *part) for part in parts]):
            yield done.result()
    except BrokenProcessPool as error:
        raise fault(
            f"a process died while {job} (out of memory?); finished parts are kept: run it again, with fewer workers "
            "if it was memory"
        ) from error
    except (KeyboardInterrupt, GeneratorExit):
        for child in multiprocessing.active_children():
            child.terminate()  # each saves what it has
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _on_ray(
    function: Callable[..., Result],
    parts: Sequence[tuple[Any, ...]],
    workers: int | None,
    job: str,
    fault: type[UnixError],
) -> Iterator[Result]:
    """One task of one core per part; tasks of a node that is lost run again elsewhere."""
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
        task: Any = ray.remote(num_cpus=1, max_retries=_RETRIES_OF_LOST_TASKS)(function)
        waiting = list(reversed(parts))
        running: list[Any] = []
        while waiting or running:
            while waiting and (workers is None or len(running) < workers):
                running.append(task.remote(*waiting.pop()))
            done, running = ray.wait(running)
            yield from ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, UnixError) else fault(f"{job} failed: {cause!s:.300}")) from error
    except ray.exceptions.RayError as error:
        raise fault(
            f"the Ray cluster lost a part while {job} ({type(error).__name__}); finished parts are kept: run it again"
        ) from error
    finally:
        if joined:
            ray.shutdown()
