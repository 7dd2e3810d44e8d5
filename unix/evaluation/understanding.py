"""How well the understanding branch reports: its reports of a split's images against the true, cleaned reports."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from unix.data.labels import label_report
from unix.evaluation import clinical
from unix.evaluation.predict_split import predict_split
from unix.evaluation.predictions import PREDICTIONS_FILE, label_column, publish_rows
from unix.evaluation.results import (
    EvaluateConfig,
    EvaluationSummary,
    predicted_labels,
    training_reports,
)
from unix.evaluation.sides import side_accuracy
from unix.records import Labels, Task

REFERENCES = "labels that the rule labeler gives the cleaned report (findings and impression)"


class EvaluateUnderstandingConfig(EvaluateConfig):
    """Measure the reports that a checkpoint writes."""

    baseline_reports: int = Field(default=20_000, ge=1)
    """Training reports that the baselines are chosen on, at most."""


def evaluate_understanding(config: EvaluateUnderstandingConfig) -> EvaluationSummary:
    """Write a report for every image of the split and score its labels.

    Raises:
        EvaluationError: predictions are missing or unreadable, or the folder holds those of another run.
    """
    started = time.monotonic()
    split = predict_split(config, Task.UNDERSTANDING)
    rows = split.rows
    written, true, patients = rows["prediction"].to_list(), rows["reference"].to_list(), rows["subject_id"].to_list()
    predicted, reference = [predicted_labels(text) for text in written], [label_report(text) for text in true]
    agreement = clinical.agreement(predicted, reference, patients, config.seed, config.resamples)
    side = side_accuracy(true, written, patients, config.seed, config.resamples)
    path = split.folder / PREDICTIONS_FILE
    publish_rows(
        rows.with_columns(label_column("predicted_labels", predicted), label_column("reference_labels", reference)),
        path,
    )
    return EvaluationSummary(
        task=Task.UNDERSTANDING,
        checkpoint=str(split.checkpoint),
        references=REFERENCES,
        data_set=split.reader.manifest.set,
        release=split.reader.manifest.release,
        split=config.split,
        resolution=split.reader.manifest.size,
        seed=config.seed,
        n=rows.height,
        failures=sum(labels is None for labels in predicted),
        metrics=agreement.metrics | ({"side_accuracy": side} if side else {}),
        per_class=agreement.per_class,
        baselines=_baselines(config, split.reader.folder, predicted, reference),
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
