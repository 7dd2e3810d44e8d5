"""Flows from shards to a measured model. Each wraps one command."""

from pathlib import Path
from typing import Literal

from prefect import flow

from pipelines.runtime import CommandSummary
from pipelines.steps import GPU_SLOT, HOUR, MODEL_TRAINED, announce, run

Stage = Literal["stage0", "stage1", "stage2", "stage3", "joint"]
Task = Literal["understanding", "generation"]
TASKS: tuple[Task, ...] = ("understanding", "generation")


@flow(name="train-stage", flow_run_name="{stage} of {preset}")
def train_stage(
    stage: Stage,
    preset: str,
    run_dir: str,
    shards: str | None = None,
    from_checkpoint: str | None = None,
    settings: list[str] | None = None,
    resume: bool = False,
) -> CommandSummary:
    """Train one stage in a process of its own.

    Args:
        stage: which of the stages.
        preset: `tiny` or `paper`.
        run_dir: the run's folder.
        shards: folder or URI of the shard sets.
        from_checkpoint: folder of the weights to start from.
        settings: further settings, each `a.b=value`.
        resume: continue the run from its newest checkpoint.
    """
    chosen = [f"run_dir={run_dir}", *([f"shards={shards}"] if shards else []), *(settings or [])]
    summary = run("train", stage, preset=preset, set=chosen, from_=from_checkpoint, resume=resume, slot=GPU_SLOT)
    announce(MODEL_TRAINED, f"run.{Path(run_dir).name}", summary)
    return summary


@flow(name="evaluate", flow_run_name="evaluate {task}")
def evaluate(
    task: Task,
    checkpoint: str,
    shards: str | None = None,
    out: str | None = None,
    limit: int | None = None,
    seed: int | None = None,
    num_steps: int | None = None,
    guidance: float | None = None,
    test_set: str | None = None,
    store: str | None = None,
) -> CommandSummary:
    """Measure a checkpoint on the test split, or on a frozen test set.

    Args:
        task: `understanding` (reports for images) or `generation` (images for captions).
        checkpoint: a run's folder, or one of its steps'.
        shards: folder or URI of the shard sets.
        out: folder for the predictions.
        limit: at most so many samples.
        seed: of the drawn images and the intervals.
        num_steps: Euler steps per drawn image.
        guidance: classifier-free guidance on the caption.
        test_set: name of a frozen test set, which decides set, release, split and samples.
        store: URI of the store that keeps the test set, and the reports as written, against which reports are scored
            too; else $UNIX_STORE, else ./store.
    """
    return run(
        f"evaluate {task}",
        checkpoint=checkpoint,
        shards=shards,
        out=out,
        limit=limit,
        seed=seed,
        num_steps=num_steps,
        guidance=guidance,
        test_set=test_set,
        store=store,
        slot=GPU_SLOT,
        timeout=48 * HOUR,
    )
