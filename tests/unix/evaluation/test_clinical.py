import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.evaluation import clinical
from unix.evaluation.clinical import Uncertain
from unix.records import CHEXPERT_14, Labels, no_labels

A, C, E = "Atelectasis", "Cardiomegaly", "Pleural Effusion"

label_sets = st.fixed_dictionaries({name: st.sampled_from([None, 0, 1, -1]) for name in CHEXPERT_14})
comparisons = st.lists(st.tuples(label_sets, label_sets), min_size=1, max_size=8)


def labels(**values: int) -> Labels:
    return {**no_labels(), **{name.replace("_", " "): value for name, value in values.items()}}


REFERENCE = [
    labels(Atelectasis=1, Cardiomegaly=1),
    labels(Atelectasis=1, Pleural_Effusion=-1),
    labels(Cardiomegaly=0),
    labels(No_Finding=1),
]
PREDICTED = [
    labels(Atelectasis=1),
    labels(Atelectasis=-1, Cardiomegaly=1),
    labels(Pleural_Effusion=1),
    labels(No_Finding=1),
]
PATIENTS = ["p", "q", "r", "s"]


def test_by_hand_uncertain_as_positive() -> None:
    result = clinical.agreement(PREDICTED, REFERENCE, PATIENTS, resamples=20)
    # Atelectasis 2 tp; Cardiomegaly 1 fp, 1 fn; Effusion 1 fp, 1 fn; No Finding 1 tp
    assert result.metrics["micro_f1_14"].value == pytest.approx(6 / (6 + 2 + 2))
    assert result.metrics["macro_f1_14"].value == pytest.approx((1 + 0 + 0 + 1) / 14)
    assert result.metrics["micro_f1_5"].value == pytest.approx(4 / (4 + 2 + 2))
    assert result.metrics["macro_f1_5"].value == pytest.approx(1 / 5)
    assert result.metrics["example_precision"].value == pytest.approx((1 + 1 / 2 + 0 + 1) / 4)
    assert result.metrics["example_recall"].value == pytest.approx((1 / 2 + 1 / 2 + 0 + 1) / 4)
    assert result.metrics["example_f1"].value == pytest.approx((2 / 3 + 1 / 2 + 0 + 1) / 4)
    assert result.per_class[A].model_dump(exclude={"low", "high"}) == {
        "tp": 2,
        "fp": 0,
        "fn": 0,
        "support": 2,
        "f1": 1.0,
    }
    assert result.per_class[C].model_dump(exclude={"low", "high"}) == {
        "tp": 0,
        "fp": 1,
        "fn": 1,
        "support": 1,
        "f1": 0.0,
    }
    assert {metric.n for metric in result.metrics.values()} == {4}
    assert "macro_f1_14_frequent" not in result.metrics


def test_by_hand_uncertain_as_negative() -> None:
    result = clinical.agreement(PREDICTED, REFERENCE, PATIENTS, resamples=20)
    # Atelectasis 1 tp, 1 fn; Cardiomegaly 1 fp, 1 fn; Effusion 1 fp; No Finding 1 tp
    assert result.metrics["micro_f1_14_uncertain_negative"].value == pytest.approx(4 / (4 + 2 + 2))
    counts = result.per_class_uncertain_negative[A].model_dump(exclude={"low", "high"})
    assert counts == {"tp": 1, "fp": 0, "fn": 1, "support": 2, "f1": pytest.approx(2 / 3)}


def test_each_class_has_its_interval() -> None:
    score = clinical.agreement(PREDICTED * 10, REFERENCE * 10, list("abcdefghij" * 4), resamples=50).per_class[C]
    assert (score.f1, score.low, score.high) == (0.0, 0.0, 0.0)
    mixed = clinical.agreement(PREDICTED, [REFERENCE[0]] * 4, PATIENTS, resamples=200).per_class[A]
    assert mixed.low is not None and mixed.high is not None
    assert mixed.f1 == pytest.approx(2 / 3)
    assert mixed.low < mixed.f1 < mixed.high


def test_an_empty_prediction_counts_as_wrong_and_is_not_dropped() -> None:
    full = clinical.agreement([REFERENCE[0]] * 2, [REFERENCE[0]] * 2, ["p", "q"], resamples=20)
    half = clinical.agreement([REFERENCE[0], None], [REFERENCE[0]] * 2, ["p", "q"], resamples=20)
    assert full.metrics["micro_f1_14"].value == 1.0
    assert half.metrics["micro_f1_14"].value == pytest.approx(2 / 3)
    assert half.metrics["micro_f1_14"].n == 2
    assert half.metrics["example_f1"].value == 0.5


def test_frequent_classes_are_those_with_ten_positive_references() -> None:
    reference = [labels(Atelectasis=1)] * 10 + [labels(Cardiomegaly=1)] * 9
    predicted = [labels(Atelectasis=1)] * 5 + [None] * 14
    result = clinical.agreement(predicted, reference, [str(i) for i in range(19)], resamples=20)
    assert result.metrics["macro_f1_14_frequent"].value == pytest.approx(10 / 15)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predictions, 2 references"):
        clinical.agreement([None], [REFERENCE[0]] * 2, ["p", "q"])
    with pytest.raises(ValueError, match="at least one"):
        clinical.agreement([], [], [])


@settings(max_examples=40, deadline=None)
@given(comparisons, st.randoms(use_true_random=False))
def test_f1_is_bounded_and_does_not_depend_on_the_order(pairs: list[tuple[Labels, Labels]], random) -> None:
    predicted, reference = map(list, zip(*pairs, strict=True))
    patients = [str(i // 2) for i in range(len(pairs))]
    result = clinical.agreement(predicted, reference, patients, resamples=20)
    order = list(range(len(pairs)))
    random.shuffle(order)
    moved = clinical.agreement(
        [predicted[i] for i in order], [reference[i] for i in order], [patients[i] for i in order], resamples=20
    )
    for name, metric in result.metrics.items():
        assert 0 <= metric.low <= metric.high <= 1
        assert 0 <= metric.value <= 1
        for field in ("value", "low", "high"):
            assert getattr(moved.metrics[name], field) == pytest.approx(getattr(metric, field))
    assert moved.per_class == result.per_class


@settings(max_examples=40, deadline=None)
@given(comparisons)
def test_micro_f1_agrees_with_counting_one_by_one(pairs: list[tuple[Labels, Labels]]) -> None:
    tp = fp = fn = 0
    for predicted, reference in pairs:
        for name in CHEXPERT_14:
            said, true = predicted[name] in (1, -1), reference[name] in (1, -1)
            tp, fp, fn = tp + (said and true), fp + (said and not true), fn + (true and not said)
    expected = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else 0.0
    predicted, reference = zip(*pairs, strict=True)
    assert clinical.micro_f1(clinical.positives(predicted), clinical.positives(reference)) == pytest.approx(expected)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=9))
def test_the_best_constant_set_beats_every_other_set(rows: list[list[bool]]) -> None:
    reference = np.array(rows)
    best = clinical.micro_f1(np.tile(clinical.best_constant_set(reference), (len(rows), 1)), reference)
    everything = itertools.product([False, True], repeat=6)
    assert best == pytest.approx(max(clinical.micro_f1(np.tile(one, (len(rows), 1)), reference) for one in everything))


def test_the_most_frequent_report_breaks_ties_by_alphabet() -> None:
    assert clinical.most_frequent(["b", "a", "b", "a", "c"]) == "a"


def test_shuffling_is_seeded_and_destroys_a_perfect_match() -> None:
    reference = np.eye(14, dtype=bool)
    shuffled = clinical.shuffled_micro_f1(reference, reference, seed=1)
    assert shuffled == clinical.shuffled_micro_f1(reference, reference, seed=1)
    assert shuffled < 0.3


def test_uncertain_counts_as_asked() -> None:
    one = [labels(Edema=-1)]
    assert clinical.positives(one, Uncertain.POSITIVE).sum() == 1
    assert clinical.positives(one, Uncertain.NEGATIVE).sum() == 0
