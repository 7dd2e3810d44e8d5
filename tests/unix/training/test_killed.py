"""A run killed with SIGKILL at random points of its steps and of its saving ends as if it never had been."""

import multiprocessing
import os
import random
import signal
from pathlib import Path
from typing import Any

import pytest

from unix.runs import MACHINE_COLUMNS
from unix.training import checkpoint, engine
from unix.training.metrics import read_metrics
from unix.training.optim import Optimizer
from unix.training.run import train
from unix.training.stages import TrainConfig

KILLS = 10
STEPS = 40


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _train_until(config: TrainConfig, point: str, at: int) -> None:
    """Train, and be killed at optimizer step `at`, or in the next checkpoint before or after its files are written."""
    apply = Optimizer.step

    def step(self: Optimizer, step: int, loss: float) -> tuple[float, float]:
        if point == "step" and step == at:
            _die()
        return apply(self, step, loss)

    def dying(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if point == "save":
                function(*arguments)
            _die()

        return call

    Optimizer.step = step
    if point == "save":
        engine.save_state = dying(engine.save_state)
    elif point == "publish":
        checkpoint._reach_the_disk = dying(checkpoint._reach_the_disk)
    train(config)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_ten_kills_change_no_loss(stage, configure, warm, read, tmp_path):
    start = warm.checkpoint if stage == "stage1" else read.checkpoint
    settings = {"from_checkpoint": start, "steps": STEPS, "checkpoint_every": 4, "retention": {"newest": 2}}
    whole = train(configure(stage, tmp_path / "whole", **settings))
    config = configure(stage, tmp_path / "cut", resume=True, **settings)
    rng = random.Random(stage)
    context = multiprocessing.get_context("spawn")
    killed = 0
    while killed < KILLS:
        rows = read_metrics(config.run_dir)
        at = min(STEPS - 2, len(rows) + rng.randint(0, 6))
        process = context.Process(target=_train_until, args=(config, rng.choice(["step", "save", "publish"]), at))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    resumed = train(config)

    def losses(folder: str) -> list[dict[str, Any]]:
        return [{k: v for k, v in row.items() if k not in MACHINE_COLUMNS} for row in read_metrics(tmp_path / folder)]

    assert losses("cut") == losses("whole")
    ours, theirs = (Path(run.checkpoint, "model.safetensors").read_bytes() for run in (resumed, whole))
    assert ours == theirs
