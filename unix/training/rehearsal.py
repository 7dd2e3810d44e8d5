"""A few steps of a stage on this machine, with made-up samples: time and memory measured, not assumed."""

import multiprocessing
import re
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from unix.config import Config
from unix.errors import ConfigError
from unix.model.dual_branch import DualBranch
from unix.training.engine import Engine, Place
from unix.training.host_memory import keep_freed_memory
from unix.training.objectives import train_only
from unix.training.optim import Optimizer
from unix.training.plan import PlanConfig, passes, trained_names
from unix.training.processes import local_ranks

_STEPS = 5
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What the kernel wants to read in `clear_refs` to forget the most memory that a process has held."""


class Rehearsal(Config):
    """What one rank took."""

    seconds_per_step: float
    """Median over a few steps of the whole global batch, without reading samples."""
    peak_gb: float
    """GiB at most, of the GPU, or what the process grew by."""


def rehearse(config: PlanConfig) -> Rehearsal:
    """Take a few steps as `config.train` sets them, on the GPU here or on as many processes as it asks for.

    Raises:
        ConfigError: the stage shards its weights over several GPUs, which one process cannot rehearse.
    """
    train = config.train
    if train.engine.sharding == "full":
        raise ConfigError(
            "a rehearsal runs one rank, and engine.sharding=full spreads the weights over several: "
            "add `--set engine.sharding=none`, or run `make smoke-gpu`"
        )
    # in a process of its own, as this one may hold memory that it would use again unseen
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_lead, config).result()


def _lead(config: PlanConfig) -> Rehearsal:
    with local_ranks(_follow, config, config.train.processes) as place:
        return _rehearse(config, place)


def _follow(config: PlanConfig, place: Place) -> None:
    """Body of the ranks that this one starts."""
    _rehearse(config, place)


def _rehearse(config: PlanConfig, place: Place) -> Rehearsal:
    train = config.train
    keep_freed_memory()
    with Engine(place, train.engine) as engine:
        torch.ones(64, 64, requires_grad=True).matmul(torch.ones(64, 64)).sum().backward()  # what torch needs once
        before = _start_of_peak(engine.device)
        model = DualBranch.build(train.model, train.seed).to(engine.device)
        trained = train_only(model, trained_names(model, train))
        optimizer = Optimizer(trained, train.optimizer, train.steps)
        per_rank = -(-train.global_batch // max(engine.world, config.gpus))
        counts = [min(train.micro_batch, per_rank - done) for done in range(0, per_rank, train.micro_batch)]
        seconds: list[float] = []
        for step in range(1 + _STEPS):  # the first one warms up
            engine.sum_numbers([0.0])  # begin together
            started, spent = time.perf_counter(), 0.0
            for share, forward in passes(model, train, config.tokens):
                began = time.perf_counter()
                for count in counts:
                    with engine.autocast(), engine.device:
                        loss = forward(count)
                    loss.backward()
                spent += (1 - share) * (time.perf_counter() - began)
            engine.sum_gradients(optimizer.parameters.values())
            optimizer.step(step, 0.0)
            seconds.append(time.perf_counter() - started - spent)
        return Rehearsal(
            seconds_per_step=statistics.median(seconds[1:]), peak_gb=(_peak(engine.device) - before) / 2**30
        )


def _start_of_peak(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return 0
    _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    return _peak(device)


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else 0
