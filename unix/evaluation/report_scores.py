"""Every score of written reports with its resampled values, from the rows of `predictions.parquet` (pure).

Names without a prefix compare with the cleaned report, `original_...` with findings and impression as they were
written; the labels of a comparison all come from one labeler.
"""

import polars as pl

from unix.evaluation.bootstrap import Draws, Patients
from unix.evaluation.clinical import agreement_draws
from unix.evaluation.noise import noise_draws
from unix.evaluation.text_metrics import text_draws
from unix.records import Labels

ORIGINAL = "original_"


def report_draws(rows: pl.DataFrame, seed: int, resamples: int) -> dict[str, Draws]:
    """Label agreement, text overlap and invented noise of the N reports in `rows`, resampled over patients.

    Samples whose report as written is not known stay out of the `original_...` scores, which say so by their n.
    """
    written: list[str] = rows["prediction"].to_list()
    predicted = labels_of(rows, "predicted_labels")
    resampled = Patients(rows["subject_id"].to_list(), seed, resamples)
    draws = agreement_draws(predicted, reference_labels(rows), resampled)
    draws |= text_draws(written, rows["reference"].to_list(), resampled) | noise_draws(written, resampled)
    known = rows.filter(pl.col("original") != "")
    if known.height:
        resampled = Patients(known["subject_id"].to_list(), seed, resamples)
        against = agreement_draws(
            labels_of(known, "predicted_labels"), reference_labels(known, "original_labels"), resampled
        ) | text_draws(known["prediction"].to_list(), known["original"].to_list(), resampled)
        draws |= {f"{ORIGINAL}{name}": one for name, one in against.items()}
    return draws


def labels_of(rows: pl.DataFrame, column: str) -> list[Labels | None]:
    """A column of labels; None where nothing was written."""
    return rows[column].to_list()


def reference_labels(rows: pl.DataFrame, column: str = "reference_labels") -> list[Labels]:
    """A column of labels of references, which are all there."""
    return rows[column].drop_nulls().to_list()
