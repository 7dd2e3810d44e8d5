"""How well the understanding branch reports: its reports of a split's images against the true, cleaned reports."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from pydantic import Field

from unix.data.labels import label_report
from unix.data.stream import Sample
from unix.evaluation import clinical
from unix.evaluation.results import (
    EvaluateConfig,
    EvaluationSummary,
    chosen_samples,
    open_set,
    predicted_labels,
    training_reports,
    write_predictions,
)
from unix.evaluation.sides import side_accuracy
from unix.evaluation.workers import PredictorPool
from unix.records import Labels, Task, join_report
from unix.store import LABELS_TYPE

REFERENCES = "labels that the rule labeler gives the cleaned report (findings and impression)"


class EvaluateUnderstandingConfig(EvaluateConfig):
    """Measure the reports that a checkpoint writes."""

    baseline_reports: int = Field(default=20_000, ge=1)
    """Training reports that the baselines are chosen on, at most."""


def evaluate_understanding(config: EvaluateUnderstandingConfig) -> EvaluationSummary:
    """Write a report for every image of the split and score its labels; predictions go to Parquet."""
    started = time.monotonic()
    with PredictorPool(config, config.processes) as pool:
        facts = pool.facts()
        reader = open_set(config, Task.UNDERSTANDING, facts.data_set)
        samples = [reader.read(index) for index in chosen_samples(reader.keys, config.limit, config.seed)]
        written = pool.describe([sample.image for sample in samples])
    true = [join_report(sample.findings, sample.impression) for sample in samples]
    predicted, reference = [predicted_labels(text) for text in written], [label_report(text) for text in true]
    patients = [sample.meta.subject_id for sample in samples]
    agreement = clinical.agreement(predicted, reference, patients, config.seed, config.resamples)
    side = side_accuracy(true, written, patients, config.seed, config.resamples)
    path = write_predictions(
        _rows(samples, written, true, predicted, reference), config.folder(Task.UNDERSTANDING) / "predictions.parquet"
    )
    return EvaluationSummary(
        task=Task.UNDERSTANDING,
        checkpoint=facts.folder,
        references=REFERENCES,
        data_set=reader.manifest.set,
        release=reader.manifest.release,
        split=config.split,
        resolution=reader.manifest.size,
        seed=config.seed,
        n=len(samples),
        failures=sum(labels is None for labels in predicted),
        metrics=agreement.metrics | ({"side_accuracy": side} if side else {}),
        per_class=agreement.per_class,
        baselines=_baselines(config, reader.folder, predicted, reference),
        seconds=time.monotonic() - started,
        predictions=str(path),
    )


def _baselines(
    config: EvaluateUnderstandingConfig, folder: Path, predicted: Sequence[Labels | None], reference: Sequence[Labels]
) -> dict[str, float]:
    """Scores of predictors that never look at the image: chosen on the training split, scored on this one."""
    reports = training_reports(folder, config.baseline_reports, config.seed)
    reference_NK = clinical.positives(reference)
    best_K = clinical.best_constant_set(clinical.positives([label_report(report) for report in reports]))
    mode = clinical.positives([label_report(clinical.most_frequent(reports))])
    scores: dict[str, float] = {
        "shuffled_micro_f1_14": clinical.shuffled_micro_f1(clinical.positives(predicted), reference_NK, config.seed)
    }
    for name, labels_1K in (("best_constant", best_K[None]), ("most_frequent_report", mode)):
        everywhere_NK = np.repeat(labels_1K, len(reference), axis=0)
        scores[f"{name}_micro_f1_14"] = clinical.micro_f1(everywhere_NK, reference_NK)
        scores[f"{name}_macro_f1_14"] = clinical.macro_f1(everywhere_NK, reference_NK)
    return scores


def _rows(
    samples: Sequence[Sample],
    written: Sequence[str],
    true: Sequence[str],
    predicted: Sequence[Labels | None],
    reference: Sequence[Labels],
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [sample.image_id for sample in samples],
            "study_id": [sample.meta.study_id for sample in samples],
            "subject_id": [sample.meta.subject_id for sample in samples],
            "prediction": written,
            "reference": true,
            "predicted_labels": predicted,
            "reference_labels": reference,
        },
        schema_overrides={"predicted_labels": LABELS_TYPE, "reference_labels": LABELS_TYPE},
    )
