import numpy as np
import pytest

from unix.errors import ConfigError
from unix.evaluation.feature_distances import frechet_distance, kernel_distance, neighbourhoods
from unix.evaluation.features import EncodedBy, Features
from unix.evaluation.image_metrics import ImageSet, distance_floor, image_metrics, image_scores, scores_per_class
from unix.records import CHEXPERT_14

WIDTH = 16
ENCODER = EncodedBy("random", "1")


def images(count: int, seed: int, shift: float = 0.0, spread: float = 1.0, first_patient: int = 0) -> ImageSet:
    """Two images a patient."""
    matrix = np.random.default_rng(seed).normal(shift, spread, size=(count, WIDTH)).astype(np.float32)
    features = Features(ENCODER, tuple(f"i{index}" for index in range(count)), matrix)
    return ImageSet(features, tuple(str(first_patient + index // 2) for index in range(count)))


def test_scores_are_those_of_the_matrices() -> None:
    real, drawn = images(80, 0), images(70, 1, shift=0.3)
    scores = image_scores(real, drawn)
    near = neighbourhoods(real.matrix, drawn.matrix)
    assert (scores.n_real, scores.n_drawn, scores.encoder) == (80, 70, "random")
    assert scores.frechet_distance == pytest.approx(frechet_distance(real.matrix, drawn.matrix))
    assert scores.kernel_distance == pytest.approx(kernel_distance(real.matrix, drawn.matrix))
    assert (scores.precision, scores.coverage) == (near.precise_M.mean(), near.covered_N.mean())


def test_diversity_is_one_for_the_real_and_falls_when_all_drawings_look_alike() -> None:
    real = images(100, 0)
    assert image_scores(real, real).diversity == pytest.approx(1)
    assert image_scores(real, images(100, 1, spread=0.1)).diversity == pytest.approx(0.1, rel=0.1)


def test_the_floor_is_of_the_size_it_is_held_against_and_real_images_sit_on_it() -> None:
    real, drawn = images(400, 0), images(400, 1)
    floor = image_scores(real, drawn).floor
    assert floor is not None
    assert floor.n == 200
    # as good as real: at the same size the same distance; at twice the size about half the bias
    assert floor.drawn_frechet_distance == pytest.approx(floor.real_frechet_distance, rel=0.3)
    whole = image_scores(real, drawn).frechet_distance
    assert whole is not None
    assert whole < 0.7 * floor.real_frechet_distance
    shifted = image_scores(real, images(400, 1, shift=0.5)).floor
    assert shifted is not None
    assert shifted.drawn_frechet_distance > 3 * shifted.real_frechet_distance


def test_no_patient_stands_on_both_sides_of_a_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = images(60, 0), images(60, 1)
    sides: list[set[bytes]] = []
    monkeypatch.setattr(
        "unix.evaluation.image_metrics.frechet_distance",
        lambda one, two: sides.append({row.tobytes() for row in one} | {row.tobytes() for row in two}) or 0.0,
    )
    distance_floor(real, drawn)
    between_real, with_drawn = sides
    owner = {row.tobytes(): patient for row, patient in zip(real.matrix, real.patients, strict=True)}
    assert len(between_real) == 60
    assert len({owner[row] for row in with_drawn if row in owner}) == 15
    drawn_owner = {row.tobytes(): patient for row, patient in zip(drawn.matrix, drawn.patients, strict=True)}
    assert not {owner[row] for row in with_drawn if row in owner} & {
        drawn_owner[row] for row in with_drawn if row in drawn_owner
    }


def test_all_sides_of_a_floor_are_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    monkeypatch.setattr(
        "unix.evaluation.image_metrics.frechet_distance", lambda one, two: sizes.append((len(one), len(two))) or 0.0
    )
    # most drawings are of patients without a real image here, as in a rare class
    floor = distance_floor(images(60, 0), images(200, 1))
    assert floor is not None
    assert sizes == [(30, 30), (30, 30)]
    assert floor.n == 30


def test_a_floor_at_full_size_from_other_patients() -> None:
    real, drawn, other = images(200, 0), images(200, 1), images(300, 2, first_patient=1000)
    floor = distance_floor(real, drawn, other_real=other)
    assert floor is not None
    assert floor.n == 200
    assert floor.drawn_frechet_distance == pytest.approx(frechet_distance(real.matrix, drawn.matrix))
    assert distance_floor(real, drawn, other_real=other) == floor
    with pytest.raises(ConfigError, match="100 patients are in both sets"):
        distance_floor(real, drawn, other_real=images(300, 2))
    with pytest.raises(ConfigError, match="there are 100, and 0"):
        distance_floor(real, drawn, other_real=images(100, 2, first_patient=1000))


def test_classes_are_masks_over_the_same_features() -> None:
    real, drawn = images(90, 0), images(80, 1, shift=0.2)
    generator = np.random.default_rng(2)
    real_NK, drawn_MK = generator.random((90, 14)) < 0.5, generator.random((80, 14)) < 0.5
    real_NK[:, 3] = drawn_MK[:, 3] = False
    drawn_MK[:, 4] = False
    drawn_MK[1:, 5] = False
    drawn_MK[0, 5] = True
    found = scores_per_class(real, drawn, real_NK, drawn_MK)
    assert list(found) == [name for index, name in enumerate(CHEXPERT_14) if index != 3]
    first = found[CHEXPERT_14[0]]
    assert (first.n_real, first.n_drawn) == (real_NK[:, 0].sum(), drawn_MK[:, 0].sum())
    assert first == image_scores(real.rows(real_NK[:, 0]), drawn.rows(drawn_MK[:, 0]))
    # a class that was never drawn, or once, is told, with its numbers, and scores nothing
    for index, count in ((4, 0), (5, 1)):
        none = found[CHEXPERT_14[index]]
        assert (none.n_drawn, none.frechet_distance, none.precision, none.floor) == (count, None, None, None)


def test_every_metric_has_n_an_interval_and_distances_a_floor() -> None:
    real, drawn = images(120, 0), images(100, 1, shift=0.3)
    found = image_metrics(real, drawn, resamples=50)
    scores = image_scores(real, drawn)
    assert found["frechet_distance"].value == pytest.approx(scores.frechet_distance)
    for name, metric in found.items():
        assert metric.value == pytest.approx(getattr(scores, name))
        assert metric.low < metric.value < metric.high
    assert scores.floor is not None
    assert found["frechet_distance"].floor == scores.floor.real_frechet_distance
    assert found["kernel_distance"].at_floor_n == scores.floor.drawn_kernel_distance
    assert {name: metric.n for name, metric in found.items()} == {
        "frechet_distance": 100,
        "kernel_distance": 100,
        "diversity": 100,
        "precision": 100,
        "recall": 120,
        "density": 100,
        "coverage": 120,
    }
    assert found == image_metrics(real, drawn, resamples=50)
    assert found["frechet_distance"] != image_metrics(real, drawn, seed=1, resamples=50)["frechet_distance"]


def test_the_interval_of_the_frechet_distance_holds_that_of_other_samples() -> None:
    metric = image_metrics(images(300, 0), images(300, 1, shift=0.4), resamples=2)["frechet_distance"]
    again = [
        frechet_distance(images(300, 2 * i).matrix, images(300, 2 * i + 1, shift=0.4).matrix) for i in range(1, 21)
    ]
    inside = sum(metric.low <= value <= metric.high for value in again)
    assert inside >= 14
    # a bootstrap would not: its copies of images move the distance itself
    rows = np.random.default_rng(0).integers(0, 300, size=300)
    assert frechet_distance(images(300, 0).matrix[rows], images(300, 1, shift=0.4).matrix[rows]) > metric.value


def test_sets_of_different_encoders_or_without_patients_are_refused() -> None:
    real, drawn = images(20, 0), images(20, 1)
    other = ImageSet(Features(EncodedBy("tower", "2"), drawn.features.ids, drawn.features.matrix_ND), drawn.patients)
    for compare in (image_scores, image_metrics):
        with pytest.raises(ConfigError, match="different encoders"):
            compare(real, other)
    with pytest.raises(ConfigError, match="20 images have 1 patients"):
        ImageSet(drawn.features, ("p",))
