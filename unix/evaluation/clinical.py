"""Clinical agreement of two sets of CheXpert-14 labels: F1 with intervals over patients, and baselines (pure, numpy).

Shape legend: N reports, K classes, R bootstrap resamples. A report that could not be produced counts as one that
mentions nothing; it is never dropped.
"""

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from unix.config import Config
from unix.evaluation.bootstrap import RESAMPLES, Draws, Metric, Patients, metrics_of
from unix.records import CHEXPERT_5, CHEXPERT_14, Labels, no_labels

FREQUENT = 10
"""A class counts as frequent from this many positive references on; rarer ones make a macro mean noisy."""

_FIVE = np.array([name in CHEXPERT_5 for name in CHEXPERT_14])
_NUM_SHUFFLES = 20

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


class Uncertain(StrEnum):
    """What an uncertain label (-1) counts as, on both sides of a comparison."""

    POSITIVE = "positive"
    NEGATIVE = "negative"


class ClassScore(Config):
    """Counts and F1 of one class; `support` is the number of positive references."""

    tp: int
    fp: int
    fn: int
    support: int
    f1: float
    low: float | None = None
    """95 % interval of the F1 over patients, where it was asked for."""
    high: float | None = None


class Agreement(Config):
    """Every label metric of one comparison."""

    metrics: dict[str, Metric]
    per_class: dict[str, ClassScore]
    """Uncertain counted as positive."""
    per_class_uncertain_negative: dict[str, ClassScore]


def positives(labels: Sequence[Labels | None], uncertain: Uncertain = Uncertain.POSITIVE) -> BoolArray:
    """Labels as booleans [N, 14] in CHEXPERT_14's order. None, a failed report, is all-negative."""
    wanted = {1, -1} if uncertain is Uncertain.POSITIVE else {1}
    rows = [[(one or no_labels())[name] in wanted for name in CHEXPERT_14] for one in labels]
    return np.array(rows, dtype=bool).reshape(len(rows), len(CHEXPERT_14))


def f1(tp: FloatArray, fp: FloatArray, fn: FloatArray) -> FloatArray:
    """2 tp / (2 tp + fp + fn), elementwise; 0 where a class was neither predicted nor present."""
    hits, total = 2.0 * tp, 2.0 * tp + fp + fn
    return np.divide(hits, total, out=np.zeros(np.shape(total)), where=total > 0)


def micro_f1(predicted_NK: BoolArray, reference_NK: BoolArray) -> float:
    """F1 of all (report, class) decisions pooled."""
    return float(_micro(_outcomes(predicted_NK, reference_NK).sum(axis=0, dtype=np.float64)))


def macro_f1(predicted_NK: BoolArray, reference_NK: BoolArray) -> float:
    """Mean F1 of all 14 classes; one that nobody mentions is 0."""
    return float(_macro(_outcomes(predicted_NK, reference_NK).sum(axis=0, dtype=np.float64)))


def agreement(
    predicted: Sequence[Labels | None],
    reference: Sequence[Labels],
    patients: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compare predicted with reference labels, N of each; `patients` are the units the bootstrap draws.

    Names without a suffix count uncertain as positive, those with `_uncertain_negative` as negative. `macro_f1_14` is
    the mean over all 14 classes (one that nobody mentions is 0), `macro_f1_14_frequent` over those with at least
    FREQUENT positive references. `example_*` are means over reports of each report's own precision, recall and F1.

    Raises:
        ValueError: the three differ in length or are empty.
    """
    if not len(predicted) == len(reference) == len(patients) or not reference:
        sizes = f"{len(predicted)} predictions, {len(reference)} references, {len(patients)} patients"
        raise ValueError(f"labels to compare must be as many on both sides and at least one: {sizes}")
    resampled = Patients(patients, seed, resamples)
    scores = {
        uncertain: per_class(positives(predicted, uncertain), positives(reference, uncertain), resampled)
        for uncertain in Uncertain
    }
    return Agreement(
        metrics=metrics_of(agreement_draws(predicted, reference, resampled)),
        per_class=scores[Uncertain.POSITIVE],
        per_class_uncertain_negative=scores[Uncertain.NEGATIVE],
    )


def agreement_draws(
    predicted: Sequence[Labels | None], reference: Sequence[Labels], resampled: Patients
) -> dict[str, Draws]:
    """The metrics of `agreement` with their resampled values, for paired comparisons of models on the same samples."""
    found: dict[str, Draws] = {}
    for uncertain, suffix in ((Uncertain.POSITIVE, ""), (Uncertain.NEGATIVE, "_uncertain_negative")):
        predicted_NK, reference_NK = positives(predicted, uncertain), positives(reference, uncertain)
        found |= {f"{name}{suffix}": draws for name, draws in _draws(predicted_NK, reference_NK, resampled)}
    return found


def per_class(
    predicted_NK: BoolArray, reference_NK: BoolArray, resampled: Patients | None = None
) -> dict[str, ClassScore]:
    """Counts and F1 of each of the 14 classes, with its interval where resamples are given."""
    outcomes_NK3 = _outcomes(predicted_NK, reference_NK)
    counts_K3 = outcomes_NK3.sum(axis=0, dtype=np.float64)
    low_K: Sequence[float | None] = [None] * len(CHEXPERT_14)
    high_K = low_K
    if resampled is not None:
        low_K, high_K = np.percentile(
            f1(*np.moveaxis(resampled.sums(outcomes_NK3), -1, 0)), [2.5, 97.5], axis=0
        ).tolist()
    return {
        name: ClassScore(
            tp=int(tp), fp=int(fp), fn=int(fn), support=int(tp + fn), f1=float(f1(tp, fp, fn)), low=low, high=high
        )
        for name, (tp, fp, fn), low, high in zip(CHEXPERT_14, counts_K3, low_K, high_K, strict=True)
    }


def best_constant_set(reference_NK: BoolArray) -> BoolArray:
    """The label set [K] that, predicted for every report, has the highest micro-F1 against these references.

    Exact: a constant set S scores 2 sum_S p_k / (N |S| + sum p_k), p_k being the positives of class k, so the best set
    of each size is that of the most frequent classes.
    """
    support_K = reference_NK.sum(axis=0)
    order = np.argsort(-support_K, kind="stable")
    sizes = np.arange(1, len(order) + 1)
    scores = 2 * np.cumsum(support_K[order]) / np.maximum(len(reference_NK) * sizes + support_K.sum(), 1)
    best_K = np.zeros(len(order), dtype=bool)
    best_K[order[: int(np.argmax(scores)) + 1]] = True
    return best_K


def most_frequent(reports: Sequence[str]) -> str:
    """The report that occurs most often; of equally frequent ones the first in alphabetical order."""
    counts = Counter(reports)
    return min(counts, key=lambda report: (-counts[report], report))


def shuffled_micro_f1(predicted_NK: BoolArray, reference_NK: BoolArray, seed: int = 0) -> float:
    """Micro-F1 when predictions meet other reports' references: the mean over seeded permutations."""
    generator = np.random.default_rng([seed, 1])
    orders = [generator.permutation(len(reference_NK)) for _ in range(_NUM_SHUFFLES)]
    return float(np.mean([micro_f1(predicted_NK, reference_NK[order]) for order in orders]))


def _outcomes(predicted_NK: BoolArray, reference_NK: BoolArray) -> BoolArray:
    """True positive, false positive, false negative per decision: [N, K, 3]."""
    outcomes = (predicted_NK & reference_NK, predicted_NK & ~reference_NK, ~predicted_NK & reference_NK)
    return np.stack(outcomes, axis=2)


def _draws(predicted_NK: BoolArray, reference_NK: BoolArray, resampled: Patients) -> list[tuple[str, Draws]]:
    outcomes_NK3 = _outcomes(predicted_NK, reference_NK)
    counts_K3, counts_RK3 = outcomes_NK3.sum(axis=0, dtype=np.float64), resampled.sums(outcomes_NK3)
    every = np.ones(len(CHEXPERT_14), dtype=bool)
    groups = (("14", every), ("5", _FIVE), ("14_frequent", reference_NK.sum(axis=0) >= FREQUENT))
    found: list[tuple[str, Draws]] = []
    for group, member_K in groups:
        if not member_K.any():
            continue
        for kind, score in (("micro", _micro), ("macro", _macro)):
            value = float(score(counts_K3[member_K]))
            found.append((f"{kind}_f1_{group}", resampled.draws(value, score(counts_RK3[:, member_K]))))
    return found + _example_draws(outcomes_NK3, resampled)


def _micro(counts_K3: FloatArray) -> FloatArray:
    tp, fp, fn = np.moveaxis(counts_K3.sum(axis=-2), -1, 0)
    return f1(tp, fp, fn)


def _macro(counts_K3: FloatArray) -> FloatArray:
    tp, fp, fn = np.moveaxis(counts_K3, -1, 0)
    return f1(tp, fp, fn).mean(axis=-1)


def _example_draws(outcomes_NK3: BoolArray, resampled: Patients) -> list[tuple[str, Draws]]:
    tp_N, fp_N, fn_N = outcomes_NK3.sum(axis=1).T.astype(np.float64)
    none = np.zeros_like(tp_N)
    scores = {
        "precision": np.divide(tp_N, tp_N + fp_N, out=none.copy(), where=tp_N + fp_N > 0),
        "recall": np.divide(tp_N, tp_N + fn_N, out=none.copy(), where=tp_N + fn_N > 0),
        "f1": f1(tp_N, fp_N, fn_N),
    }
    return [(f"example_{name}", resampled.mean(score_N)) for name, score_N in scores.items()]
