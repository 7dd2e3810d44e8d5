"""How well the understanding branch reports: its reports of a split's images against the true, cleaned reports."""

import time

import numpy as np
import polars as pl
from pydantic import Field

from unix.data.labels import label_report
from unix.evaluation import clinical
from unix.evaluation.bootstrap import Patients, metrics_of
from unix.evaluation.drawn_scores import FEATURES_FOLDER, TOWER, chosen_encoder, nearest_reports, training_images
from unix.evaluation.evaluation_page import PAGE_FILE, publish_evaluation
from unix.evaluation.features import FeatureCache
from unix.evaluation.predict_split import PredictedSplit, predict_split
from unix.evaluation.predictions import PREDICTIONS_FILE, label_column, publish_rows
from unix.evaluation.references import with_originals
from unix.evaluation.report_scores import labels_of, report_draws
from unix.evaluation.results import EvaluateConfig, EvaluationSummary, predicted_labels, training_reports
from unix.evaluation.sides import side_accuracy
from unix.evaluation.text_metrics import text_scores
from unix.records import Task

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
    rows = labelled(with_originals(split.rows, config.store))
    path = split.folder / PREDICTIONS_FILE
    publish_rows(rows, path)
    written, patients = rows["prediction"].to_list(), rows["subject_id"].to_list()
    metrics = metrics_of(report_draws(rows, config.seed, config.resamples))
    side = side_accuracy(rows["reference"].to_list(), written, patients, config.seed, config.resamples)
    predicted, reference = labels_of(rows, "predicted_labels"), labels_of(rows, "reference_labels")
    resampled = Patients(patients, config.seed, config.resamples)
    summary = EvaluationSummary(
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
        metrics=metrics | ({"side_accuracy": side} if side else {}),
        per_class=clinical.per_class(clinical.positives(predicted), clinical.positives(reference), resampled),
        baselines=_baselines(config, split, rows),
        seconds=time.monotonic() - started,
        predictions=str(path),
        report_html=str(split.folder / PAGE_FILE),
    )
    return publish_evaluation(summary, rows, split)


def labelled(rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` with the labels of what was written and of both references; null where nothing was written or known."""
    return rows.with_columns(
        label_column("predicted_labels", [predicted_labels(text) for text in rows["prediction"]]),
        label_column("reference_labels", [label_report(text) for text in rows["reference"]]),
        label_column("original_labels", [predicted_labels(text) for text in rows["original"]]),
    )


def _baselines(config: EvaluateUnderstandingConfig, split: PredictedSplit, rows: pl.DataFrame) -> dict[str, float]:
    """Scores of predictors that write nothing of their own: chosen on the training split, scored on this one.

    One constant label set, one constant report, the model's reports for other images, the nearest image's report.
    """
    reports = training_reports(split.reader.folder, config.baseline_reports, config.seed)
    most_frequent = clinical.most_frequent(reports)
    predicted_NK = clinical.positives(labels_of(rows, "predicted_labels"))
    reference_NK = clinical.positives(labels_of(rows, "reference_labels"))
    best_K = clinical.best_constant_set(clinical.positives([label_report(report) for report in reports]))
    mode_1K = clinical.positives([label_report(most_frequent)])
    scores = {"shuffled_micro_f1_14": clinical.shuffled_micro_f1(predicted_NK, reference_NK, config.seed)}
    for name, labels_1K in (("best_constant", best_K[None]), ("most_frequent_report", mode_1K)):
        everywhere_NK = np.repeat(labels_1K, rows.height, axis=0)
        scores[f"{name}_micro_f1_14"] = clinical.micro_f1(everywhere_NK, reference_NK)
        scores[f"{name}_macro_f1_14"] = clinical.macro_f1(everywhere_NK, reference_NK)
    true, written = rows["reference"].to_list(), rows["prediction"].to_list()
    order = np.random.default_rng([config.seed, 2]).permutation(len(true))
    said_by = {"most_frequent_report": [most_frequent] * len(true), "shuffled": [written[place] for place in order]}
    if config.encoder is not None and config.training_images:
        said_by["nearest_image"] = _nearest(config, split)
        nearest_NK = clinical.positives([label_report(report) for report in said_by["nearest_image"]])
        scores["nearest_image_micro_f1_14"] = clinical.micro_f1(nearest_NK, reference_NK)
        scores["nearest_image_macro_f1_14"] = clinical.macro_f1(nearest_NK, reference_NK)
    for name, said in said_by.items():
        overlaps = [text_scores(one, other) for one, other in zip(said, true, strict=True)]
        scores[f"{name}_bleu_4"] = float(np.mean([one.bleu[3] for one in overlaps]))
        scores[f"{name}_rouge_l"] = float(np.mean([one.rouge_l for one in overlaps]))
    return scores


def _nearest(config: EvaluateUnderstandingConfig, split: PredictedSplit) -> list[str]:
    encoder = chosen_encoder(config.encoder or TOWER, split.checkpoint)
    cache = FeatureCache(split.folder / FEATURES_FOLDER)
    training = training_images(split, encoder, cache, config.training_images, config.seed)
    return nearest_reports(split, encoder, cache, training)
