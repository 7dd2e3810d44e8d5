"""What frozen networks make of the training images (latents, alignment features): each step, once, or from shards."""

import io
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from unix.data.images import Pixels
from unix.data.pack import posterior_noise
from unix.data.stream import Sample, ShardReader
from unix.errors import ShardError
from unix.model.alignment import AlignmentEncoder
from unix.model.latent import ImageCodec, sample_posterior
from unix.training.engine import Engine

ImageFunction = Callable[[Sequence[Pixels]], Tensor]
"""Grey uint8 [S, S] images to one tensor, first dimension B; frozen and without gradients."""

_IMAGES_AT_ONCE = 64
"""Images are encoded in these fixed groups, so that their rounding, and with it a resumed run, is always the same."""


class Encodings(Protocol):
    """One tensor row per sample."""

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """The samples' rows [samples, ...], in order, in the dtype and shape of one encoding."""
        ...


class ComputedEncodings:
    """Encodes in every step."""

    def __init__(self, function: ImageFunction) -> None:
        self._function = function

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """Encode the samples' images."""
        return self._function([sample.image for sample in samples])


class RememberedEncodings:
    """Encodes every image of a split once, spread over the ranks, and keeps the rows in memory."""

    def __init__(self, function: ImageFunction, reader: ShardReader, engine: Engine) -> None:
        self._row = {key: row for row, key in enumerate(reader.keys)}
        groups = [
            range(start, min(start + _IMAGES_AT_ONCE, reader.samples))
            for start in range(0, reader.samples, _IMAGES_AT_ONCE)
        ]
        rows: Tensor | None = None
        for group in engine.share(groups):
            encoded = function([reader.read(index).image for index in group])
            if rows is None:
                rows = encoded.new_zeros((reader.samples, *encoded.shape[1:]))
            rows[group.start : group.stop] = encoded
        self._rows = engine.sum_rows(rows)

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """Look the samples up by image id."""
        return self._rows[[self._row[sample.image_id] for sample in samples]]


class ShardEncodings:
    """Reads the set `<set>-latents`, whose rows stand for the same image ids."""

    def __init__(self, reader: ShardReader, images: ShardReader) -> None:
        self._reader = reader
        self._index = {key: index for index, key in enumerate(reader.keys)}
        missing = next((key for key in images.keys if key not in self._index), None)
        if missing is not None:
            raise ShardError(f"{reader.folder} has no latent of image {missing}; run `unix shards latents` again")

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """Read the samples' members."""
        rows = [self._reader.read_members(self._index[sample.image_id])[1]["npy"] for sample in samples]
        return torch.from_numpy(np.stack([np.load(io.BytesIO(row), allow_pickle=False) for row in rows])).float()


class LatentSource:
    """Scaled latents drawn from the autoencoder's posterior, keyed by (seed, step, image id)."""

    def __init__(self, moments: Encodings, codec: ImageCodec, seed: int) -> None:
        self._moments, self._codec, self._seed = moments, codec, seed

    def of(self, samples: Sequence[Sample], step: int) -> Tensor:
        """float32 BChw, as the model is to draw them."""
        mean_BChw, logvar_BChw = self._moments.of(samples).chunk(2, dim=1)
        keys = [sample.image_id for sample in samples]
        noise_BChw = posterior_noise(keys, tuple(mean_BChw.shape[1:]), seed=self._seed, step=step)
        return self._codec.scaled(sample_posterior(mean_BChw, logvar_BChw, noise_BChw.to(mean_BChw.device)))


def codec_moments(codec: ImageCodec) -> ImageFunction:
    """The autoencoder's mean and log-variance, B x 2C x h x w, mean first."""

    @torch.no_grad()
    def encode(images: Sequence[Pixels]) -> Tensor:
        pixels = codec_pixels(images, codec.channels).to(codec.scale_C.device)
        return torch.cat(codec.moments(pixels), dim=1)

    return encode


def alignment_features(encoder: AlignmentEncoder) -> ImageFunction:
    """The alignment encoder's patch features, BTZ."""

    def encode(images: Sequence[Pixels]) -> Tensor:
        return encoder(torch.from_numpy(np.stack(images))[:, None].float() / 255.0)

    return encode


def codec_pixels(images: Sequence[Pixels], channels: int) -> Tensor:
    """Grey uint8 images as the autoencoder wants them: float32 BCSS in [-1, 1]."""
    pixels_BSS = torch.from_numpy(np.stack(images)).float().div_(127.5).sub_(1.0)
    return pixels_BSS[:, None].expand(-1, channels, -1, -1)


def resized(pixels_BCSS: Tensor, size: int) -> Tensor:
    """Square images at another size (BCss), antialiased; unchanged where they have it already."""
    if pixels_BCSS.shape[-1] == size:
        return pixels_BCSS
    return functional.interpolate(pixels_BCSS, (size, size), mode="bilinear", antialias=True)
