"""Checkpoints that are written while the training goes on: copies in host memory, and a thread that writes them."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from unix.errors import Interrupted

logger = logging.getLogger(__name__)


@torch.no_grad()
def staged(state: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested mappings of tensors that later steps leave alone, in host memory.

    Tensors that share their memory share the copy's; a sharded one stays sharded.
    """
    copies: dict[tuple[Any, ...], Tensor] = {}

    def copy(value: Tensor) -> Tensor:
        if isinstance(value, DTensor):
            return value.detach().to("cpu", copy=True)
        key = (value.untyped_storage().data_ptr(), value.storage_offset(), value.shape, value.stride(), value.dtype)
        if key not in copies:
            copies[key] = value.detach().to("cpu", copy=True)
        return copies[key]

    def walk(item: Any) -> Any:
        if isinstance(item, Tensor):
            return copy(item)
        return {name: walk(part) for name, part in item.items()} if isinstance(item, Mapping) else item

    return walk(state)


class BackgroundWriter:
    """Runs one job at a time in a thread; leaving the context waits for the last one."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Run `job` as soon as the one before has ended. Raises what that one raised."""
        self.wait()
        self._writing = self._pool.submit(job)

    def check(self) -> None:
        """Raise what the job raised, if it has failed; never waits."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the job. Raises what it raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failed:
            # whoever was told "stopped after saving" would rely on it
            if error is None or isinstance(error, Interrupted):
                raise
            logger.error("%s", failed)
        finally:
            self._pool.shutdown()
