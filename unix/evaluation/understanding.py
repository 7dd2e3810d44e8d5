"""How well the understanding branch reports: its reports of a split's images against the true, cleaned reports."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from pydantic import Field

from unix.evaluation import clinical
from unix.evaluation.benchmark_files import ScoredReport, write_reports
from unix.evaluation.bootstrap import Patients, metrics_of
from unix.evaluation.drawn_scores import FEATURES_FOLDER, TOWER, chosen_encoder, nearest_reports, training_images
from unix.evaluation.evaluation_page import PAGE_FILE, publish_evaluation
from unix.evaluation.features import FeatureCache
from unix.evaluation.labelers import Labeler, label_reports, open_labeler
from unix.evaluation.predict_split import PredictedSplit, predict_split
from unix.evaluation.predictions import PREDICTIONS_FILE, publish_rows
from unix.evaluation.protocols import UNIX_PAPER, ReportProtocol, report_protocol
from unix.evaluation.radgraph_f1 import named_radgraph
from unix.evaluation.references import with_originals
from unix.evaluation.report_scores import labelled, labels_of, report_draws, with_radgraph
from unix.evaluation.results import EvaluateConfig, EvaluationSummary, training_reports
from unix.evaluation.sides import side_accuracy
from unix.evaluation.text_metrics import text_scores
from unix.records import Task

RESULTS_FILE = "understanding_results.csv"
"""Reports beside their references, as the paper's scorer reads them."""


class EvaluateUnderstandingConfig(EvaluateConfig):
    """Measure the reports that a checkpoint writes."""

    baseline_reports: int = Field(default=20_000, ge=1)
    """Training reports that the baselines are chosen on, at most."""
    radgraph: str | None = None
    """Folder of RadGraph's weights, `FOLDER[:MODEL]`; None: RadGraph F1 is not measured."""


def evaluate_understanding(config: EvaluateUnderstandingConfig) -> EvaluationSummary:
    """Write a report for every image of the split and score its labels.

    Raises:
        ConfigError: there is no such protocol or labeler, or RadGraph's package or weights are missing.
        EvaluationError: predictions are missing or unreadable, or the folder holds those of another run.
    """
    started = time.monotonic()
    protocol, labeler = report_protocol(config.protocol), open_labeler(config.labeler)
    radgraph = named_radgraph(config.radgraph) if config.radgraph else None
    split = predict_split(config, Task.UNDERSTANDING)
    rows, labelled_by = labelled(with_originals(split.rows, config.store), labeler, protocol)
    if radgraph is not None:
        rows = with_radgraph(rows, *radgraph)
    path = split.folder / PREDICTIONS_FILE
    publish_rows(rows, path)
    written, patients = rows["prediction"].to_list(), rows["subject_id"].to_list()
    if protocol is UNIX_PAPER:
        columns = rows.select("image_id", "prediction", "reference").iter_rows()
        write_reports(split.folder / RESULTS_FILE, [ScoredReport(*row) for row in columns])
    metrics = metrics_of(report_draws(rows, config.seed, config.resamples, protocol.bleu_weights))
    side = side_accuracy(rows["reference"].to_list(), written, patients, config.seed, config.resamples)
    predicted, reference = labels_of(rows, "predicted_labels"), labels_of(rows, "reference_labels")
    resampled = Patients(patients, config.seed, config.resamples)
    summary = EvaluationSummary(
        task=Task.UNDERSTANDING,
        checkpoint=str(split.checkpoint),
        protocol=protocol.name,
        protocol_told=protocol.told,
        references=f"labels that the labeler “{labelled_by}” gives the cleaned report (findings and impression)",
        labeler=labelled_by,
        data_set=split.reader.manifest.set,
        release=split.reader.manifest.release,
        split=config.split,
        resolution=split.reader.manifest.size,
        seed=config.seed,
        n=rows.height,
        failures=sum(labels is None for labels in predicted),
        metrics=metrics | ({"side_accuracy": side} if side else {}),
        per_class=clinical.per_class(clinical.positives(predicted), clinical.positives(reference), resampled),
        baselines=_baselines(config, split, rows, _Labels(labeler, protocol)),
        seconds=time.monotonic() - started,
        predictions=str(path),
        report_html=str(split.folder / PAGE_FILE),
    )
    return publish_evaluation(summary, rows, split)


@dataclass(frozen=True, slots=True)
class _Labels:
    """Labels texts as booleans, as the evaluation's protocol reads them."""

    labeler: Labeler
    protocol: ReportProtocol

    def positives(self, texts: Sequence[str]) -> clinical.BoolArray:
        """[N, 14]."""
        return clinical.positives(label_reports(self.labeler, texts, self.protocol.label_characters).labels)


def _baselines(
    config: EvaluateUnderstandingConfig, split: PredictedSplit, rows: pl.DataFrame, read: _Labels
) -> dict[str, float]:
    """Scores of predictors that write nothing of their own: chosen on the training split, scored on this one.

    One constant label set, one constant report, the model's reports for other images, the nearest image's report.
    """
    reports = training_reports(split.reader.folder, config.baseline_reports, config.seed)
    most_frequent = clinical.most_frequent(reports)
    predicted_NK = clinical.positives(labels_of(rows, "predicted_labels"))
    reference_NK = clinical.positives(labels_of(rows, "reference_labels"))
    best_K = clinical.best_constant_set(read.positives(reports))
    mode_1K = read.positives([most_frequent])
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
        nearest_NK = read.positives(said_by["nearest_image"])
        scores["nearest_image_micro_f1_14"] = clinical.micro_f1(nearest_NK, reference_NK)
        scores["nearest_image_macro_f1_14"] = clinical.macro_f1(nearest_NK, reference_NK)
    for name, said in said_by.items():
        overlaps = [text_scores(one, other, read.protocol.bleu_weights) for one, other in zip(said, true, strict=True)]
        scores[f"{name}_bleu_4"] = float(np.mean([one.bleu[3] for one in overlaps]))
        scores[f"{name}_rouge_l"] = float(np.mean([one.rouge_l for one in overlaps]))
    return scores


def _nearest(config: EvaluateUnderstandingConfig, split: PredictedSplit) -> list[str]:
    encoder = chosen_encoder(config.encoder or TOWER, split.checkpoint)
    cache = FeatureCache(split.folder / FEATURES_FOLDER)
    training = training_images(split, encoder, cache, config.training_images, config.seed)
    return nearest_reports(split, encoder, cache, training)
