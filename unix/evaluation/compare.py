"""The job behind `unix evaluate compare`: folders of predictions for the same samples, side by side."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
from pydantic import Field, ValidationError

from unix.config import Config, describe
from unix.errors import EvaluationError
from unix.evaluation.bootstrap import RESAMPLES, Draws
from unix.evaluation.comparison import ModelResult, compared, model_result, render_comparison
from unix.evaluation.evaluation_page import EVALUATION_FILE, PAGE_FILE
from unix.evaluation.generation import readback_draws
from unix.evaluation.page import publish_page
from unix.evaluation.predictions import PREDICTIONS_FILE, read_rows
from unix.evaluation.protocols import report_protocol
from unix.evaluation.report_scores import report_draws
from unix.evaluation.results import EvaluationSummary
from unix.manifest import write_atomically
from unix.records import Task

COMPARISON_FILE = "comparison.json"
_CHARTED = {
    Task.UNDERSTANDING: ("micro_f1_14", "macro_f1_14", "original_micro_f1_14", "bleu_4", "rouge_l", "noise"),
    Task.GENERATION: ("readback_micro_f1_14", "readback_macro_f1_14", "frechet_distance", "kernel_distance"),
}
_TOLD = {
    Task.UNDERSTANDING: (("Report micro-F1-14", "micro_f1_14"), ("ROUGE-L", "rouge_l")),
    Task.GENERATION: (("Read-back micro-F1-14", "readback_micro_f1_14"),),
}


class CompareConfig(Config):
    """Which evaluations to compare."""

    folders: tuple[str, ...] = Field(min_length=2)
    """Folders that `unix evaluate` wrote; every other is held against the first."""
    names: tuple[str, ...] = ()
    """What the tables call them; default: their folders' names, or paths where those are equal."""
    out: str
    """Folder for `report.html` and `comparison.json`."""
    seed: int = 0
    resamples: int = Field(default=RESAMPLES, ge=1)


class CompareSummary(Config):
    """Models on the same samples."""

    task: Task
    data_set: str
    release: str
    labeler: str
    protocol: str
    n: int
    models: tuple[ModelResult, ...]
    verdict: str
    """What the intervals say, in words."""
    report_html: str


def compare_evaluations(config: CompareConfig) -> CompareSummary:
    """Hold each evaluation against the first by a paired bootstrap over patients.

    Raises:
        EvaluationError: a folder holds no evaluation, or they are not of the same samples, labeler or encoder.
    """
    evaluations = [_evaluation(Path(folder)) for folder in config.folders]
    tables = [read_rows(Path(folder) / PREDICTIONS_FILE) for folder in config.folders]
    first = evaluations[0]
    for folder, evaluation, rows in zip(config.folders, evaluations, tables, strict=True):
        _check_same(config.folders[0], first, tables[0], folder, evaluation, rows)
    names = config.names or _names(config.folders)
    if len(names) != len(config.folders):
        raise EvaluationError(f"{len(config.folders)} folders have {len(names)} names; give each one its own")
    models: list[ModelResult] = []
    first_draws: dict[str, Draws] | None = None
    for name, evaluation, rows in zip(names, evaluations, tables, strict=True):
        draws = _draws(evaluation, rows, config)
        result = model_result(name, name, evaluation.checkpoint, draws, first_draws)
        models.append(result.model_copy(update={"metrics": evaluation.metrics | result.metrics}))
        first_draws = first_draws or draws
    verdict = " ".join(
        compared(said, model, models[0], metric) for model in models[1:] for said, metric in _TOLD[first.task]
    )
    summary = CompareSummary(
        task=first.task,
        data_set=first.data_set,
        release=first.release,
        labeler=first.labeler,
        protocol=first.protocol,
        n=first.n,
        models=tuple(models),
        verdict=verdict,
        report_html=str(Path(config.out) / PAGE_FILE),
    )
    _publish(summary, set(tables[0]["source"]) == {"phantom"}, Path(config.out))
    return summary


def _evaluation(folder: Path) -> EvaluationSummary:
    path = folder / EVALUATION_FILE
    try:
        return EvaluationSummary.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EvaluationError(
            f"cannot read {path}: {error.strerror}; give folders that `unix evaluate` wrote"
        ) from error
    except ValidationError as error:
        raise EvaluationError(f"{path} is not what this version writes: {describe(error)}; evaluate again") from error


def _check_same(
    first_folder: str,
    first: EvaluationSummary,
    first_rows: pl.DataFrame,
    folder: str,
    other: EvaluationSummary,
    rows: pl.DataFrame,
) -> None:
    for name in ("task", "data_set", "release", "labeler", "encoder", "protocol"):
        if getattr(first, name) != getattr(other, name):
            raise EvaluationError(
                f"{first_folder} and {folder} are not comparable: {name} is {getattr(first, name)} there and "
                f"{getattr(other, name)} here; evaluate both alike"
            )
    if not first_rows["image_id"].equals(rows["image_id"]):
        raise EvaluationError(
            f"{first_folder} has {first_rows.height} samples and {folder} {rows.height}, not the same ones; "
            "evaluate both with the same --split, --limit and --seed"
        )


def _names(folders: Sequence[str]) -> tuple[str, ...]:
    short = tuple(Path(folder).resolve().name for folder in folders)
    return short if len(set(short)) == len(short) else tuple(folders)


def _draws(evaluation: EvaluationSummary, rows: pl.DataFrame, config: CompareConfig) -> dict[str, Draws]:
    if evaluation.task is Task.UNDERSTANDING:
        weights = report_protocol(evaluation.protocol).bleu_weights
        return report_draws(rows, config.seed, config.resamples, weights)
    return readback_draws(rows, config.seed, config.resamples)


def _publish(summary: CompareSummary, synthetic: bool, out: Path) -> None:
    html = render_comparison(
        title=f"{len(summary.models)} models, {summary.task}",
        lead=f"Each measured on the same {summary.n:,} samples of {summary.data_set}.",
        command="unix evaluate compare",
        labeler=f"the labeler “{summary.labeler}”",
        synthetic=synthetic,
        verdict=summary.verdict,
        baselines={},
        models=summary.models,
        charted=_CHARTED[summary.task],
        facts=[
            ("shard set", f"{summary.data_set}, release {summary.release}"),
            ("protocol", summary.protocol),
            *((f"checkpoint: {model.title}", model.checkpoint) for model in summary.models),
        ],
    )
    publish_page(html, summary.report_html)
    write_atomically(out / COMPARISON_FILE, (summary.model_dump_json(indent=1) + "\n").encode())
