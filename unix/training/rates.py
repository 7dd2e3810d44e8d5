"""What a device can do at most, and how much memory a process takes: for the figures of `metrics.jsonl`."""

import functools
import os
import time
from pathlib import Path

import torch

_SIDE = {"cuda": 8192, "cpu": 512}
_ROUNDS = 4
_STATM = Path("/proc/self/statm")


@functools.cache
def matmul_rate(device: torch.device, precision: torch.dtype) -> float:
    """FLOP/s of large matrix products on `device`, the best of a few: what stands for its peak where none is given."""
    side = _SIDE.get(device.type, 512)
    left, right = (torch.ones(side, side, device=device, dtype=precision) for _ in range(2))
    seconds: list[float] = []
    for _ in range(_ROUNDS):
        _wait(device)
        started = time.perf_counter()
        torch.matmul(left, right)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that was allocated on a GPU so far; on the CPU what the process holds now (0: not known)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(_STATM.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
