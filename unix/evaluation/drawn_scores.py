"""Drawn, real and training images as features of one encoder: what the image metrics compare, encoded once.

Images are read one batch at a time, and only those that the cache does not have.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from unix.data.images import Pixels
from unix.data.stream import ShardReader
from unix.errors import ConfigError
from unix.evaluation.features import Encoder, FeatureCache, FeatureMatrix, ImageItem, Preparation, image_features
from unix.evaluation.image_metrics import ImageSet
from unix.evaluation.predict_split import PredictedSplit, generated_image
from unix.evaluation.sampling import chosen_samples
from unix.records import Split, join_report

FEATURES_FOLDER = "features"
TOWER = "tower"


@dataclass(frozen=True, slots=True)
class Training:
    """Training images with their cleaned reports."""

    images: ImageSet
    reports: tuple[str, ...]


def chosen_encoder(name: str, checkpoint: Path) -> Encoder:
    """The encoder that `KIND` or `KIND:FOLDER` names; a `tower` without a folder is that of `checkpoint`.

    Raises:
        ConfigError: there is no such encoder, or it needs a folder.
        WeightsError: the folder lacks a file or holds other weights.
    """
    from unix.evaluation.encoders import open_encoder

    kind, _, folder = name.partition(":")
    if kind == TOWER and not folder:
        return open_encoder(TOWER, checkpoint)
    return open_encoder(kind, Path(folder) if folder else None)


def drawn_and_real(
    split: PredictedSplit, encoder: Encoder, cache: FeatureCache, preparation: Preparation = Preparation.NONE
) -> tuple[ImageSet, ImageSet]:
    """The drawings and the real images of the same samples, each with its patient.

    Raises:
        EvaluationError: a drawing is missing or is not the image that was drawn.
    """
    patients = tuple(split.rows["subject_id"])
    drawn = [
        ImageItem(key, digest, partial(generated_image, split, key, digest))
        for key, digest in split.rows.select("image_id", "image_sha256").iter_rows()
    ]
    real = list(_shard_images(split.reader, split.indices))
    return tuple(ImageSet(image_features(encoder, items, cache, preparation), patients) for items in (drawn, real))  # pyright: ignore[reportReturnType] - two of them


def training_images(
    split: PredictedSplit,
    encoder: Encoder,
    cache: FeatureCache,
    limit: int,
    seed: int,
    preparation: Preparation = Preparation.NONE,
) -> Training:
    """Images of the set's training split, at most `limit`, chosen by a seeded hash of their ids.

    Raises:
        ConfigError: the training split is empty.
    """
    reader = ShardReader(split.reader.folder, Split.TRAIN, release=split.reader.manifest.release)
    if not reader.samples:
        raise ConfigError(f"{reader} is empty: there is no training image to compare with")
    chosen = tuple(chosen_samples(reader.keys, limit, seed))
    records = [json.loads(reader.read_member(index, "json")) for index in chosen]
    features = image_features(encoder, list(_shard_images(reader, chosen)), cache, preparation)
    return Training(
        ImageSet(features, tuple(record["subject_id"] for record in records)),
        tuple(join_report(record["findings"], record["impression"]) for record in records),
    )


def nearest_reports(split: PredictedSplit, encoder: Encoder, cache: FeatureCache, training: Training) -> list[str]:
    """For each image of the split, the report of the training image nearest to it: by the cosine of their features,
    counted from the training images' mean."""
    images = image_features(encoder, list(_shard_images(split.reader, split.indices)), cache)
    mean_D = training.images.matrix.mean(axis=0)
    one_ND, other_MD = (_unit(matrix - mean_D) for matrix in (images.matrix_ND, training.images.matrix))
    return [training.reports[int(index)] for index in (one_ND @ other_MD.T).argmax(axis=1)]


def _unit(matrix_ND: FeatureMatrix) -> FeatureMatrix:
    return matrix_ND / np.maximum(np.linalg.norm(matrix_ND, axis=1, keepdims=True), 1e-12)


def _shard_images(reader: ShardReader, indices: tuple[int, ...]) -> Iterator[ImageItem]:
    for index in indices:
        key, members = reader.read_members(index)
        content = members["jpg"] if "jpg" in members else members["png"]
        digest = hashlib.blake2b(content, digest_size=16).hexdigest()
        yield ImageItem(key, digest, partial(_pixels, reader, index))


def _pixels(reader: ShardReader, index: int) -> Pixels:
    return reader.read(index).image
