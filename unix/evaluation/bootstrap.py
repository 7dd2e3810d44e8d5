"""Percentile intervals from resampling patients, not images: a patient's studies stand or fall together (pure).

Shape legend: N samples, P patients, R resamples.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unix.config import Config
from unix.errors import ConfigError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RESAMPLES = 1000
JACKKNIFE_GROUPS = 20


class Metric(Config):
    """A number with its 95 % bootstrap interval over patients and the number of samples behind it."""

    value: float
    low: float
    high: float
    n: int
    floor: float | None = None
    """What the metric gives between two sets of real images, where that is not zero by definition."""
    floor_n: int | None = None
    """Images per side behind the floor."""
    at_floor_n: float | None = None
    """The metric itself with as many images per side as the floor: the one to hold against it."""


class Difference(Config):
    """How much higher the second of two models scores, with the 95 % interval of its paired bootstrap."""

    value: float
    low: float
    high: float
    n: int
    separated: bool
    """The interval leaves out zero: the models differ by more than chance of the sample explains."""


@dataclass(frozen=True, slots=True)
class Draws:
    """A metric on the sample and on each of R resamples of its patients; what intervals and comparisons come from."""

    value: float
    draws_R: FloatArray
    n: int
    resampling: str
    """Which samples were resampled how; equal only for the same patients in the same order, seed and R."""

    def metric(self) -> Metric:
        """The value with the 2.5 and 97.5 percentiles of its resampled values; undefined (nan) ones are left out."""
        low, high = np.nanpercentile(self.draws_R, [2.5, 97.5])
        return Metric(value=self.value, low=float(low), high=float(high), n=self.n)


def metrics_of(draws: Mapping[str, Draws]) -> dict[str, Metric]:
    """Every metric with its interval."""
    return {name: one.metric() for name, one in draws.items()}


def paired_difference(first: Draws, second: Draws, reflected: bool = False, level: float = 0.95) -> Difference:
    """Second minus first; each resample takes the same patients for both, so what they share cancels.

    `reflected` turns the interval about the value (the basic bootstrap: Davison and Hinkley 1997, section 5.2). That is
    for statistics that resampling shifts, such as the Frechet distance: its copies of images move a resampled distance
    as far from the value as the finite sample moved the value from the truth. `level` is that of the interval.

    Raises:
        ConfigError: they were not measured on the same samples with the same resamples.
    """
    if first.resampling != second.resampling:
        raise ConfigError(
            f"a paired comparison needs the same samples, seed and resamples on both sides; "
            f"here {first.n} samples ({first.resampling}) meet {second.n} ({second.resampling})"
        )
    value = second.value - first.value
    low, high = np.nanpercentile(second.draws_R - first.draws_R, [50 * (1 - level), 50 * (1 + level)])
    if reflected:
        low, high = 2 * value - high, 2 * value - low
    return Difference(
        value=value,
        low=float(low),
        high=float(high),
        n=first.n,
        separated=bool(low > 0 or high < 0),
    )


def paired_differences(first: Mapping[str, Draws], second: Mapping[str, Draws]) -> dict[str, Difference]:
    """Second minus first for every metric that both have."""
    return {name: paired_difference(one, second[name]) for name, one in first.items() if name in second}


class Patients:
    """A fixed set of seeded resamples of the patients behind N samples; every metric of a comparison shares it."""

    def __init__(self, patient_of_sample: Sequence[str], seed: int, resamples: int = RESAMPLES) -> None:
        names, self.patient_N = np.unique(np.asarray(patient_of_sample, dtype=str), return_inverse=True)
        self.count, self.num_samples = len(names), len(self.patient_N)
        recipe = "\n".join([*map(str, patient_of_sample), f"{seed}/{resamples}"])
        self.resampling = hashlib.blake2b(recipe.encode(), digest_size=8).hexdigest()
        generator = np.random.default_rng(seed)
        self.weights_RP: IntArray = generator.multinomial(self.count, np.full(self.count, 1 / self.count), resamples)

    def sums(self, per_sample: NDArray[np.generic]) -> FloatArray:
        """Sums over samples of `per_sample` [N, ...] in every resample: [R, ...]."""
        per_patient = np.zeros((self.count, *per_sample.shape[1:]))
        np.add.at(per_patient, self.patient_N, per_sample)
        return np.tensordot(self.weights_RP.astype(np.float64), per_patient, axes=1)

    def mean(self, per_sample_N: NDArray[np.float64] | NDArray[np.bool_]) -> Draws:
        """The mean of a per-sample score [N]."""
        size_R = self.sums(np.ones(self.num_samples))
        return self.draws(float(per_sample_N.mean()), self.sums(per_sample_N) / size_R)

    def draws(self, value: float, draws_R: FloatArray) -> Draws:
        """A metric's `value` on the samples and on each resample."""
        return Draws(value, draws_R, self.num_samples, self.resampling)

    def metric(self, statistic: Callable[[IntArray], float]) -> Metric | None:
        """Value and interval of any `statistic` of sample indices; None where it is undefined (nan) on the sample."""
        rows = np.arange(self.num_samples)
        value = statistic(rows)
        if np.isnan(value):
            return None
        draws = [statistic(np.repeat(rows, weights_P[self.patient_N])) for weights_P in self.weights_RP]
        return self.draws(value, np.asarray(draws)).metric()


def jackknife_groups(patients: Sequence[str], seed: int = 0, groups: int = JACKKNIFE_GROUPS) -> NDArray[np.bool_]:
    """Which samples stay when each of G seeded groups of patients is left out: [G, N].

    Raises:
        ConfigError: there are fewer than two patients to leave out.
    """
    names, patient_N = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    count = min(groups, len(names))
    if count < 2:
        raise ConfigError(f"an interval over patients needs at least two of them, not {len(names)}")
    group_P = np.random.default_rng(seed).permutation(len(names)) % count
    return group_P[patient_N] != np.arange(count)[:, None]


def jackknife_metric(value: float, without_G: Sequence[float] | FloatArray, n: int) -> Metric:
    """`value` +- 1.96 standard errors, from what the statistic is without each of the groups of `jackknife_groups`.

    For statistics that resampling with replacement shifts: copies of an image shrink the spread of a set and are each
    other's neighbours, so a bootstrapped Frechet distance lies wholly above the value that it should surround
    (delete-a-group jackknife: Kott 2001).
    """
    values_G = np.asarray(without_G, dtype=np.float64)
    count = len(values_G)
    error = float(np.sqrt((count - 1) / count * ((values_G - values_G.mean()) ** 2).sum()))
    return Metric(value=value, low=value - 1.96 * error, high=value + 1.96 * error, n=n)


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
    return Patients(patients, seed, resamples).mean(hits).metric()
