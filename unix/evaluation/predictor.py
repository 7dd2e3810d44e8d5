"""Loads a checkpoint and predicts with it: reports for images, images for captions, images through the codec.

Imports torch; what runs around it (`unix.evaluation.workers`, the jobs) does not.
"""

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unix.data.images import Pixels, squares
from unix.data.pack import UnderstandingPacking, normalised_pixels
from unix.data.tokenizer import Tokenizer
from unix.errors import ConfigError, ImageError, SourceError
from unix.evaluation.settings import CheckpointFacts, PredictorConfig, sample_seed, trained_on
from unix.model import decoding
from unix.model.dual_branch import DualBranch
from unix.model.latent import DOWNSAMPLING, ImageCodec
from unix.model.sampling import SamplerConfig, integrate, latent_noise, sample_latents
from unix.model.weights.native import load_model
from unix.records import Task
from unix.runs import newest_step

logger = logging.getLogger(__name__)

PREPROCESSING_FILE = "preprocessing.json"


class Predictor:
    """A model ready to read and draw, with the preprocessing it was trained with."""

    def __init__(
        self,
        model: DualBranch,
        codec: ImageCodec,
        tokenizer: Tokenizer,
        packing: UnderstandingPacking,
        config: PredictorConfig,
        device: torch.device,
        facts: CheckpointFacts,
    ) -> None:
        self.facts = facts
        self._model, self._codec = model.to(device).eval(), codec.to(device).eval()
        self._tokenizer, self._packing, self._config, self._device = tokenizer, packing, config, device

    @classmethod
    def load(cls, config: PredictorConfig, device: torch.device | str | None = None) -> "Predictor":
        """Load `config.checkpoint`, a run's or a step's folder, onto `device` (default: a GPU where there is one).

        Raises:
            WeightsError: the folder is no whole checkpoint.
        """
        folder = newest_step(Path(config.checkpoint))
        model, codec = load_model(folder)
        packing = UnderstandingPacking.load(folder / PREPROCESSING_FILE)
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        return cls(model, codec, Tokenizer.load(folder), packing, config, chosen, _facts(folder, model))

    @property
    def prompt(self) -> str:
        """The wording in which every report is asked for."""
        return self._packing.prompts[0]

    @torch.inference_mode()
    def describe(self, images: Sequence[Pixels], seeds: Sequence[int] | None = None) -> list[str]:
        """One report per square image (uint8 [S, S], any size); "" where the model has nothing to say.

        Where tokens are drawn at random, each image's draws come from its seed; default: one made of its pixels.
        """
        if not images:
            return []
        return [self._tokenizer.decode(answer) for answer in decoding.describe(*self._question(images, seeds))]

    def stream(self, image: Pixels) -> Iterator[str]:
        """The report that `describe` writes for one image, piece by piece as it is written."""
        ids: list[int] = []
        text = written = ""
        for step in decoding.decode(*self._question([image])):
            ids.append(int(step.token_B[0]))
            text = self._tokenizer.decode(ids)
            # a character of several tokens is not there until its last
            if len(text) > len(written) and not text.endswith("\ufffd"):
                yield text[len(written) :]
                written = text
        if len(text) > len(written):
            yield text[len(written) :]

    def _question(
        self, images: Sequence[Pixels], seeds: Sequence[int] | None = None
    ) -> tuple[DualBranch, Tensor, list[list[int]], int, float, float, list[int]]:
        """What decoding is asked."""
        side, config = self._model.config.vision.image_size, self._config
        pixels_BCSS = normalised_pixels(
            [resized(image, side) for image in images], self._packing.pixel_mean, self._packing.pixel_std
        ).to(self._device)
        prompts = [self._tokenizer.encode(self.prompt)] * len(images)
        if seeds is None:
            seeds = [sample_seed(config.seed, hashlib.blake2b(image.tobytes()).hexdigest()) for image in images]
        return self._model, pixels_BCSS, prompts, config.max_new_tokens, config.temperature, config.top_p, list(seeds)

    def describe_files(self, paths: Sequence[str]) -> list[str]:
        """One report per image file, decoded and squared as the shards' images are.

        Raises:
            SourceError: a file cannot be decoded.
        """
        side = self._model.config.vision.image_size
        images: list[Pixels] = []
        for path in paths:
            try:
                images.append(squares(Path(path).read_bytes(), [side])[side])
            except ImageError as error:
                raise SourceError(
                    f"cannot describe {path}: {error.detail}; it takes JPEG, PNG and DICOM files"
                ) from error
        return self.describe(images)

    @torch.inference_mode()
    def draw(self, captions: Sequence[str], seeds: Sequence[int], resolution: int | None = None) -> list[Pixels]:
        """One image [resolution, resolution] per caption; each depends on its own caption and seed only.

        Without a resolution, the one that the checkpoint was last trained to draw.

        Raises:
            ConfigError: the resolution is not a positive multiple of the codec's 16 pixels.
        """
        side = self._latent_side(resolution)
        if not captions:
            return []
        sampler = SamplerConfig(num_steps=self._config.num_steps, guidance=self._config.guidance)
        latents = sample_latents(self._model, self._caption_ids(captions), (side, side), seeds, sampler)
        return _to_images(self._codec.decode(latents))

    def drawing(
        self, caption: str, seed: int, resolution: int | None, sampler: SamplerConfig
    ) -> Iterator[tuple[int, Pixels | None]]:
        """The image that `draw` gives for one caption and seed, step by step: how many are done, and at last the image.

        Raises:
            ConfigError: as `draw`.
        """
        side = self._latent_side(resolution)
        noise = latent_noise([seed], self._model.config.latent.channels, (side, side)).to(self._device)
        latent = noise
        for number, step in enumerate(integrate(self._model, self._caption_ids([caption]), noise, sampler), start=1):
            latent = step.next_BChw
            if number < sampler.num_steps:
                yield number, None
        with torch.inference_mode():
            image = _to_images(self._codec.decode(latent))[0]
        yield sampler.num_steps, image

    def _latent_side(self, resolution: int | None) -> int:
        if resolution is None:
            resolution = self.facts.resolution
        if resolution <= 0 or resolution % DOWNSAMPLING:
            raise ConfigError(f"resolution {resolution} is not a positive multiple of {DOWNSAMPLING}; choose another")
        return resolution // DOWNSAMPLING

    def _caption_ids(self, captions: Sequence[str]) -> list[list[int]]:
        ids, most = self._tokenizer.encode_batch(captions), self._config.max_caption_tokens
        cut = sum(len(caption_ids) > most for caption_ids in ids)
        if cut:
            logger.warning("%d of %d captions have more than max_caption_tokens = %d tokens: cut", cut, len(ids), most)
        return [caption_ids[:most] for caption_ids in ids]

    @torch.inference_mode()
    def reconstruct(self, images: Sequence[Pixels]) -> list[Pixels]:
        """Square images of one size (a multiple of 16) through the codec, at the posterior's mean."""
        if not images:
            return []
        pixels_BSS = torch.as_tensor(np.stack(images), device=self._device).float() / 127.5 - 1
        mean, _ = self._codec.moments(pixels_BSS[:, None].expand(-1, self._codec.channels, -1, -1))
        return _to_images(self._codec.decode(self._codec.scaled(mean)))


def _facts(step: Path, model: DualBranch) -> CheckpointFacts:
    """What the checkpoint draws, as far as its resolved configuration says."""
    drawn = re.fullmatch(rf"{Task.GENERATION}-(\d+)", trained_on(step))
    return CheckpointFacts(resolution=int(drawn[1]) if drawn else model.config.latent.base_side * DOWNSAMPLING)


def resized(image: Pixels, side: int) -> Pixels:
    """A square image uint8 [S, S] as [side, side]; one that fits is returned as it is."""
    if image.shape == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def _to_images(pixels_BCSS: Tensor) -> list[Pixels]:
    """Pixels of about [-1, 1] -> uint8 [S, S]; several channels are averaged."""
    grey_BSS = pixels_BCSS.float().mean(dim=1).add(1).mul(127.5).round().clamp(0, 255)
    return list(grey_BSS.to("cpu", torch.uint8).numpy())
