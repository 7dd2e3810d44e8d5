import numpy as np
import pytest

from unix.errors import ConfigError
from unix.evaluation.features import EncodedBy, Features
from unix.evaluation.image_metrics import ImageSet
from unix.evaluation.privacy import memorisation, nearest_of_seeds, pixel_distance


def images(matrix: np.ndarray, prefix: str) -> ImageSet:
    names = tuple(f"{prefix}{index}" for index in range(len(matrix)))
    return ImageSet(Features(EncodedBy("random", "1"), names, matrix.astype(np.float32)), names)


def normal(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 8))


TRAINING = normal(0, 400)
UNSEEN = images(normal(1, 200), "unseen")


def test_new_drawings_are_as_far_from_training_images_as_unseen_real_ones() -> None:
    found = memorisation(images(normal(2, 200), "drawn"), images(TRAINING, "train"), UNSEEN)
    assert found.ratio.value == pytest.approx(1, abs=0.1)
    assert found.ratio.low <= 1 <= found.ratio.high
    assert found.close_share.value == pytest.approx(0.05, abs=0.05)
    assert (found.n_drawn, found.n_training, found.n_unseen) == (200, 400, 200)


def test_copies_are_found_and_named() -> None:
    drawn = normal(2, 200)
    drawn[17], drawn[30] = TRAINING[5] + 1e-4, TRAINING[9] + 1e-3
    found = memorisation(images(drawn, "drawn"), images(TRAINING, "train"), UNSEEN, show=2)
    assert found.closest == ("drawn17", "drawn30")
    copies = memorisation(images(TRAINING[:200] + 1e-3, "drawn"), images(TRAINING, "train"), UNSEEN)
    assert copies.ratio.value < 0.01
    assert copies.close_share.value == 1
    assert copies == memorisation(images(TRAINING[:200] + 1e-3, "drawn"), images(TRAINING, "train"), UNSEEN)


def test_unseen_images_must_be_unseen() -> None:
    training = images(TRAINING, "train")
    with pytest.raises(ConfigError, match="400 patients of the unseen images are in the training set"):
        memorisation(UNSEEN, training, training)
    leaked = images(TRAINING, "other")
    with pytest.raises(ConfigError, match="the split leaks"):
        memorisation(UNSEEN, training, leaked)


def test_pixel_distance_by_hand() -> None:
    dark, bright = np.full((4, 4), 3, dtype=np.uint8), np.full((4, 4), 5, dtype=np.uint8)
    assert pixel_distance(dark, bright) == pixel_distance(bright, dark) == 2.0
    with pytest.raises(ConfigError, match="no pixel distance"):
        pixel_distance(dark, bright[:2])


def test_the_nearest_of_several_seeds_is_any_of_them_not_the_last() -> None:
    real = np.zeros((2, 2), dtype=np.uint8)
    drawings = np.stack([np.full((2, 2), level, dtype=np.uint8) for level in (9, 1, 200)])
    assert nearest_of_seeds(drawings, real) == 1.0
