"""Every score of written reports with its resampled values, from the rows of `predictions.parquet`.

Names without a prefix compare with the cleaned report, `original_...` with findings and impression as they were
written; the labels of a comparison all come from one labeler.
"""

from collections.abc import Sequence

import polars as pl

from unix.errors import EvaluationError
from unix.evaluation.bootstrap import Draws, Patients
from unix.evaluation.clinical import agreement_draws
from unix.evaluation.labelers import Labeler, label_reports
from unix.evaluation.noise import noise_draws
from unix.evaluation.predictions import label_column
from unix.evaluation.protocols import NATIVE_REPORTS, ReportProtocol
from unix.evaluation.radgraph_f1 import PREFIX, RadGraphScorer, radgraph_scores
from unix.evaluation.text_metrics import UNIFORM_WEIGHTS, text_draws
from unix.records import Labels

ORIGINAL = "original_"


def labelled(
    rows: pl.DataFrame, labeler: Labeler, protocol: ReportProtocol = NATIVE_REPORTS
) -> tuple[pl.DataFrame, str]:
    """`rows` with the labels of what was written and of both references, and the name of who labelled them.

    Labels are null where nothing was written or, of the report as written, known.

    Raises:
        EvaluationError: a reference is blank.
    """
    if blank := sum(not text.strip() for text in rows["reference"]):
        raise EvaluationError(
            f"{blank} of {rows.height} references are blank and cannot score a report; leave their samples out"
        )
    sides = {
        f"{name}_labels": label_reports(labeler, rows[column].to_list(), protocol.label_characters)
        for name, column in (("predicted", "prediction"), ("reference", "reference"), ("original", "original"))
    }
    columns = [label_column(name, side.labels) for name, side in sides.items()]
    return rows.with_columns(columns), sides["reference_labels"].labeler


def with_radgraph(rows: pl.DataFrame, scorer: RadGraphScorer, name: str) -> pl.DataFrame:
    """`rows` with the RadGraph F1 of each report, as column `name` and, where that is known, against the report as
    written, as `original_<name>`."""
    written: list[str] = rows["prediction"].to_list()
    known = [place for place, text in enumerate(rows["original"]) if text.strip()]
    against: list[float | None] = [None] * rows.height
    originals = [rows["original"][place] for place in known]
    for place, score in zip(
        known, radgraph_scores(scorer, [written[place] for place in known], originals), strict=True
    ):
        against[place] = float(score)
    return rows.with_columns(
        pl.Series(name, radgraph_scores(scorer, written, rows["reference"].to_list())),
        pl.Series(f"{ORIGINAL}{name}", against, dtype=pl.Float64),
    )


def report_draws(
    rows: pl.DataFrame, seed: int, resamples: int, bleu_weights: Sequence[Sequence[float]] = UNIFORM_WEIGHTS
) -> dict[str, Draws]:
    """Label agreement, text overlap and invented noise of the N reports in `rows`, resampled over patients.

    Samples whose report as written is not known stay out of the `original_...` scores, which say so by their n.
    """
    written: list[str] = rows["prediction"].to_list()
    resampled = Patients(rows["subject_id"].to_list(), seed, resamples)
    draws = agreement_draws(labels_of(rows, "predicted_labels"), reference_labels(rows), resampled)
    draws |= text_draws(written, rows["reference"].to_list(), resampled, bleu_weights)
    draws |= _column_draws(rows, PREFIX, resampled) | noise_draws(written, resampled)
    known = rows.filter(pl.col("original") != "")
    if known.height:
        resampled = Patients(known["subject_id"].to_list(), seed, resamples)
        against = agreement_draws(
            labels_of(known, "predicted_labels"), reference_labels(known, "original_labels"), resampled
        ) | text_draws(known["prediction"].to_list(), known["original"].to_list(), resampled, bleu_weights)
        draws |= {f"{ORIGINAL}{name}": one for name, one in against.items()}
        draws |= _column_draws(known, f"{ORIGINAL}{PREFIX}", resampled)
    return draws


def labels_of(rows: pl.DataFrame, column: str) -> list[Labels | None]:
    """A column of labels; None where nothing was written."""
    return rows[column].to_list()


def reference_labels(rows: pl.DataFrame, column: str = "reference_labels") -> list[Labels]:
    """A column of labels of references, which are all there."""
    return rows[column].drop_nulls().to_list()


def _column_draws(rows: pl.DataFrame, prefix: str, resampled: Patients) -> dict[str, Draws]:
    """Means of the columns of scores per report whose names begin so."""
    return {name: resampled.mean(rows[name].to_numpy()) for name in rows.columns if name.startswith(prefix)}
