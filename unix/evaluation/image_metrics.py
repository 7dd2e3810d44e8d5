"""Drawn against real images in feature space: every score with N, its floor and its interval over patients (pure).

Shape legend: N real images, M generated ones, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation.bootstrap import RESAMPLES, Metric, Patients, jackknife_groups, jackknife_metric
from unix.evaluation.feature_distances import (
    NEIGHBOURS,
    Matrix,
    frechet_distance,
    kernel_distance,
    kernel_distances,
    mean_pairwise_distances,
    neighbourhoods,
)
from unix.evaluation.features import Features, same_encoder
from unix.records import CHEXPERT_14

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Features of images with the patient of each; for a drawn image, the patient whose report it was drawn for."""

    features: Features
    patients: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.features.ids) != len(self.patients):
            raise ConfigError(f"{len(self.features.ids)} images have {len(self.patients)} patients; give each its own")

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def matrix(self) -> Matrix:
        """Features [N, D]."""
        return self.features.matrix_ND

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "ImageSet":
        """Those of some images, by mask or by index."""
        patients = np.asarray(self.patients, dtype=str)[chosen].tolist()
        return ImageSet(self.features.rows(chosen), tuple(patients))


class DistanceFloor(Config):
    """Distances between real and other patients' real images, and between real and drawn ones, at one size."""

    n: int
    """Images on either side of all four."""
    real_frechet_distance: float
    real_kernel_distance: float
    drawn_frechet_distance: float
    drawn_kernel_distance: float


class ImageScores(Config):
    """Point estimates for one pair of sets; None where a set is too small for a score to be defined."""

    encoder: str
    n_real: int
    n_drawn: int
    frechet_distance: float | None
    kernel_distance: float | None
    """All images, unbiased; below 0 where the sets are closer than chance lets two such samples be."""
    precision: float | None
    recall: float | None
    density: float | None
    coverage: float | None
    diversity: float | None
    """Mean distance between two drawn images over that between two real ones."""
    floor: DistanceFloor | None


def image_scores(
    real: ImageSet, drawn: ImageSet, seed: int = 0, k: int = NEIGHBOURS, other_real: ImageSet | None = None
) -> ImageScores:
    """Every score of two sets, with the floor of the distances (`distance_floor`).

    Raises:
        ConfigError: the sets come from different encoders.
    """
    encoder = same_encoder(real.features, drawn.features).name
    smaller = min(len(real), len(drawn))
    pair = smaller >= 2
    near = neighbourhoods(real.matrix, drawn.matrix, k) if smaller > k else None
    return ImageScores(
        encoder=encoder,
        n_real=len(real),
        n_drawn=len(drawn),
        frechet_distance=frechet_distance(real.matrix, drawn.matrix) if pair else None,
        kernel_distance=kernel_distance(real.matrix, drawn.matrix) if pair else None,
        precision=float(near.precise_M.mean()) if near else None,
        recall=float(near.recalled_N.mean()) if near else None,
        density=float(near.density_M.mean()) if near else None,
        coverage=float(near.covered_N.mean()) if near else None,
        diversity=float(_diversity(real, drawn, _all(real), _all(drawn))[0]) if pair else None,
        floor=distance_floor(real, drawn, seed, other_real),
    )


def scores_per_class(
    real: ImageSet, drawn: ImageSet, real_NK: BoolArray, drawn_MK: BoolArray, seed: int = 0, k: int = NEIGHBOURS
) -> dict[str, ImageScores]:
    """`image_scores` of each of the 14 classes: masks over the same features, nothing is encoded again.

    `real_NK` tells which real image shows a class, `drawn_MK` which image was drawn for a text that says so. A class
    without an image on either side is left out.
    """
    found: dict[str, ImageScores] = {}
    for name, real_N, drawn_M in zip(CHEXPERT_14, real_NK.T, drawn_MK.T, strict=True):
        if real_N.any() or drawn_M.any():
            found[name] = image_scores(real.rows(real_N), drawn.rows(drawn_M), seed, k)
    return found


def distance_floor(
    real: ImageSet, drawn: ImageSet, seed: int = 0, other_real: ImageSet | None = None
) -> DistanceFloor | None:
    """How far apart real images are from real images of other patients, at the size of the comparison that it judges.

    With `other_real`, images of it stand against `real`. Else the patients of `real` fall into two seeded halves, one
    half's real images stand against the other half's, and the drawn images of that other half give the score to hold
    against it. Seeded samples make all sides as large as the smallest; None where that is fewer than two images.

    Raises:
        ConfigError: `other_real` shares patients with `real`, is smaller than both sets, or has another encoder.
    """
    if other_real is None:
        first = _half(real.patients, seed)
        first_names = {patient for patient, inside in zip(real.patients, first, strict=True) if inside}
        drawn_second = np.array([patient not in first_names for patient in drawn.patients], dtype=bool)
        against, one, drawn = real.rows(~first), real.rows(first), drawn.rows(drawn_second)
    else:
        same_encoder(real.features, other_real.features)
        shared, wanted = len(set(real.patients) & set(other_real.patients)), min(len(real), len(drawn))
        if shared or len(other_real) < wanted:
            raise ConfigError(
                f"a floor needs {wanted} real images of other patients: there are {len(other_real)}, and {shared} "
                "patients are in both sets"
            )
        against, one = other_real, real
    n = min(map(len, (one, against, drawn)))
    if n < 2:
        return None
    one, against, drawn = (_sample(side, n, seed) for side in (one, against, drawn))
    return DistanceFloor(
        n=n,
        real_frechet_distance=frechet_distance(one.matrix, against.matrix),
        real_kernel_distance=kernel_distance(one.matrix, against.matrix),
        drawn_frechet_distance=frechet_distance(one.matrix, drawn.matrix),
        drawn_kernel_distance=kernel_distance(one.matrix, drawn.matrix),
    )


def image_metrics(
    real: ImageSet,
    drawn: ImageSet,
    seed: int = 0,
    resamples: int = RESAMPLES,
    k: int = NEIGHBOURS,
    other_real: ImageSet | None = None,
) -> dict[str, Metric]:
    """The scores of `image_scores` that are defined, each with its 95 % interval over patients.

    Distances and diversity take a delete-a-group jackknife, since a bootstrap would shift them. Precision and density
    are bootstrapped over the patients of the drawn images, recall and coverage over those of the real ones, while the
    balls stay as they are. `n` is the smaller side's for scores of pairs of sets, else the side's that is averaged.

    Raises:
        ConfigError: the sets come from different encoders, or hold fewer than two patients or no more than k images.
    """
    same_encoder(real.features, drawn.features)
    near = neighbourhoods(real.matrix, drawn.matrix, k)
    of_real, of_drawn = Patients(real.patients, seed, resamples), Patients(drawn.patients, seed, resamples)
    return _distances(real, drawn, distance_floor(real, drawn, seed, other_real), seed) | {
        "precision": of_drawn.mean(near.precise_M).metric(),
        "recall": of_real.mean(near.recalled_N).metric(),
        "density": of_drawn.mean(near.density_M).metric(),
        "coverage": of_real.mean(near.covered_N).metric(),
    }


def _distances(real: ImageSet, drawn: ImageSet, floor: DistanceFloor | None, seed: int) -> dict[str, Metric]:
    kept_GN = jackknife_groups((*real.patients, *drawn.patients), seed)
    # the first row is the whole, the others lack a group of patients on both sides
    real_GN, drawn_GM = np.split(np.vstack([np.ones_like(kept_GN[:1]), kept_GN]), [len(real)], axis=1)
    values = {
        "frechet_distance": np.array(
            [frechet_distance(real.matrix[one], drawn.matrix[two]) for one, two in zip(real_GN, drawn_GM, strict=True)]
        ),
        "kernel_distance": kernel_distances(real.matrix, drawn.matrix, real_GN, drawn_GM),
        "diversity": _diversity(real, drawn, real_GN, drawn_GM),
    }
    n = min(len(real), len(drawn))
    found = {name: jackknife_metric(float(one[0]), one[1:], n) for name, one in values.items()}
    if floor is None:
        return found
    frechet = {"floor": floor.real_frechet_distance, "at_floor_n": floor.drawn_frechet_distance}
    kernel = {"floor": floor.real_kernel_distance, "at_floor_n": floor.drawn_kernel_distance}
    return found | {
        name: found[name].model_copy(update={**told, "floor_n": floor.n})
        for name, told in (("frechet_distance", frechet), ("kernel_distance", kernel))
    }


def _diversity(real: ImageSet, drawn: ImageSet, real_GN: BoolArray, drawn_GM: BoolArray) -> NDArray[np.float64]:
    return mean_pairwise_distances(drawn.matrix, drawn_GM) / mean_pairwise_distances(real.matrix, real_GN)


def _sample(images: ImageSet, size: int, seed: int) -> ImageSet:
    chosen = np.random.default_rng(seed).choice(len(images), size, replace=False)
    return images.rows(np.sort(chosen))


def _all(images: ImageSet) -> BoolArray:
    return np.ones((1, len(images)), dtype=bool)


def _half(patients: Sequence[str], seed: int) -> BoolArray:
    """Which images belong to a seeded half of the patients: [N]."""
    names, patient_N = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    return (np.random.default_rng([seed, 2]).permutation(len(names)) % 2 == 0)[patient_N]
