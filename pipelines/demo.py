"""The demo: the whole chain on a phantom, through the same flows that the deployments run."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prefect import flow

from pipelines.curation import build_shards, build_splits, clean_reports, ingest
from pipelines.learning import TASKS, Stage, Task, evaluate, train_stage
from pipelines.runtime import CommandSummary
from pipelines.steps import run

Size = Literal["smoke", "normal", "long"]

STAGES: tuple[Stage, ...] = ("stage0", "stage1", "stage2", "stage3")
SETS = ["understanding-64", "generation-48", "generation-64"]
"""What the tiny preset trains on: reading at 64 pixels, drawing at 48 and then at 64."""

EULER_STEPS = 25
"""Per drawn image: half of the command's default, for time."""

GUIDANCE = 3.0
"""Of drawn images on their captions: of 1.5, 2 and 3 the best on validation."""

PARTITIONS = 2
"""Processes that clean side by side."""

STUDIES: dict[Size, int] = {"smoke": 120, "normal": 4000, "long": 8000}
SETTINGS: dict[Size, dict[Stage, list[str]]] = {
    "smoke": {
        "stage0": ["warm_start.text.steps=4", "warm_start.tower.steps=4", "warm_start.autoencoder.steps=4", "steps=12"],
        "stage1": ["steps=4"],
        "stage2": ["steps=4"],
        "stage3": ["steps=4"],
    },
    "normal": {},
    "long": {
        "stage0": [
            *("warm_start.text.steps=160", "warm_start.tower.steps=900", "warm_start.autoencoder.steps=1400"),
            "steps=2460",
        ],
        "stage1": ["steps=600", "optimizer.decay_steps=240"],
        "stage2": ["steps=500"],
        "stage3": ["steps=3000", "optimizer.decay_steps=1000"],
    },
}
"""What a size changes in the preset; `long` takes about twice as many steps on twice as many studies."""


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What the flow hands to the report."""

    seconds: dict[str, float]
    """Wall-clock seconds by step, in their order."""
    evaluations: dict[Task, CommandSummary]


@flow(name="demo", flow_run_name="demo")
def demo(work: str, seed: int, size: Size) -> DemoOutcome:
    """Phantom, ingest, clean, splits, shards, four stages, both evaluations; what a killed demo finished is kept.

    Args:
        work: folder for everything.
        seed: of the phantom, the training and the drawn images.
        size: `smoke` takes a few steps of each stage: it proves that the chain holds, not that it learns.
    """
    phantom, store, shards, runs = (f"{work}/{name}" for name in ("phantom", "store", "store/shards", "runs"))
    seconds: dict[str, float] = {}
    with timed("phantom", seconds):
        run("phantom", studies=STUDIES[size], out=phantom, seed=seed)
    with timed("ingest", seconds):
        ingest("phantom", phantom, store)
    with timed("clean", seconds):
        clean_reports(store, partitions=PARTITIONS)
    with timed("splits", seconds):
        build_splits(store)
    with timed("shards", seconds):
        build_shards(store, SETS)
    checkpoint = None
    for stage in STAGES:
        with timed(stage, seconds):
            settings = [f"seed={seed}", *SETTINGS[size].get(stage, [])]
            train_stage(stage, "tiny", f"{runs}/{stage}", shards, checkpoint, settings, resume=True)
        checkpoint = f"{runs}/{stage}"
    evaluations: dict[Task, CommandSummary] = {}
    for task in TASKS:
        draws = task == "generation"
        with timed(f"evaluate {task}", seconds):
            evaluations[task] = evaluate(
                task,
                f"{runs}/{STAGES[-1]}",
                shards,
                f"{work}/evaluation/{task}",
                seed=seed,
                num_steps=EULER_STEPS if draws else None,
                guidance=GUIDANCE if draws else None,
                store=store,
            )
    return DemoOutcome(seconds, evaluations)


@contextmanager
def timed(step: str, seconds: dict[str, float]) -> Generator[None]:
    """Note how long the body takes, as `seconds[step]`."""
    started = time.monotonic()
    yield
    seconds[step] = round(time.monotonic() - started, 1)
