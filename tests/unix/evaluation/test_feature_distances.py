"""Oracles: torchmetrics' FID and KID with the identity as feature extractor, and `prdc`."""

import numpy as np
import prdc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from unix.errors import ConfigError
from unix.evaluation import feature_distances
from unix.evaluation.feature_distances import (
    frechet_distance,
    kernel_distance,
    kernel_distance_of_subsets,
    kernel_distances,
    mean_pairwise_distances,
    nearest_distances,
    neighbourhoods,
)

Matrix = NDArray[np.float64]
WIDTH = 24


class Identity(nn.Module):
    """Hands features through as if they were images; torchmetrics asks for their width."""

    num_features = WIDTH

    def forward(self, features: Tensor) -> Tensor:
        return features.reshape(len(features), -1)


def two_sets(seed: int, real: int = 300, generated: int = 260) -> tuple[Matrix, Matrix]:
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(WIDTH, WIDTH)) * np.arange(1, WIDTH + 1) ** -0.7
    shift = generator.normal(size=WIDTH) * 0.2
    return generator.normal(size=(real, WIDTH)) @ mixing, generator.normal(
        size=(generated, WIDTH)
    ) @ mixing * 1.1 + shift


def as_images(matrix: Matrix) -> Tensor:
    return torch.as_tensor(matrix)[:, None, None, :]


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_equals_torchmetrics(seed: int) -> None:
    real, generated = two_sets(seed)
    oracle = FrechetInceptionDistance(feature=Identity(), normalize=True, input_img_size=(1, 1, WIDTH))
    oracle.set_dtype(torch.float64)
    oracle.update(as_images(real), real=True)
    oracle.update(as_images(generated), real=False)
    assert frechet_distance(real, generated) == pytest.approx(float(oracle.compute()), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save")
@pytest.mark.parametrize("seed", range(3))
def test_kernel_distance_equals_torchmetrics(seed: int) -> None:
    real, generated = two_sets(seed, 200, 200)
    oracle = KernelInceptionDistance(feature=Identity(), subsets=1, subset_size=200, normalize=True)
    oracle.set_dtype(torch.float64)
    oracle.update(as_images(real), real=True)
    oracle.update(as_images(generated), real=False)
    assert kernel_distance(real, generated) == pytest.approx(float(oracle.compute()[0]), rel=1e-6)


def test_frechet_distance_by_the_closed_form() -> None:
    generator = np.random.default_rng(0)
    real, generated = generator.normal(size=(500, 6)), generator.normal(1, 2, size=(400, 6))
    first, second = np.cov(real.T), np.cov(generated.T)
    roots = np.sqrt(np.linalg.eigvals(first @ second).real)
    offset = real.mean(axis=0) - generated.mean(axis=0)
    expected = offset @ offset + np.trace(first) + np.trace(second) - 2 * roots.sum()
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-10)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(1, 8))
def test_frechet_distance_of_few_images_is_that_of_the_full_matrices(real: int, generated: int, width: int) -> None:
    generator = np.random.default_rng(real * 100 + generated * 10 + width)
    first, second = generator.normal(size=(real, width)), generator.normal(size=(generated, width))
    covariances = [np.atleast_2d(np.cov(one.T)) for one in (first, second)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    offset = first.mean(axis=0) - second.mean(axis=0)
    expected = offset @ offset + sum(map(np.trace, covariances)) - 2 * overlap
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-6)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first), abs=1e-6)


def test_features_that_depend_on_each_other_have_a_distance_too() -> None:
    real, generated = two_sets(0)
    doubled = [np.hstack([one, one[:, :4], np.zeros((len(one), 2))]) for one in (real, generated)]
    roots = [np.linalg.eigh(np.cov(one.T)) for one in doubled]
    first = (roots[0][1] * np.sqrt(roots[0][0].clip(0))) @ roots[0][1].T
    overlap = np.sqrt(np.linalg.eigvalsh(first @ np.cov(doubled[1].T) @ first).clip(0)).sum()
    offset = doubled[0].mean(axis=0) - doubled[1].mean(axis=0)
    expected = offset @ offset + sum(float(np.trace(np.cov(one.T))) for one in doubled) - 2 * overlap
    assert frechet_distance(*doubled) == pytest.approx(expected, rel=1e-6)


def test_a_set_against_itself_and_a_moved_copy() -> None:
    real, _ = two_sets(0)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(real, real + 2.0) == pytest.approx(4 * WIDTH, rel=1e-9)


@pytest.mark.parametrize(("real", "generated", "k"), [(90, 70, 5), (40, 130, 3), (8, 7, 5)])
def test_the_four_scores_equal_prdc(real: int, generated: int, k: int) -> None:
    first, second = two_sets(5, real, generated)
    expected = prdc.compute_prdc(first, second, nearest_k=k)
    found = neighbourhoods(first, second, k)
    assert found.precise_M.mean() == pytest.approx(expected["precision"], rel=1e-12)
    assert found.recalled_N.mean() == pytest.approx(expected["recall"], rel=1e-12)
    assert found.density_M.mean() == pytest.approx(expected["density"], rel=1e-12)
    assert found.covered_N.mean() == pytest.approx(expected["coverage"], rel=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = two_sets(1, 90, 70)
    groups = np.random.default_rng(0).random((4, 90)) < 0.5, np.random.default_rng(1).random((4, 70)) < 0.5
    whole = (
        kernel_distances(real, generated, *groups),
        neighbourhoods(real, generated),
        nearest_distances(real, generated),
        mean_pairwise_distances(real, groups[0]),
    )
    monkeypatch.setattr(feature_distances, "_BLOCK", 13)
    np.testing.assert_allclose(kernel_distances(real, generated, *groups), whole[0], rtol=1e-9)
    np.testing.assert_array_equal(neighbourhoods(real, generated).density_M, whole[1].density_M)
    np.testing.assert_array_equal(neighbourhoods(real, generated).covered_N, whole[1].covered_N)
    np.testing.assert_allclose(nearest_distances(real, generated), whole[2], rtol=1e-9)
    np.testing.assert_allclose(mean_pairwise_distances(real, groups[0]), whole[3], rtol=1e-9)


def test_groups_are_the_distances_of_their_rows() -> None:
    real, generated = two_sets(2, 80, 60)
    real_GN = np.random.default_rng(0).random((5, 80)) < 0.3
    generated_GM = np.random.default_rng(1).random((5, 60)) < 0.3
    generated_GM[4] = False
    found = kernel_distances(real, generated, real_GN, generated_GM)
    expected = [
        kernel_distance(real[one], generated[two]) for one, two in zip(real_GN[:4], generated_GM[:4], strict=True)
    ]
    np.testing.assert_allclose(found[:4], expected, rtol=1e-9)
    assert np.isnan(found[4])


def test_mean_pairwise_distance_by_hand() -> None:
    corners = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    groups = np.array([[True, True, True], [True, False, True], [True, False, False]])
    np.testing.assert_allclose(mean_pairwise_distances(corners, groups), [4.0, 5.0, np.nan])


@settings(max_examples=20)
@given(st.permutations(range(30)))
def test_the_order_of_images_changes_nothing(order: list[int]) -> None:
    real, generated = two_sets(3, 30, 40)
    assert frechet_distance(real[order], generated) == pytest.approx(frechet_distance(real, generated), rel=1e-9)
    assert kernel_distance(real[order], generated) == pytest.approx(kernel_distance(real, generated), rel=1e-9)
    moved, still = neighbourhoods(real[order], generated), neighbourhoods(real, generated)
    np.testing.assert_array_equal(moved.covered_N, still.covered_N[order])
    np.testing.assert_array_equal(moved.density_M, still.density_M)


def test_subsets_are_seeded_and_a_whole_set_has_no_spread() -> None:
    real, generated = two_sets(4, 120, 120)
    found = kernel_distance_of_subsets(real, generated, seed=1, size=50, count=20)
    assert found == kernel_distance_of_subsets(real, generated, seed=1, size=50, count=20)
    assert found != kernel_distance_of_subsets(real, generated, seed=2, size=50, count=20)
    whole = kernel_distance(real, generated)
    assert found.mean == pytest.approx(whole, abs=3 * found.deviation / 20**0.5)
    # the benchmark's setting: a hundred permutations of one set
    assert kernel_distance_of_subsets(real, generated, seed=1, size=120, count=3).deviation == pytest.approx(
        0, abs=1e-12
    )
    with pytest.raises(ConfigError, match="subsets of 121 images"):
        kernel_distance_of_subsets(real, generated, seed=1, size=121)


def test_half_precision_features_are_measured_in_full() -> None:
    real, generated = two_sets(6)
    stored = real.astype(np.float32), generated.astype(np.float32)
    assert frechet_distance(*stored) == pytest.approx(frechet_distance(real, generated), rel=1e-5)


def test_sets_that_cannot_be_compared_are_refused() -> None:
    real, generated = two_sets(0, 9, 9)
    with pytest.raises(ConfigError, match="matrices of one width"):
        frechet_distance(real, generated[:, :5])
    with pytest.raises(ConfigError, match="at least 2 images"):
        frechet_distance(real, generated[:1])
    with pytest.raises(ConfigError, match="at least 6 images"):
        neighbourhoods(real, generated[:5])
