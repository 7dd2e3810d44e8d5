"""Feature matrices of images by one encoder, computed once: a cache keyed by image, encoder and preparation.

Free of torch; encoders are in `unix.evaluation.encoders`. The cache is a folder per encoder and preparation with
Parquet files of rows (image digest, feature). A file appears whole, under a name made of what it holds, so any number
of processes may fill one cache, and one that was killed leaves nothing to mend.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from unix.data.images import Pixels, decode
from unix.errors import ConfigError, ImageError, SourceError, UnixError
from unix.progress import Progress

FeatureMatrix = NDArray[np.float32]

_DESCRIPTION_FILE = "encoder.json"
_ROWS_PER_FILE = 1024
"""What a killed run loses at most."""
_NAMED_FAULTS = 5


class Preparation(StrEnum):
    """What is done to an image before an encoder's own preprocessing."""

    NONE = "none"
    SQUASHED_299 = "squashed to 299 x 299"
    """The benchmark's: aspect ratio given up, whatever is finer than 299 pixels lost."""


class Encoder(Protocol):
    """Turns images into features. Two with equal digests give the same features."""

    @property
    def name(self) -> str:
        """What a table calls it."""
        ...

    @property
    def digest(self) -> str:
        """Of weights and preprocessing."""
        ...

    @property
    def width(self) -> int:
        """Features per image, D."""
        ...

    def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
        """Grayscale pictures of any sizes -> float32 [B, D]; each row depends on its own picture only."""
        ...


@dataclass(frozen=True, slots=True)
class EncodedBy:
    """Which encoder made features, from images prepared how."""

    name: str
    digest: str
    preparation: Preparation = Preparation.NONE


@dataclass(frozen=True, slots=True)
class Features:
    """Features of N images, in their order."""

    encoded_by: EncodedBy
    ids: tuple[str, ...]
    matrix_ND: FeatureMatrix

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Features":
        """Those of some images, by mask or by index."""
        ids = np.asarray(self.ids, dtype=str)[chosen].tolist()
        return Features(self.encoded_by, tuple(ids), self.matrix_ND[chosen])


@dataclass(frozen=True, slots=True)
class ImageItem:
    """An image that may have to be encoded; it is read only if the cache does not have it."""

    image_id: str
    digest: str
    read: Callable[[], Pixels]

    @classmethod
    def from_pixels(cls, image_id: str, pixels: Pixels) -> "ImageItem":
        """A picture in memory, uint8 [rows, columns]."""
        shape = f"{pixels.dtype}{pixels.shape}".encode()
        return cls(image_id, hashlib.blake2b(shape + pixels.tobytes(), digest_size=16).hexdigest(), lambda: pixels)


def image_files(paths: Mapping[str, Path]) -> list[ImageItem]:
    """Items for JPEG, PNG or DICOM files by image id.

    Raises:
        SourceError: some are not there; says how many and names the first.
    """
    items: list[ImageItem] = []
    faults: list[str] = []
    for image_id, path in paths.items():
        try:
            digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        except OSError as error:
            faults.append(f"{image_id} ({error.strerror})")
        else:
            items.append(ImageItem(image_id, digest, partial(_decoded, path)))
    _refuse(faults, len(paths))
    return items


def same_encoder(*sets: Features) -> EncodedBy:
    """What made all these features.

    Raises:
        ConfigError: they come from different encoders or preparations, whose numbers have no common scale.
    """
    makers = {one.encoded_by for one in sets}
    if len(makers) != 1:
        named = " and ".join(sorted(f"{one.name} ({one.digest[:8]}, {one.preparation})" for one in makers))
        raise ConfigError(f"features of different encoders have no place in one comparison: {named}; encode them alike")
    return makers.pop()


def image_features(
    encoder: Encoder,
    items: Sequence[ImageItem],
    cache: "FeatureCache | None" = None,
    preparation: Preparation = Preparation.NONE,
    batch: int = 32,
) -> Features:
    """Features of every image, from the cache where it has them; what is missing is encoded once and added to it.

    Raises:
        SourceError: some images cannot be decoded; says how many and names the first. No stand-in takes their place.
        UnixError: the encoder gave something else than finite features of its width.
    """
    made_by = EncodedBy(encoder.name, encoder.digest, preparation)
    known = cache.load(made_by, encoder.width, [item.digest for item in items]) if cache else {}
    missing = list({item.digest: item for item in items if item.digest not in known}.values())
    faults: list[str] = []
    with Progress(f"encode by {encoder.name}", len(missing)) as progress:
        for start in range(0, len(missing), _ROWS_PER_FILE):
            fresh: dict[str, FeatureMatrix] = {}
            part = missing[start : start + _ROWS_PER_FILE]
            for first in range(0, len(part), batch):
                fresh |= _encoded(encoder, part[first : first + batch], preparation, faults)
                progress.advance(len(part[first : first + batch]))
            if cache and fresh:
                cache.store(made_by, fresh)
            known |= fresh
    _refuse(faults, len(items))
    matrix = np.stack([known[item.digest] for item in items]) if items else np.zeros((0, encoder.width), np.float32)
    return Features(made_by, tuple(item.image_id for item in items), matrix)


class FeatureCache:
    """Features on disk below `root`."""

    def __init__(self, root: str | Path) -> None:
        self._root = Path(root)

    def load(self, made_by: EncodedBy, width: int, digests: Sequence[str]) -> dict[str, FeatureMatrix]:
        """Those of these images that are there: digest -> float32 [width].

        Raises:
            UnixError: a file is damaged or of another width.
        """
        found: dict[str, FeatureMatrix] = {}
        wanted = pl.Series(sorted(set(digests)), dtype=pl.String)
        for path in sorted(self._folder(made_by).glob("*.parquet")):
            try:
                rows = pl.read_parquet(path).filter(pl.col("image").is_in(wanted.implode()))
                matrix = rows["feature"].to_numpy()
            except (OSError, pl.exceptions.PolarsError) as error:
                raise UnixError(
                    f"the feature cache file {path} is damaged ({type(error).__name__}); delete it"
                ) from error
            if len(rows) and matrix.shape[1:] != (width,):
                raise UnixError(f"{path} holds features of shape {matrix.shape[1:]}, not ({width},); delete it")
            found |= zip(rows["image"], matrix, strict=True)
        return found

    def store(self, made_by: EncodedBy, features: dict[str, FeatureMatrix]) -> None:
        """Add features by image digest, published by rename."""
        folder = self._folder(made_by)
        folder.mkdir(parents=True, exist_ok=True)
        digests = sorted(features)
        name = hashlib.blake2b("\n".join(digests).encode(), digest_size=16).hexdigest()
        table = pl.DataFrame({"image": digests, "feature": np.stack([features[digest] for digest in digests])})
        described = {"name": made_by.name, "digest": made_by.digest, "preparation": made_by.preparation}
        _publish(
            folder / _DESCRIPTION_FILE, lambda path: path.write_text(json.dumps(described, indent=1) + "\n", "utf-8")
        )
        _publish(folder / f"{name}.parquet", table.write_parquet)

    def _folder(self, made_by: EncodedBy) -> Path:
        key = f"{made_by.digest}\n{made_by.preparation}"
        return self._root / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _encoded(
    encoder: Encoder, items: Sequence[ImageItem], preparation: Preparation, faults: list[str]
) -> dict[str, FeatureMatrix]:
    readable: list[str] = []
    images: list[Pixels] = []
    for item in items:
        try:
            images.append(prepared(item.read(), preparation))
            readable.append(item.digest)
        except ImageError as error:
            faults.append(f"{item.image_id} ({error.reason})")
    if not images:
        return {}
    matrix = encoder.encode(images)
    if matrix.shape != (len(images), encoder.width) or not np.isfinite(matrix).all():
        raise UnixError(
            f"encoder {encoder.name} gave features of shape {matrix.shape} for {len(images)} images, or numbers "
            f"that are not finite; expected ({len(images)}, {encoder.width})"
        )
    return dict(zip(readable, matrix.astype(np.float32), strict=True))


def prepared(image: Pixels, preparation: Preparation) -> Pixels:
    """An image as the encoder shall see it."""
    if preparation is Preparation.NONE:
        return image
    return np.asarray(Image.fromarray(image).resize((299, 299), Image.Resampling.BILINEAR))


def _decoded(path: Path) -> Pixels:
    return decode(path.read_bytes())


def _refuse(faults: Sequence[str], total: int) -> None:
    if faults:
        more = f" and {len(faults) - _NAMED_FAULTS} more" if len(faults) > _NAMED_FAULTS else ""
        raise SourceError(
            f"{len(faults)} of {total} images cannot be read: {', '.join(faults[:_NAMED_FAULTS])}{more}; "
            "mend them or leave them out on both sides: none is replaced by a blank"
        )


def _publish(path: Path, write: Callable[[Path], object]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    write(aside)
    aside.replace(path)
