"""Table 5: does training both branches together pay? Five short runs of the joint stage from one stage-1 checkpoint.

The paper finds that it does not: with the understanding branch frozen, reports keep their F1 and drawings come closest
to real images (arXiv 2601.11522, Table 5).
"""

import time
from pathlib import Path
from typing import NamedTuple

import polars as pl
from pydantic import Field

from unix.ablation.arms import AblationConfig, AblationSummary, arm_config, train_arm
from unix.ablation.cleaning import written_reports
from unix.ablation.report import publish
from unix.evaluation.bootstrap import Draws, Metric, Patients
from unix.evaluation.clinical import agreement_draws
from unix.evaluation.comparison import ModelResult, compared, model_result
from unix.evaluation.drawn_scores import FEATURES_FOLDER, TOWER, chosen_encoder, drawn_and_real
from unix.evaluation.features import FeatureCache
from unix.evaluation.generation import EvaluateGenerationConfig, evaluate_generation
from unix.evaluation.image_metrics import image_metrics
from unix.evaluation.labelers import RuleLabeler, label_reports
from unix.evaluation.predict_split import PredictedSplit, generated_images, predict_split
from unix.evaluation.report_scores import report_draws
from unix.evaluation.settings import PredictorConfig
from unix.evaluation.workers import PredictorPool
from unix.records import Task, no_labels

CHART = ("micro_f1_14", "macro_f1_14", "frechet_distance", "fixed_readback_micro_f1_14", "kernel_distance", "recall")
"""What the page plots."""

_STAGE = "joint"


class Row(NamedTuple):
    """One row of Table 5, as settings of the joint stage."""

    name: str
    title: str
    understanding: float
    generation: float
    frozen: bool


TABLE_5 = (
    Row("frozen", "generation only, understanding frozen", 0, 1, True),
    Row("one-to-one", "both unfrozen, 1:1", 1, 1, False),
    Row("one-to-two", "both unfrozen, 1:2", 1, 2, False),
    Row("one-to-four", "both unfrozen, 1:4", 1, 4, False),
    Row("no-understanding", "both unfrozen, no understanding data", 0, 1, False),
)


class AblateJointConfig(AblationConfig):
    """`from_checkpoint` is a stage-1 checkpoint; its vision tower and reading branch measure every arm's drawings."""

    num_steps: int = Field(default=25, ge=1)
    """Euler steps per drawn image."""
    guidance: float = 3.0


def ablate_joint(config: AblateJointConfig) -> AblationSummary:
    """Train the five rows, then have each write reports for images and draw images for prompts, and compare.

    Drawings are measured by what no arm has trained on: the Frechet and kernel distances in the features of the
    starting checkpoint's tower, and the findings that the starting checkpoint reads in them (`fixed_readback_...`).

    Raises:
        Interrupted: on SIGTERM or SIGINT, after saving; the same call goes on.
    """
    started = time.monotonic()
    results: list[ModelResult] = []
    first: dict[str, Draws] | None = None
    rows = pl.DataFrame()
    for row in TABLE_5:
        training = arm_config(config, _STAGE, row.name, _settings(row))
        checkpoint = train_arm(training)
        understanding_set = training.mixture.understanding_set if training.mixture else ""
        rows = written_reports(config, row.name, checkpoint, understanding_set)
        draws = report_draws(rows, config.seed, config.resamples)
        drawn, distances = _drawings(config, row.name, checkpoint, training.data_set)
        draws |= drawn
        result = model_result(row.name, row.title, checkpoint, draws, first, training.steps)
        results.append(result.model_copy(update={"metrics": result.metrics | distances}))
        first = first or draws
    summary = AblationSummary(
        ablation="joint",
        from_checkpoint=config.from_checkpoint,
        split=config.split,
        seed=config.seed,
        arms=tuple(results),
        baselines={},
        verdict=_verdict(results),
        synthetic=set(rows["source"]) == {"phantom"},
        page=str(Path(config.out) / "report.html"),
        seconds=round(time.monotonic() - started, 1),
    )
    publish(summary, CHART, config.out)
    return summary


def _settings(row: Row) -> list[str]:
    settings = [
        f"mixture.understanding={row.understanding:g}",
        f"mixture.generation={row.generation:g}",
        f"generation.freeze_understanding={str(row.frozen).lower()}",
    ]
    return settings if row.frozen else [*settings, "generation.remember_captions=false"]


def _drawings(
    config: AblateJointConfig, name: str, checkpoint: str, data_set: str
) -> tuple[dict[str, Draws], dict[str, Metric]]:
    """Scores of an arm's drawings: with resampled values where there are any, and distances with their intervals."""
    evaluate = EvaluateGenerationConfig(
        checkpoint=checkpoint,
        shards=config.shards,
        data_set=data_set,
        out=str(Path(config.out) / name / "generation"),
        num_steps=config.num_steps,
        guidance=config.guidance,
        split=config.split,
        limit=config.limit,
        seed=config.seed,
        batch=config.batch,
        processes=config.processes,
        resamples=config.resamples,
        encoder=None,
    )
    evaluate_generation(evaluate)
    split = predict_split(evaluate, Task.GENERATION)
    patients = split.rows["subject_id"].to_list()
    read = _read_back(config, split)
    asked = label_reports(RuleLabeler(), split.rows["prompt"].to_list()).labels
    draws = agreement_draws(
        label_reports(RuleLabeler(), read).labels,
        [labels or no_labels() for labels in asked],
        Patients(patients, config.seed, config.resamples),
    )
    encoder = chosen_encoder(f"{TOWER}:{config.from_checkpoint}", split.checkpoint)
    drawn, real = drawn_and_real(split, encoder, FeatureCache(Path(config.out) / FEATURES_FOLDER))
    distances = image_metrics(real, drawn, config.seed, config.resamples)
    return {f"fixed_readback_{key}": value for key, value in draws.items()}, distances


def _read_back(config: AblateJointConfig, split: PredictedSplit) -> list[str]:
    """What the starting checkpoint reads in an arm's drawings."""
    reader = PredictorConfig(checkpoint=config.from_checkpoint, seed=config.seed, batch=config.batch)
    images = list(generated_images(split))
    with PredictorPool(reader, config.processes) as pool:
        return pool.describe(images, "read back")


def _verdict(arms: list[ModelResult]) -> str:
    first, *others = arms
    said = [compared("Report micro-F1-14", arm, first, "micro_f1_14") for arm in others]
    ranked = sorted(arms, key=lambda arm: arm.metrics["frechet_distance"].value)
    distances = ", ".join(
        f"{arm.title} {one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
        for arm in ranked
        if (one := arm.metrics["frechet_distance"])
    )
    return " ".join([*said, f"Fréchet distance of the drawings, the smallest first: {distances}."])
