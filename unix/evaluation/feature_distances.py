"""Two sets of image features: Frechet and kernel distance, precision, recall, density, coverage, diversity (pure).

Everything is computed in float64 from feature matrices of one encoder, however they were stored. Both distances grow
as sets shrink (the Frechet distance by a bias of about 1/N), so neither means anything without N and without what two
sets of real images of that size give.

Shape legend: N real images, M generated ones, D features, G groups (subsets of the images, as masks), B rows of a
block.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unix.errors import ConfigError

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Matrix = NDArray[np.floating]

NEIGHBOURS = 5
SUBSET_SIZE = 1000
NUM_SUBSETS = 100

_BLOCK = 1024
"""Rows whose similarities to all columns are held at once: 35 MB at 4,352 columns."""


@dataclass(frozen=True, slots=True)
class SubsetDistance:
    """Mean and spread of the kernel distance over random subsets, as Binkowski et al. (2018) report it."""

    mean: float
    deviation: float
    """Over subsets; it tells the scatter of subsets of this size, not the uncertainty of the mean."""
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class Neighbourhoods:
    """Per image, whether it lies among the other set's images; means of these are the four scores."""

    precise_M: BoolArray
    """Generated image within the k-neighbour ball of some real one (Kynkaanniemi et al. 2019)."""
    recalled_N: BoolArray
    """Real image within the ball of some generated one."""
    density_M: FloatArray
    """Number of real balls around a generated image over k (Naeem et al. 2020); may exceed 1."""
    covered_N: BoolArray
    """Real image whose ball holds a generated one."""


def frechet_distance(real_ND: Matrix, generated_MD: Matrix) -> float:
    """Frechet distance of the normal distributions fitted to two sets, with unbiased covariances (Heusel et al. 2017).

    The trace of (S1 S2)^1/2 is the sum of the roots of the eigenvalues of F S2 F', where F'F = S1: F is the centred
    features themselves where these are fewer than D, so that small sets cost little, else a triangular factor.

    Raises:
        ConfigError: a set has fewer than two images, or widths differ.
    """
    real_ND, generated_MD = _checked(real_ND, generated_MD, least=2)
    smaller, larger = sorted((real_ND, generated_MD), key=len)
    offset = smaller.mean(axis=0) - larger.mean(axis=0)
    small_ND, large_MD = (one - one.mean(axis=0) for one in (smaller, larger))
    small_ND /= np.sqrt(len(smaller) - 1)
    large_MD /= np.sqrt(len(larger) - 1)
    if len(smaller) <= smaller.shape[1]:
        # F S2 F' without the D x D matrix, where both sets are small
        product = small_ND @ large_MD.T
        spectrum = np.linalg.eigvalsh(product @ product.T)
    else:
        factor_DD = _factor(small_ND.T @ small_ND)
        spectrum = np.linalg.eigvalsh(factor_DD @ (large_MD.T @ large_MD) @ factor_DD.T)
    spread = sum(float((one * one).sum()) for one in (small_ND, large_MD))
    return float(offset @ offset) + spread - 2 * float(np.sqrt(spectrum.clip(min=0)).sum())


def kernel_distance(real_ND: Matrix, generated_MD: Matrix) -> float:
    """Unbiased squared maximum mean discrepancy of all images, kernel (x.y / D + 1)^3; may fall below 0.

    Raises:
        ConfigError: a set has fewer than two images, or widths differ.
    """
    every = (np.ones((1, len(one)), dtype=bool) for one in (real_ND, generated_MD))
    return float(kernel_distances(real_ND, generated_MD, *every)[0])


def kernel_distances(real_ND: Matrix, generated_MD: Matrix, real_GN: BoolArray, generated_GM: BoolArray) -> FloatArray:
    """The kernel distance of G pairs of subsets, [G], each from the same one pass over all pairs of images.

    Groups with fewer than two images on a side are nan.
    """
    real_ND, generated_MD = _checked(real_ND, generated_MD, least=2)
    real_G, generated_G = real_GN.sum(axis=1), generated_GM.sum(axis=1)
    across_G = _kernel_sums(real_ND, generated_MD, real_GN, generated_GM) / np.maximum(real_G * generated_G, 1)
    distance_G = _within(real_ND, real_GN) + _within(generated_MD, generated_GM) - 2 * across_G
    return np.where((real_G >= 2) & (generated_G >= 2), distance_G, np.nan)


def kernel_distance_of_subsets(
    real_ND: Matrix, generated_MD: Matrix, seed: int, size: int = SUBSET_SIZE, count: int = NUM_SUBSETS
) -> SubsetDistance:
    """The kernel distance over `count` pairs of seeded random subsets of `size` images.

    Raises:
        ConfigError: a set has fewer than `size` images. With `size` equal to a whole set every subset is that set, and
            the deviation says nothing.
    """
    if size > min(len(real_ND), len(generated_MD)):
        raise ConfigError(
            f"subsets of {size} images cannot be drawn from {len(real_ND)} real and {len(generated_MD)} generated ones;"
            " choose a smaller size"
        )
    generator = np.random.default_rng(seed)
    real_GN, generated_GM = (
        np.stack([_chosen(generator, total, size) for _ in range(count)]) for total in (len(real_ND), len(generated_MD))
    )
    distances = kernel_distances(real_ND, generated_MD, real_GN, generated_GM)
    return SubsetDistance(float(distances.mean()), float(distances.std()), size, count)


def neighbourhoods(real_ND: Matrix, generated_MD: Matrix, k: int = NEIGHBOURS) -> Neighbourhoods:
    """Which images of each set lie within the k-nearest-neighbour balls of the other's.

    Raises:
        ConfigError: a set has no more than k images, or widths differ.
    """
    real_ND, generated_MD = _checked(real_ND, generated_MD, least=k + 1)
    real_radius_N, generated_radius_M = _radii(real_ND, k), _radii(generated_MD, k)
    count_M = np.zeros(len(generated_MD))
    recalled_N, covered_N = np.zeros(len(real_ND), dtype=bool), np.zeros(len(real_ND), dtype=bool)
    for rows, squared_BM in _squared_distances(real_ND, generated_MD):
        within_BM = squared_BM < real_radius_N[rows, None]
        count_M += within_BM.sum(axis=0)
        covered_N[rows] = within_BM.any(axis=1)
        recalled_N[rows] = (squared_BM < generated_radius_M).any(axis=1)
    return Neighbourhoods(count_M > 0, recalled_N, count_M / k, covered_N)


def nearest_distances(from_ND: Matrix, to_MD: Matrix) -> FloatArray:
    """Euclidean distance of each image of one set to the nearest of another: [N]."""
    from_ND, to_MD = _checked(from_ND, to_MD, least=1)
    nearest_N = np.empty(len(from_ND))
    for rows, squared_BM in _squared_distances(from_ND, to_MD):
        nearest_N[rows] = np.sqrt(squared_BM.min(axis=1))
    return nearest_N


def mean_pairwise_distances(matrix_ND: Matrix, group_GN: BoolArray) -> FloatArray:
    """Mean Euclidean distance between two different images of each group, [G]: how diverse it is; nan for one image.

    Raises:
        ConfigError: there are fewer than two images.
    """
    matrix_ND, _ = _checked(matrix_ND, matrix_ND, least=2)
    weights_NG = group_GN.T.astype(np.float64)
    sums_G = np.zeros(len(group_GN))
    for rows, squared_BN in _squared_distances_within(matrix_ND):
        sums_G += np.einsum("bg,bg->g", weights_NG[rows], np.sqrt(squared_BN) @ weights_NG)
    size_G = group_GN.sum(axis=1)
    return np.where(size_G >= 2, sums_G / np.maximum(size_G * (size_G - 1), 1), np.nan)


def _checked(first: Matrix, second: Matrix, least: int) -> tuple[FloatArray, FloatArray]:
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ConfigError(f"features must be two matrices of one width, not {first.shape} and {second.shape}")
    if min(len(first), len(second)) < least:
        raise ConfigError(f"at least {least} images are needed on each side, not {len(first)} and {len(second)}")
    return first.astype(np.float64), second.astype(np.float64)


def _chosen(generator: np.random.Generator, total: int, size: int) -> BoolArray:
    mask = np.zeros(total, dtype=bool)
    mask[generator.choice(total, size, replace=False)] = True
    return mask


def _factor(covariance_DD: FloatArray) -> Matrix:
    """Some F with F'F = S."""
    try:
        return np.linalg.cholesky(covariance_DD).T
    except np.linalg.LinAlgError:
        # features that depend on each other leave no triangular factor
        values, vectors = np.linalg.eigh(covariance_DD)
        return (vectors * np.sqrt(values.clip(min=0))).T


def _within(matrix_ND: FloatArray, group_GN: BoolArray) -> FloatArray:
    """Mean kernel of two different images of each group, [G]; 0 for a group of one."""
    own_N = (np.einsum("nd,nd->n", matrix_ND, matrix_ND) / matrix_ND.shape[1] + 1) ** 3
    size_G = group_GN.sum(axis=1)
    sums_G = _kernel_sums(matrix_ND, matrix_ND, group_GN, group_GN) - group_GN @ own_N
    return sums_G / np.maximum(size_G * (size_G - 1), 1)


def _kernel_sums(first_ND: FloatArray, second_MD: FloatArray, first_GN: BoolArray, second_GM: BoolArray) -> FloatArray:
    weights_MG = second_GM.T.astype(np.float64)
    sums_G = np.zeros(len(first_GN))
    for rows, gram_BM in _grams(first_ND, second_MD):
        gram_BM /= first_ND.shape[1]
        gram_BM += 1
        sums_G += np.einsum(
            "gb,bg->g", first_GN[:, rows].astype(np.float64), (gram_BM * gram_BM * gram_BM) @ weights_MG
        )
    return sums_G


def _radii(matrix_ND: FloatArray, k: int) -> FloatArray:
    """Squared distance of each image to its k-th nearest neighbour: [N]."""
    radius_N = np.empty(len(matrix_ND))
    for rows, squared_BN in _squared_distances_within(matrix_ND):
        radius_N[rows] = np.partition(squared_BN, k, axis=1)[:, k]
    return radius_N


def _squared_distances_within(matrix_ND: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    for rows, squared_BN in _squared_distances(matrix_ND, matrix_ND):
        # an image is at distance 0 of itself, which rounding may turn into a little more
        squared_BN[np.arange(len(squared_BN)), np.arange(rows.start, rows.start + len(squared_BN))] = 0
        yield rows, squared_BN


def _squared_distances(first_ND: FloatArray, second_MD: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    first_N, second_M = (np.einsum("nd,nd->n", one, one) for one in (first_ND, second_MD))
    for rows, gram_BM in _grams(first_ND, second_MD):
        gram_BM *= -2
        gram_BM += first_N[rows, None]
        gram_BM += second_M
        yield rows, gram_BM.clip(min=0, out=gram_BM)


def _grams(first_ND: FloatArray, second_MD: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    for start in range(0, len(first_ND), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, first_ND[rows] @ second_MD.T
