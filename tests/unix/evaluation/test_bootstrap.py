import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from unix.errors import ConfigError
from unix.evaluation.bootstrap import (
    Patients,
    auc,
    auc_metric,
    jackknife_groups,
    jackknife_metric,
    paired_difference,
    share_metric,
)

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


def test_the_interval_equals_that_of_scipy() -> None:
    generator = np.random.default_rng(1)
    per_patient = generator.gamma(2.0, size=60)
    patients = [str(index) for index in range(60) for _ in range(3)]
    ours = Patients(patients, seed=0, resamples=4_000).mean(np.repeat(per_patient, 3)).metric()
    scipys = bootstrap((per_patient,), np.mean, n_resamples=4_000, method="percentile", rng=2).confidence_interval
    assert ours.low == pytest.approx(scipys.low, rel=0.02)
    assert ours.high == pytest.approx(scipys.high, rel=0.02)


def test_a_paired_difference_equals_that_of_scipy() -> None:
    generator = np.random.default_rng(2)
    first = generator.normal(size=80)
    second = first + generator.normal(0.1, 0.3, size=80)
    resampled = Patients([str(index) for index in range(80)], seed=0, resamples=4_000)
    found = paired_difference(resampled.mean(first), resampled.mean(second))
    expected = bootstrap(
        (first, second),
        lambda x, y, axis: y.mean(axis) - x.mean(axis),
        paired=True,
        vectorized=True,
        n_resamples=4_000,
        method="percentile",
        rng=3,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.012)
    assert found.value == pytest.approx((second - first).mean())
    assert found.n == 80


def test_a_paired_difference_is_sharper_than_its_two_sides() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=50)
    resampled = Patients([str(index) for index in range(50)], seed=0)
    one, other = resampled.mean(first), resampled.mean(first + 0.05)
    assert paired_difference(one, other).separated
    assert one.metric().high > other.metric().low


def test_samples_of_other_patients_seed_or_order_are_not_paired() -> None:
    values = np.arange(4.0)
    one = Patients(["a", "b", "c", "c"], seed=0).mean(values)
    for other in (
        Patients(["b", "a", "c", "c"], seed=0),
        Patients(["a", "b", "c", "c"], seed=1),
        Patients(["a", "b", "c", "c"], seed=0, resamples=7),
    ):
        with pytest.raises(ConfigError, match="same samples, seed and resamples"):
            paired_difference(one, other.mean(values))


def test_the_jackknife_of_a_mean_agrees_with_theory_and_repeats() -> None:
    values = np.random.default_rng(4).normal(size=600)
    patients = [str(index) for index in range(600)]
    kept_GN = jackknife_groups(patients, seed=1, groups=200)
    metric = jackknife_metric(float(values.mean()), [float(values[kept].mean()) for kept in kept_GN], n=600)
    assert metric.high - metric.low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(600), rel=0.15)
    np.testing.assert_array_equal(kept_GN, jackknife_groups(patients, seed=1, groups=200))
    assert (kept_GN != jackknife_groups(patients, seed=2, groups=200)).any()


def test_the_jackknife_leaves_out_whole_patients_each_once() -> None:
    patients = [str(index % 7) for index in range(30)]
    kept_GN = jackknife_groups(patients, groups=5)
    assert (~kept_GN).sum(axis=0).tolist() == [1] * 30
    for kept in kept_GN:
        left_out = {patient for patient, stays in zip(patients, kept, strict=True) if not stays}
        assert not left_out & {patient for patient, stays in zip(patients, kept, strict=True) if stays}
    with pytest.raises(ConfigError, match="at least two"):
        jackknife_groups(["one"] * 3)
