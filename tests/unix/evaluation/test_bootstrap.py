import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.evaluation.bootstrap import Patients, auc, auc_metric, share_metric

measures = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=12)


@given(measures, measures)
def test_auc_is_the_share_of_pairs_in_order(positive: list[float], negative: list[float]) -> None:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in positive for b in negative]
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(sum(pairs) / len(pairs))


def test_auc_without_one_side_is_undefined_not_a_number_that_looks_good() -> None:
    assert math.isnan(auc(np.array([1.0]), np.array([])))
    assert auc_metric(np.array([1.0, 2.0]), np.array([True, True]), ["a", "b"]) is None
    assert share_metric(np.array([], dtype=bool), []) is None


def test_sums_weigh_whole_patients() -> None:
    resampled = Patients(["b", "a", "b"], seed=0, resamples=50)
    values = np.array([[1.0], [10.0], [100.0]])
    expected = resampled.weights_RP @ np.array([[10.0], [101.0]])
    np.testing.assert_array_equal(resampled.sums(values), expected)


def test_the_interval_widens_when_images_share_a_patient() -> None:
    hits = np.array([True] * 40 + [False] * 40)
    apart = share_metric(hits, [str(i) for i in range(80)])
    together = share_metric(hits, [str(i // 10) for i in range(80)])
    assert apart is not None and together is not None
    assert apart.value == together.value == 0.5
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_the_interval_agrees_with_theory_and_repeats() -> None:
    hits = np.arange(400) % 4 == 0
    patients = [str(i) for i in range(400)]
    metric = share_metric(hits, patients, seed=3, resamples=4000)
    assert metric is not None
    half_width = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert metric.low == pytest.approx(0.25 - half_width, abs=0.006)
    assert metric.high == pytest.approx(0.25 + half_width, abs=0.006)
    assert metric == share_metric(hits, patients, seed=3, resamples=4000)
    assert metric != share_metric(hits, patients, seed=4, resamples=4000)
