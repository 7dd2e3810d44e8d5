"""Overlap of written with true reports: BLEU-1..4 and ROUGE-L, with intervals over patients (pure).

BLEU comes in two forms that differ by several points, so each name says which it is: `bleu_n` is the mean over reports
of sentence BLEU with smoothing method 4 (Chen and Cherry 2014, as in NLTK); `corpus_bleu_n` pools the n-gram counts of
all reports and smooths nothing (Papineni et al. 2002). ROUGE-L is the mean F-measure of the longest common subsequence
(Lin 2004) over lower-cased letters and digits, without stemming. A report that was not written scores 0 and stays in
every mean. Case counts in BLEU.

Shape legend: N reports, R bootstrap resamples; 4 n-gram orders.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unix.errors import ConfigError
from unix.evaluation.bootstrap import RESAMPLES, Draws, Metric, Patients, metrics_of

FloatArray = NDArray[np.float64]

ORDERS = (1, 2, 3, 4)
UNIFORM_WEIGHTS = tuple((1 / order,) * order for order in ORDERS)
_METHOD_4_K = 5

_TOKEN = re.compile(r"\w+(?:[-/.'+]\w+)*?(?='s\b)|'s\b|\w+(?:(?:[-/.'+]|[,:](?=\d))\w+)*|--+|[^\w\s]")
_ROUGE_TOKEN = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class TextScores:
    """What one text scores against its reference, and the counts that corpus BLEU pools."""

    bleu: tuple[float, float, float, float]
    """Sentence BLEU-1..4, smoothing method 4."""
    rouge_l: float
    matches: tuple[int, int, int, int]
    """N-grams of the prediction that the reference has too, each as often as there (orders 1-4)."""
    totals: tuple[int, int, int, int]
    """N-grams of the prediction."""
    length: int
    reference_length: int


def tokens(text: str) -> list[str]:
    """Words, numbers and punctuation marks in order, as the Penn Treebank splits plain report prose.

    Hyphenated words, decimals, clock times and abbreviations with inner full stops stay whole; a full stop that ends a
    word is a token of its own.
    """
    return _TOKEN.findall(text)


def text_scores(prediction: str, reference: str, weights: Sequence[Sequence[float]] = UNIFORM_WEIGHTS) -> TextScores:
    """Score one report; `weights` are those of BLEU-1..4.

    Raises:
        ConfigError: one is no text, such as the NaN that a table reader puts for an empty cell, or the reference is
            empty: there is nothing to compare with.
    """
    for side, text in (("prediction", prediction), ("reference", reference)):
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - tables hand over what they like
            raise ConfigError(f"a {side} must be text, not {type(text).__name__}; read an empty cell as an empty text")
    predicted, true = tokens(prediction), tokens(reference)
    if not true:
        raise ConfigError("a reference without words cannot score a report; leave its sample out and count it")
    matches, totals = zip(*(_overlap(predicted, true, order) for order in ORDERS), strict=True)
    bleu = tuple(_smoothed_bleu(matches, totals, len(predicted), len(true), one) for one in weights)
    return TextScores(bleu, rouge_l(prediction, reference), matches, totals, len(predicted), len(true))  # pyright: ignore[reportArgumentType] - four orders each


def corpus_bleu(scores: Sequence[TextScores], order: int = 4) -> float:
    """BLEU of all reports together, in [0, 1]; 0 where no n-gram of some order matches."""
    return float(_pooled_bleu(_counts(scores).sum(axis=0), order))


def rouge_l(prediction: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, in [0, 1]."""
    predicted, true = _ROUGE_TOKEN.findall(prediction.lower()), _ROUGE_TOKEN.findall(reference.lower())
    common = _longest_common_subsequence(predicted, true)
    return 2 * common / (len(predicted) + len(true)) if common else 0.0


def text_draws(
    predictions: Sequence[str],
    references: Sequence[str],
    resampled: Patients,
    weights: Sequence[Sequence[float]] = UNIFORM_WEIGHTS,
) -> dict[str, Draws]:
    """Every text metric on N reports, with its resampled values: `bleu_1`..`4`, `corpus_bleu_1`..`4`, `rouge_l`.

    Raises:
        ConfigError: the sides differ in number, there are none, or a text is none.
    """
    if not len(predictions) == len(references) == resampled.num_samples or not references:
        sizes = f"{len(predictions)} predictions, {len(references)} references, {resampled.num_samples} patients"
        raise ConfigError(f"texts to compare must be as many on both sides and at least one: {sizes}")
    scores = [text_scores(one, other, weights) for one, other in zip(predictions, references, strict=True)]
    counts_NC = _counts(scores)
    sums_C, sums_RC = counts_NC.sum(axis=0), resampled.sums(counts_NC)
    bleu_N4 = np.array([one.bleu for one in scores])
    found = {f"bleu_{order}": resampled.mean(bleu_N4[:, order - 1]) for order in ORDERS}
    for order in ORDERS:
        value = float(_pooled_bleu(sums_C, order))
        found[f"corpus_bleu_{order}"] = resampled.draws(value, _pooled_bleu(sums_RC, order))
    return found | {"rouge_l": resampled.mean(np.array([one.rouge_l for one in scores]))}


def text_metrics(
    predictions: Sequence[str],
    references: Sequence[str],
    patients: Sequence[str],
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[str, Metric]:
    """`text_draws` as values with 95 % intervals; `patients` are the units the bootstrap draws."""
    return metrics_of(text_draws(predictions, references, Patients(patients, seed, resamples)))


def _overlap(predicted: Sequence[str], true: Sequence[str], order: int) -> tuple[int, int]:
    said, wanted = Counter(_ngrams(predicted, order)), Counter(_ngrams(true, order))
    return sum(min(count, wanted[ngram]) for ngram, count in said.items()), said.total()


def _ngrams(words: Sequence[str], order: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(order)), strict=False)


def _smoothed_bleu(
    matches: Sequence[int], totals: Sequence[int], length: int, reference_length: int, weights: Sequence[float]
) -> float:
    if not matches[0]:
        return 0.0
    logarithm, unmatched = 0.0, 0
    for weight, matched, total in zip(weights, matches, totals, strict=False):
        precision = matched / max(total, 1)
        if not matched and length > 1:
            unmatched += 1
            precision = math.log(length) / (2**unmatched * _METHOD_4_K * max(total, 1))
        # a text of one word has no longer n-grams, and method 4 leaves them out
        logarithm += weight * math.log(precision) if precision else 0.0
    return min(1.0, math.exp(1 - reference_length / length)) * math.exp(logarithm)


def _counts(scores: Sequence[TextScores]) -> FloatArray:
    """Matches 1-4, totals 1-4, length, length of the reference: [N, 10]."""
    rows = [(*one.matches, *one.totals, one.length, one.reference_length) for one in scores]
    return np.array(rows, dtype=np.float64).reshape(len(rows), 10)


def _pooled_bleu(counts: FloatArray, order: int) -> FloatArray:
    """Corpus BLEU of pooled counts [..., 10]."""
    matches, totals, (length, reference_length) = (
        counts[..., :order],
        counts[..., 4 : 4 + order],
        np.moveaxis(counts[..., 8:], -1, 0),
    )
    precisions = np.divide(matches, totals, out=np.zeros(matches.shape), where=totals > 0)
    logarithms = np.log(precisions, out=np.full(matches.shape, -np.inf), where=precisions > 0)
    brevity = np.exp(np.minimum(0.0, 1 - reference_length / np.maximum(length, 1)))
    return brevity * np.exp(logarithms.mean(axis=-1))


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, by Hyyro's bit-vector recurrence (2004): one addition of `len(first)` bits per word of `second`."""
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    every = (1 << len(first)) - 1
    unmatched = every
    for word in second:
        found = unmatched & places.get(word, 0)
        unmatched = (unmatched + found | unmatched - found) & every
    return len(first) - unmatched.bit_count()
