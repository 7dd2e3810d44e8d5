"""Whether drawn images are copies of training images: distances to the nearest one, beside those of unseen real images.

A real test image has a nearest training image too. Only drawn images that lie nearer than those do are suspect, so the
measure is a ratio, and deterministic. Pure.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation.bootstrap import RESAMPLES, Metric, Patients
from unix.evaluation.feature_distances import nearest_distances
from unix.evaluation.features import same_encoder
from unix.evaluation.image_metrics import ImageSet

CLOSE_PERCENTILE = 5


class Memorisation(Config):
    """Nearest training images of drawn and of unseen real images."""

    encoder: str
    n_drawn: int
    n_unseen: int
    n_training: int
    ratio: Metric
    """Median nearest distance of drawn images over that of unseen real ones; 1 is none, 0 are copies."""
    close_share: Metric
    """Share of drawn images nearer to a training image than CLOSE_PERCENTILE % of unseen real images are."""
    closest: tuple[str, ...]
    """Ids of the drawn images that are nearest to a training image, the nearest first: look at them."""


def memorisation(
    drawn: ImageSet, training: ImageSet, unseen: ImageSet, seed: int = 0, resamples: int = RESAMPLES, show: int = 10
) -> Memorisation:
    """Compare the nearest-training-image distances of drawn images with those of real images that training never saw.

    Intervals are over the patients of the drawn images.

    Raises:
        ConfigError: encoders differ, a set is empty, or an unseen image's patient is in the training set.
    """
    encoder = same_encoder(drawn.features, training.features, unseen.features).name
    shared = len(set(training.patients) & set(unseen.patients))
    if shared:
        raise ConfigError(f"{shared} patients of the unseen images are in the training set: they are not unseen")
    drawn_N, unseen_M = (nearest_distances(one.matrix, training.matrix) for one in (drawn, unseen))
    usual, close = float(np.median(unseen_M)), float(np.percentile(unseen_M, CLOSE_PERCENTILE))
    if usual == 0:
        raise ConfigError("half of the unseen real images are copies of training images: the split leaks")
    patients = Patients(drawn.patients, seed, resamples)
    ratio = patients.metric(lambda rows: float(np.median(drawn_N[rows])) / usual)
    if ratio is None:
        raise ConfigError("no distance is defined: features are not numbers")
    nearest = np.argsort(drawn_N, kind="stable")[:show]
    return Memorisation(
        encoder=encoder,
        n_drawn=len(drawn),
        n_unseen=len(unseen),
        n_training=len(training),
        ratio=ratio,
        close_share=patients.mean(drawn_N < close).metric(),
        closest=drawn.features.rows(nearest).ids,
    )


def pixel_distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Root mean squared difference of two pictures of one shape, in grey levels of 0..255.

    Raises:
        ConfigError: shapes differ.
    """
    if first.shape != second.shape:
        raise ConfigError(f"pictures of {first.shape} and {second.shape} have no pixel distance; resize them first")
    # in the pictures' own uint8, 3 - 5 would be 254
    return float(np.sqrt(((first.astype(np.float64) - second.astype(np.float64)) ** 2).mean()))


def nearest_of_seeds(images: NDArray[Any], real: NDArray[Any]) -> float:
    """The smallest pixel distance of any of several drawings of one prompt [S, rows, columns] to the real picture."""
    return min(pixel_distance(image, real) for image in images)
