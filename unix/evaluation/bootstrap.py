"""Percentile intervals from resampling patients, not images: a patient's studies stand or fall together (pure).

Shape legend: N samples, P patients, R resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from unix.config import Config

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RESAMPLES = 1000


class Metric(Config):
    """A number with its 95 % bootstrap interval over patients and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int
    floor: float | None = None
    """What the metric gives between two halves of the real data, where that is not zero by definition."""


class Patients:
    """A fixed set of seeded resamples of the patients behind N samples; every metric of a comparison shares it."""

    def __init__(self, patient_of_sample: Sequence[str], seed: int, resamples: int = RESAMPLES) -> None:
        names, self.patient_N = np.unique(np.asarray(patient_of_sample, dtype=str), return_inverse=True)
        self.count, self.num_samples = len(names), len(self.patient_N)
        generator = np.random.default_rng(seed)
        self.weights_RP: IntArray = generator.multinomial(self.count, np.full(self.count, 1 / self.count), resamples)

    def sums(self, per_sample: NDArray[np.generic]) -> FloatArray:
        """Sums over samples of `per_sample` [N, ...] in every resample: [R, ...]."""
        per_patient = np.zeros((self.count, *per_sample.shape[1:]))
        np.add.at(per_patient, self.patient_N, per_sample)
        return np.tensordot(self.weights_RP.astype(np.float64), per_patient, axes=1)

    def interval(self, value: float, draws_R: FloatArray, n: int | None = None) -> Metric:
        """`value` with the 2.5 and 97.5 percentiles of its resampled values; undefined (nan) resamples are left out."""
        low, high = np.nanpercentile(draws_R, [2.5, 97.5])
        return Metric(value=value, low=float(low), high=float(high), n=self.num_samples if n is None else n)

    def metric(self, statistic: Callable[[IntArray], float]) -> Metric | None:
        """Value and interval of any `statistic` of sample indices; None where it is undefined (nan) on the sample."""
        rows = np.arange(self.num_samples)
        value = statistic(rows)
        if np.isnan(value):
            return None
        draws = [statistic(np.repeat(rows, weights_P[self.patient_N])) for weights_P in self.weights_RP]
        return self.interval(value, np.asarray(draws))


def auc(positive: FloatArray, negative: FloatArray) -> float:
    """Probability that a positive measures higher than a negative, ties counting half; nan where either is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    up_to = np.searchsorted(ordered, positive, side="right")
    return float((below + up_to).sum() / (2 * len(positive) * len(negative)))


def auc_metric(
    scores: FloatArray, present: NDArray[np.bool_], patients: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> Metric | None:
    """AUC of `scores` [N] for telling `present` [N], with its interval; None where a side is empty."""
    return Patients(patients, seed, resamples).metric(
        lambda rows: auc(scores[rows][present[rows]], scores[rows][~present[rows]])
    )


def share_metric(
    hits: NDArray[np.bool_], patients: Sequence[str], seed: int = 0, resamples: int = RESAMPLES
) -> Metric | None:
    """Share of true values among `hits` [N], with its interval; None where there are none to ask."""
    if not len(hits):
        return None
    return Patients(patients, seed, resamples).metric(lambda rows: float(hits[rows].mean()))
