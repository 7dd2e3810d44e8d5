"""The jobs behind `unix evaluate reports` and `drawings`: what another program wrote or drew, from the files that the
paper's and the benchmark's scripts read."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from pydantic import Field

from unix.config import Config
from unix.errors import SourceError
from unix.evaluation import clinical
from unix.evaluation.alignment import METRIC as ALIGNMENT
from unix.evaluation.alignment import open_alignment, similarities
from unix.evaluation.benchmark_files import AnnotatedImage, read_annotations, read_drawn, read_reports
from unix.evaluation.bootstrap import RESAMPLES, Metric, Patients, metrics_of
from unix.evaluation.clinical import ClassScore
from unix.evaluation.drawn_against_real import chosen_protocol, compared_sets, sides, write_benchmark_files
from unix.evaluation.drawn_scores import FEATURES_FOLDER, chosen_encoder
from unix.evaluation.features import FeatureCache, image_features, image_files
from unix.evaluation.image_metrics import ImageScores, ImageSet
from unix.evaluation.labelers import label_reports, open_labeler
from unix.evaluation.protocols import NATIVE, BenchmarkScores, report_protocol
from unix.evaluation.radgraph_f1 import named_radgraph
from unix.evaluation.report_scores import labelled, labels_of, report_draws, with_radgraph
from unix.records import no_labels

_PATIENT_FOLDER = re.compile(r"(?:^|/)(p\d{8})/")
"""The patient in a path of MIMIC-CXR."""


class ScoreReportsConfig(Config):
    """Which reports to score, and how."""

    file: str
    """CSV or Parquet with `Image Path`, `Report Impression` (what was written) and `Ground Truth`."""
    protocol: str = NATIVE
    labeler: str = "rules"
    radgraph: str | None = None
    seed: int = 0
    resamples: int = Field(default=RESAMPLES, ge=1)


class ReportFileSummary(Config):
    """Scores of a file of reports."""

    file: str
    protocol: str
    protocol_told: str
    labeler: str
    n: int
    patients: int
    """Whom the intervals are over: patients by the image's path, else images."""
    failures: int
    """Rows without a report; they count as wrong."""
    metrics: dict[str, Metric]
    per_class: dict[str, ClassScore]
    seconds: float


def score_reports(config: ScoreReportsConfig) -> ReportFileSummary:
    """Score written reports against their references.

    Raises:
        ConfigError: the file lacks a column, or there is no such protocol or labeler.
        EvaluationError: a reference is blank.
        SourceError: the file has no row.
    """
    started = time.monotonic()
    protocol, labeler = report_protocol(config.protocol), open_labeler(config.labeler)
    radgraph = named_radgraph(config.radgraph) if config.radgraph else None
    reports = read_reports(Path(config.file))
    if not reports:
        raise SourceError(f"{config.file} has no row: there is nothing to score")
    patients = [_patient(report.image) for report in reports]
    rows = pl.DataFrame(
        {
            "subject_id": patients,
            "prediction": [report.prediction for report in reports],
            "reference": [report.reference for report in reports],
            "original": [""] * len(reports),
        }
    )
    rows, labelled_by = labelled(rows, labeler, protocol)
    if radgraph is not None:
        rows = with_radgraph(rows, *radgraph)
    predicted = labels_of(rows, "predicted_labels")
    resampled = Patients(patients, config.seed, config.resamples)
    reference_NK = clinical.positives(labels_of(rows, "reference_labels"))
    return ReportFileSummary(
        file=config.file,
        protocol=protocol.name,
        protocol_told=protocol.told,
        labeler=labelled_by,
        n=len(reports),
        patients=resampled.count,
        failures=sum(labels is None for labels in predicted),
        metrics=metrics_of(report_draws(rows, config.seed, config.resamples, protocol.bleu_weights)),
        per_class=clinical.per_class(clinical.positives(predicted), reference_NK, resampled),
        seconds=time.monotonic() - started,
    )


class ScoreDrawingsConfig(Config):
    """Which drawings to score against which real images, and how."""

    file: str
    """CSV with a prompt and an image's file name a row (`unix.evaluation.benchmark_files` has the columns' names)."""
    images: str
    """Folder of the drawings."""
    real: str
    """CSV of the real images: `id, path, annotated_prompt, patientID, chexpert_labels`."""
    real_images: str
    """Folder that the paths of `real` start in."""
    encoder: str
    """`rad-dino:FOLDER`, `tower:FOLDER` or `random`."""
    out: str
    """Folder for the feature cache and, under the benchmark's protocol, its tables."""
    protocol: str = NATIVE
    average_shards: int = Field(default=1, ge=1)
    labeler: str = "rules"
    """Reads the classes of a drawing out of its prompt, where the protocol does not take those of the real images."""
    alignment: str | None = None
    seed: int = 0
    resamples: int = Field(default=RESAMPLES, ge=1)


class DrawingFileSummary(Config):
    """Scores of a file of drawings."""

    file: str
    protocol: str
    protocol_told: str
    labeler: str
    encoder: str
    n: int
    """Drawings."""
    n_real: int
    """Real images that the protocol takes."""
    metrics: dict[str, Metric]
    images_per_class: dict[str, ImageScores]
    benchmark: BenchmarkScores | None
    seconds: float


def score_drawings(config: ScoreDrawingsConfig) -> DrawingFileSummary:
    """Score drawings against real images. A drawing belongs to the patient of the first real image of its prompt.

    Raises:
        ConfigError: settings exclude each other, a column is missing, or an optional model is.
        SourceError: a row or an image is missing or unreadable; says how many. None is scored as a blank.
    """
    started = time.monotonic()
    protocol = chosen_protocol(config.protocol, config.encoder, config.average_shards)
    labeler, encoder = open_labeler(config.labeler), chosen_encoder(config.encoder, Path())
    aligned_by = open_alignment(config.alignment) if config.alignment else None
    drawn_rows, real_rows = read_drawn(Path(config.file)), read_annotations(Path(config.real))
    if not drawn_rows or not real_rows:
        raise SourceError(
            f"{config.file} has {len(drawn_rows)} rows and {config.real} {len(real_rows)}: nothing to compare"
        )
    prompts, real_prompts = [row.prompt for row in drawn_rows], [row.prompt for row in real_rows]
    drawn_files = {row.image: Path(config.images) / row.image for row in drawn_rows}
    real_files = {row.image_id: Path(config.real_images) / row.path for row in real_rows}
    if len(real_files) < len(real_rows):
        raise SourceError(f"{config.real} names {len(real_rows) - len(real_files)} images again; keep each once")
    cache = FeatureCache(Path(config.out) / FEATURES_FOLDER)
    drawn_features, real_features = (
        image_features(encoder, image_files(files), cache, protocol.preparation) for files in (drawn_files, real_files)
    )
    both = sides(
        protocol,
        ImageSet(real_features, tuple(row.patient for row in real_rows)),
        ImageSet(drawn_features, tuple(_patients_of_drawings(prompts, real_rows))),
        real_prompts,
        prompts,
        [row.labels for row in real_rows],
        [labels or no_labels() for labels in label_reports(labeler, prompts).labels],
    )
    found = compared_sets(protocol, both, config.seed, config.resamples, config.average_shards)
    metrics = found.metrics
    if aligned_by is not None:
        resampled = Patients(both.drawn.patients, config.seed, config.resamples)
        score_M = similarities(aligned_by, list(drawn_files.values()), prompts)
        metrics = metrics | {ALIGNMENT: resampled.mean(score_M).metric()}
    aligned = metrics[ALIGNMENT].value if ALIGNMENT in metrics else None
    write_benchmark_files(Path(config.out), found, Path(config.file).name, aligned)
    return DrawingFileSummary(
        file=config.file,
        protocol=protocol.name,
        protocol_told=protocol.told,
        labeler=labeler.name,
        encoder=encoder.name,
        n=len(both.drawn),
        n_real=len(both.real),
        metrics=metrics,
        images_per_class=found.per_class,
        benchmark=found.benchmark,
        seconds=time.monotonic() - started,
    )


def _patient(image: str) -> str:
    found = _PATIENT_FOLDER.search(image)
    return found.group(1) if found else image


def _patients_of_drawings(prompts: Sequence[str], real: Sequence[AnnotatedImage]) -> list[str]:
    owner: dict[str, str] = {}
    for row in real:
        owner.setdefault(row.prompt, row.patient)
    return [owner.get(prompt, f"drawing {place}") for place, prompt in enumerate(prompts)]
