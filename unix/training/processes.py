"""Several ranks on one machine's processor cores, without torchrun: this process is rank 0 and starts the others.

On a CPU, processes of one thread each get more done than one process of several threads. They meet over a file and the
loopback interface, so no port, no network and no resolvable host name is needed.
"""

import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

from unix.training.engine import Place

_SECONDS_TO_LEAVE = 5.0

Config = TypeVar("Config")


@contextmanager
def local_ranks(follow: Callable[[Config, Place], None], config: Config, processes: int) -> Iterator[Place]:
    """While open, ranks 1 to `processes` - 1 run `follow(config, place)`; yields this process's own place.

    A single process is given all threads and no company; so is one that torchrun started, or that has a GPU.
    """
    place = Place.of_this_process()
    processes = min(processes, len(os.sched_getaffinity(0)))
    if processes == 1 or place.world > 1 or torch.cuda.is_available():
        yield place
        return
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    threads = torch.get_num_threads()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = (Path(folder) / "ranks").as_uri()
        followers = [
            context.Process(
                target=_run, args=(follow, config, Place(rank, processes, rank, rendezvous)), name=f"rank {rank}"
            )
            for rank in range(1, processes)
        ]
        for follower in followers:
            follower.start()
        torch.set_num_threads(max(1, threads // processes))
        try:
            yield Place(0, processes, 0, rendezvous)
            for follower in followers:
                follower.join()
        finally:
            torch.set_num_threads(threads)
            for follower in followers:
                follower.terminate()
                follower.join(_SECONDS_TO_LEAVE)
                follower.kill()  # one that waits for this rank in a collective hears no signal
                follower.join()


def leave_with_parent() -> None:
    """End this process as soon as its parent is gone, however that died: two must never write into one run."""

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _run(follow: Callable[[Config, Place], None], config: Config, place: Place) -> None:
    leave_with_parent()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // place.world))
    follow(config, place)
