"""Flows from shards to a measured model. Each wraps one command; `retrain` chains them."""

from pathlib import Path
from typing import Literal

from prefect import flow, task

from pipelines.runtime import CommandSummary
from pipelines.steps import MODEL_TRAINED, announce, run

Stage = Literal["stage0", "stage1", "stage2", "stage3"]
Task = Literal["understanding", "generation"]


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
    summary = run("train", stage, preset=preset, set=chosen, from_=from_checkpoint, resume=resume)
    announce(MODEL_TRAINED, f"run.{Path(run_dir).name}", summary)
    return summary
