"""Does cleaning pay? Two models alike but for their training text: cleaned reports, or the reports as written."""

import time
from pathlib import Path

import polars as pl

from unix.ablation.arms import AblationConfig, AblationSummary, arm_config, train_arm
from unix.ablation.raw_set import write_raw_set
from unix.ablation.report import publish
from unix.data.stream import ShardReader
from unix.evaluation.bootstrap import Draws
from unix.evaluation.comparison import ModelResult, compared, model_result
from unix.evaluation.noise import noise_kinds
from unix.evaluation.report_scores import report_draws
from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding
from unix.records import Split
from unix.store import Store

CLEANED, RAW = "cleaned", "raw"
_STAGE = "stage1"
_TITLES = {CLEANED: "cleaned reports", RAW: "reports as written"}


CHART = ("micro_f1_14", "macro_f1_14", "original_micro_f1_14", "rouge_l", "bleu_4", "noise")
"""What the page plots."""


def ablate_cleaning(config: AblationConfig) -> AblationSummary:
    """Train stage 1 on cleaned and on raw reports, write reports with both for the same images, and compare.

    Both start from the same checkpoint, and so with the same tokenizer. Both are scored
    against the cleaned references and against the reports as written.

    Raises:
        StoreError: the store lacks the report of a training sample.
        Interrupted: on SIGTERM or SIGINT, after saving; the same call goes on.
    """
    started = time.monotonic()
    cleaned = arm_config(config, _STAGE, CLEANED)
    reader = ShardReader(Path(config.shards) / cleaned.data_set, Split.TRAIN)
    raw_shards = Path(config.out) / "shards"
    write_raw_set(reader, Store(config.store), raw_shards / cleaned.data_set)
    raw = arm_config(config, _STAGE, RAW, [f"shards={raw_shards}"])
    results: list[ModelResult] = []
    first: dict[str, Draws] | None = None
    rows = pl.DataFrame()
    for name, training in ((CLEANED, cleaned), (RAW, raw)):
        checkpoint = train_arm(training)
        rows = written_reports(config, name, checkpoint, cleaned.data_set)
        draws = report_draws(rows, config.seed, config.resamples)
        results.append(model_result(name, _TITLES[name], checkpoint, draws, first, training.steps))
        first = first or draws
    summary = AblationSummary(
        ablation="cleaning",
        from_checkpoint=config.from_checkpoint,
        split=config.split,
        seed=config.seed,
        arms=tuple(results),
        baselines={
            "noise_in_cleaned_references": _noise_share(rows["reference"]),
            "noise_in_reports_as_written": _noise_share(rows["original"]),
        },
        verdict=_verdict(*results),
        synthetic=set(rows["source"]) == {"phantom"},
        page=str(Path(config.out) / "report.html"),
        seconds=round(time.monotonic() - started, 1),
    )
    publish(summary, CHART, config.out)
    return summary


def written_reports(config: AblationConfig, name: str, checkpoint: str, data_set: str) -> pl.DataFrame:
    """The rows of `predictions.parquet` of one arm's evaluation on the set's cleaned references."""
    evaluation = evaluate_understanding(
        EvaluateUnderstandingConfig(
            checkpoint=checkpoint,
            shards=config.shards,
            data_set=data_set,
            store=config.store,
            out=str(Path(config.out) / name / "understanding"),
            split=config.split,
            limit=config.limit,
            seed=config.seed,
            batch=config.batch,
            processes=config.processes,
            resamples=config.resamples,
        )
    )
    return pl.read_parquet(evaluation.predictions)


def _noise_share(texts: pl.Series) -> float:
    return sum(bool(noise_kinds(text)) for text in texts) / max(len(texts), 1)


def _verdict(cleaned: ModelResult, raw: ModelResult) -> str:
    return " ".join(
        compared(said, raw, cleaned, metric, higher)
        for said, metric, higher in (
            ("Report micro-F1-14", "micro_f1_14", True),
            ("Micro-F1-14 against the reports as written", "original_micro_f1_14", True),
            ("Share of reports with invented noise", "noise", False),
        )
    )
