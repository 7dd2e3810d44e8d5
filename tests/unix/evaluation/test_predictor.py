from pathlib import Path

import numpy as np
import pytest

from unix.data.images import Pixels
from unix.errors import ConfigError, WeightsError
from unix.evaluation.predictor import Predictor, resized
from unix.evaluation.settings import PredictorConfig, sample_seed


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.load(PredictorConfig(checkpoint=str(checkpoint), max_new_tokens=8, num_steps=3), "cpu")


def images(count: int, side: int = 32) -> list[Pixels]:
    return list(np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8))


def test_reports_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    together = predictor.describe(images(4))
    assert together == [predictor.describe([image])[0] for image in images(4)]
    assert len(set(together)) > 1
    assert predictor.describe([]) == []


def test_a_streamed_report_is_the_whole_one(predictor: Predictor) -> None:
    for image in images(4):
        pieces = list(predictor.stream(image))
        assert "".join(pieces) == predictor.describe([image])[0]
        assert all(pieces)


def test_drawn_reports_depend_on_image_and_seed_alone(checkpoint: Path) -> None:
    def load(seed: int) -> Predictor:
        config = PredictorConfig(checkpoint=str(checkpoint), max_new_tokens=8, temperature=2.0, top_p=0.9, seed=seed)
        return Predictor.load(config, "cpu")

    first = load(0)
    together = first.describe(images(4))
    assert together == [first.describe([image])[0] for image in images(4)]
    assert together != load(1).describe(images(4))


def test_captions_that_are_cut_are_counted(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    short = Predictor.load(PredictorConfig(checkpoint=str(checkpoint), max_caption_tokens=3, num_steps=1), "cpu")
    short.draw(["a", "Small effusion and a large heart."], [1, 2], 32)
    assert "1 of 2 captions have more than max_caption_tokens = 3" in caplog.text


def test_a_drawing_depends_on_its_caption_and_seed_alone(predictor: Predictor) -> None:
    captions, seeds = ["Small effusion.", "Large heart, and more.", "Small effusion."], [5, 6, 7]
    first, second, third = predictor.draw(captions, seeds, 48)
    assert first.shape == (48, 48) and first.dtype == np.uint8
    (alone,) = predictor.draw(captions[1:2], seeds[1:2], 48)
    assert np.abs(alone.astype(int) - second.astype(int)).max() <= 1
    assert not np.array_equal(first, third)
    assert predictor.draw(["x"], [1])[0].shape == (32, 32), "the latent grid's own size"


def test_a_resolution_that_no_latent_grid_has_is_refused(predictor: Predictor) -> None:
    for resolution in (0, -16, 40, 1600):
        with pytest.raises(ConfigError, match=r"\d"):
            predictor.draw(["x"], [1], resolution)


def test_reconstructions_keep_size_and_count(predictor: Predictor) -> None:
    rebuilt = predictor.reconstruct(images(3, 64))
    assert [image.shape for image in rebuilt] == [(64, 64)] * 3


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=str(tmp_path)):
        Predictor.load(PredictorConfig(checkpoint=str(tmp_path)))


def test_images_of_another_size_are_read_at_the_models_own(predictor: Predictor) -> None:
    (small,) = images(1)
    large = small.repeat(2, axis=0).repeat(2, axis=1)
    assert resized(large, 32).shape == (32, 32)
    assert resized(small, 32) is small
    assert len(predictor.describe([large])) == 1


def test_seeds_differ_by_sample_and_by_seed() -> None:
    seeds = {sample_seed(seed, key) for seed in range(3) for key in ("a", "b", "c")}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**63 for seed in seeds)
