from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from unix.data.images import Pixels, encode_png
from unix.errors import ConfigError, SourceError, UnixError
from unix.evaluation.features import (
    FeatureCache,
    FeatureMatrix,
    Features,
    ImageItem,
    Preparation,
    image_features,
    image_files,
    prepared,
    same_encoder,
)


@dataclass
class Counting:
    """Mean, deviation and first pixel; remembers how many images it was shown."""

    name: str = "counting"
    digest: str = "1"
    width: int = 3
    seen: list[int] = field(default_factory=list[int])

    def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
        self.seen.append(len(images))
        rows = [(image.mean(), image.std(), image[0, 0]) for image in images]
        return np.array(rows, dtype=np.float32)


def pictures(count: int, seed: int = 0) -> list[ImageItem]:
    images = np.random.default_rng(seed).integers(0, 256, size=(count, 8, 8), dtype=np.uint8)
    return [ImageItem.from_pixels(f"i{index}", image) for index, image in enumerate(images)]


def test_a_second_run_reads_the_cache_and_never_asks_the_encoder(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    before = image_features(first, pictures(7), FeatureCache(tmp_path), batch=3)
    assert first.seen == [3, 3, 1]
    after = image_features(second, pictures(7), FeatureCache(tmp_path), batch=3)
    assert second.seen == []
    assert after.ids == before.ids
    assert after.matrix_ND.tobytes() == before.matrix_ND.tobytes()
    # the cache goes by what an image is, not by where it stands
    mixed = image_features(second, [*pictures(9)[::-1]], FeatureCache(tmp_path))
    assert second.seen == [2]
    np.testing.assert_array_equal(mixed.matrix_ND[::-1][:7], before.matrix_ND)


def test_an_image_that_occurs_twice_is_encoded_once() -> None:
    encoder = Counting()
    found = image_features(encoder, pictures(2) * 3)
    assert encoder.seen == [2]
    assert len(found.ids) == 6
    np.testing.assert_array_equal(found.matrix_ND[:2], found.matrix_ND[4:])


def test_batches_and_cache_change_no_feature(tmp_path: Path) -> None:
    plain = image_features(Counting(), pictures(10), batch=10)
    for batch, cache in ((1, None), (4, FeatureCache(tmp_path)), (3, FeatureCache(tmp_path))):
        found = image_features(Counting(), pictures(10), cache, batch=batch)
        np.testing.assert_array_equal(found.matrix_ND, plain.matrix_ND)


@pytest.mark.parametrize("other", [{"digest": "2"}, {"preparation": Preparation.SQUASHED_299}])
def test_another_encoder_or_preparation_has_its_own_features(tmp_path: Path, other: dict[str, str]) -> None:
    image_features(Counting(), pictures(2), FeatureCache(tmp_path))
    changed = Counting(digest=other.get("digest", "1"))
    preparation = Preparation(other.get("preparation", Preparation.NONE))
    image_features(changed, pictures(2), FeatureCache(tmp_path), preparation)
    assert changed.seen == [2]


def test_features_of_different_encoders_are_not_compared() -> None:
    one = image_features(Counting(), pictures(2))
    same_encoder(one, one.rows(np.array([True, False])))
    for other in (
        image_features(Counting(digest="2"), pictures(2)),
        image_features(Counting(), pictures(2), preparation=Preparation.SQUASHED_299),
    ):
        with pytest.raises(ConfigError, match="different encoders"):
            same_encoder(one, other)


def test_images_that_cannot_be_decoded_are_counted_and_none_becomes_a_blank(tmp_path: Path) -> None:
    paths: dict[str, Path] = {}
    for index in range(4):
        paths[f"i{index}"] = tmp_path / f"{index}.png"
        paths[f"i{index}"].write_bytes(encode_png(np.full((8, 8), 10 * index, dtype=np.uint8)))
    paths["i2"].write_bytes(paths["i2"].read_bytes()[:40])
    encoder, cache = Counting(), FeatureCache(tmp_path / "cache")
    with pytest.raises(SourceError, match=r"1 of 4 images cannot be read: i2 \(.*_image\)"):
        image_features(encoder, image_files(paths), cache)
    assert encoder.seen == [3]
    # what could be read is kept
    del paths["i2"]
    assert image_features(encoder, image_files(paths), cache).ids == ("i0", "i1", "i3")
    assert encoder.seen == [3]


def test_missing_images_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(SourceError, match=r"2 of 3 images cannot be read: b \(No such file or directory\), c"):
        image_files({name: tmp_path / f"{name}.png" for name in "abc"})


def test_a_damaged_cache_file_is_named(tmp_path: Path) -> None:
    image_features(Counting(), pictures(2), FeatureCache(tmp_path))
    (path,) = tmp_path.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UnixError, match=r"parquet is damaged .*delete it"):
        image_features(Counting(), pictures(2), FeatureCache(tmp_path))


def test_an_encoder_whose_features_are_not_numbers_is_refused() -> None:
    class Broken(Counting):
        def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
            return np.full((len(images), 3), np.nan, dtype=np.float32)

    with pytest.raises(UnixError, match="not finite"):
        image_features(Broken(), pictures(2))


def test_nothing_to_encode() -> None:
    assert image_features(Counting(), []).matrix_ND.shape == (0, 3)


def test_the_benchmarks_preparation_gives_up_the_aspect_ratio() -> None:
    image = np.zeros((100, 400), dtype=np.uint8)
    assert prepared(image, Preparation.SQUASHED_299).shape == (299, 299)
    assert prepared(image, Preparation.NONE) is image


def test_rows_by_mask_and_by_index() -> None:
    features = Features(same_encoder(image_features(Counting(), [])), ("a", "b", "c"), np.eye(3, dtype=np.float32))
    assert features.rows(np.array([True, False, True])).ids == ("a", "c")
    assert features.rows(np.array([2, 0])).ids == ("c", "a")
    np.testing.assert_array_equal(features.rows(np.array([2, 0])).matrix_ND, np.eye(3)[[2, 0]])
