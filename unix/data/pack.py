"""Samples to batches: token layout, prompts, caption dropout, noise and time (PARITY section 4). Pure.

Every random choice is drawn from (seed, step, image id) alone, so a sample meets the same prompt, dropout, noise and
time whatever batch, rank or machine it lands on.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.config import Config
from unix.data.tokenizer import Tokenizer
from unix.errors import ShardError


class Purpose(IntEnum):
    """Separates the random streams of one sample at one step; frozen numbers, since resumed runs rely on them."""

    PROMPT = 1
    CAPTION_DROPOUT = 2
    TIME = 3
    NOISE = 4
    POSTERIOR = 5
    AUGMENTATION = 6


def sample_generator(seed: int, step: int, key: str, purpose: Purpose) -> np.random.Generator:
    """The generator of one random choice for image `key` at `step`."""
    key_number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
    return np.random.default_rng([seed, step, int(purpose), key_number])


class UnderstandingPacking(Config):
    """How image and report become one sequence."""

    prompts: tuple[str, ...] = ()
    """Wordings of the instruction, of which one is drawn per sample and step. Empty: those of `prompts/describe/`."""
    findings_prompts: tuple[str, ...] = ()
    """Wordings for reports without an impression. Empty: the same as `prompts`."""
    max_answer_tokens: int = 512
    """Longer reports are cut here and then bear no end-of-text target."""
    pixel_mean: float = 0.555895
    """Mean of the vision tower's input on [0, 1] pixels (SigLIP's of Janus-Pro)."""
    pixel_std: float = 0.336385
    shift_pixels: int = 0
    """Training images are moved by up to this many pixels along each axis."""
    gain_spread: float = 0.0
    """Training images are brightened by a factor within 1 +- this."""


class GenerationPacking(Config):
    """How caption and latent become one sequence, and how the flow's time is drawn."""

    caption_dropout: float = 0.1
    """Probability that a sample loses its caption, which trains the unconditional side of guidance."""
    max_caption_tokens: int = 256
    """Longer captions are cut here."""
    time_shift: float = 1.0
    """s in s*t / (1 + (s-1)*t); above 1 puts more weight on noisy times."""


class ReportSample(Protocol):
    """What `pack_understanding` needs of a sample."""

    @property
    def image_id(self) -> str:
        """Unique image id."""
        ...

    @property
    def image(self) -> npt.NDArray[np.uint8]:
        """[S, S] grey levels."""
        ...


def normalised_pixels(images: Sequence[npt.NDArray[np.uint8]], mean: float, std: float) -> Tensor:
    """Grey uint8 [S, S] images as float32 B3SS, (x / 255 - mean) / std on three identical channels."""
    pixels_BSS = torch.as_tensor(np.stack(images)).float().div_(255.0).sub_(mean).div_(std)
    return pixels_BSS[:, None].expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class TextBatch:
    """The text side of an understanding batch, without images."""

    text_ids_BL: Tensor
    """int64, padded on the right with eos."""
    text_length_B: Tensor
    """int64."""
    target_ids_BL: Tensor
    """int64, IGNORED where a position bears no loss."""


def pack_text(
    keys: Sequence[str],
    reports: Sequence[str],
    tokenizer: Tokenizer,
    packing: UnderstandingPacking,
    *,
    seed: int,
    step: int,
) -> TextBatch:
    """Lay out `[bos] prompt [eos] [bos] report [eos]`.

    Targets stand at the answer's bos and ids (report ids, then eos), nowhere else.
    """
    whole = tokenizer.encode_batch(packing.prompts)
    findings_alone = tokenizer.encode_batch(packing.findings_prompts) or whole
    rows: list[list[int]] = []
    targets: list[list[int]] = []
    for key, text, report in zip(keys, reports, tokenizer.encode_batch(reports), strict=True):
        prompts = whole if "IMPRESSION: " in text else findings_alone
        choice = sample_generator(seed, step, key, Purpose.PROMPT).integers(len(prompts))
        prompt = [tokenizer.bos, *prompts[int(choice)], tokenizer.eos]
        answer = (
            [*report, tokenizer.eos]
            if len(report) <= packing.max_answer_tokens
            else report[: packing.max_answer_tokens]
        )
        rows.append([*prompt, tokenizer.bos, *answer])
        targets.append([*[IGNORED] * len(prompt), *answer, IGNORED])
    return TextBatch(
        text_ids_BL=_pad(rows, tokenizer.eos),
        text_length_B=torch.tensor([len(row) for row in rows]),
        target_ids_BL=_pad(targets, IGNORED),
    )


def pack_understanding(
    samples: Sequence[ReportSample],
    reports: Sequence[str],
    tokenizer: Tokenizer,
    packing: UnderstandingPacking,
    *,
    seed: int,
    step: int,
) -> UnderstandingBatch:
    """Images beside the text of `pack_text`.

    Raises:
        ShardError: the images of the batch differ in size.
    """
    keys = tuple(sample.image_id for sample in samples)
    text = pack_text(keys, reports, tokenizer, packing, seed=seed, step=step)
    return UnderstandingBatch(
        keys=keys,
        pixels_BCSS=pack_pixels(samples, packing, seed=seed, step=step),
        text_ids_BL=text.text_ids_BL,
        text_length_B=text.text_length_B,
        target_ids_BL=text.target_ids_BL,
    )


def pack_pixels(samples: Sequence[ReportSample], packing: UnderstandingPacking, *, seed: int, step: int) -> Tensor:
    """The samples' images as the vision tower reads them in training: moved and brightened at random, float32 B3SS.

    Raises:
        ShardError: the images differ in size.
    """
    _require_equal_sizes([(sample.image_id, sample.image.shape) for sample in samples])
    images: list[npt.NDArray[np.uint8]] = []
    for sample in samples:
        draw = sample_generator(seed, step, sample.image_id, Purpose.AUGMENTATION)
        images.append(_augmented(sample.image, packing, draw))
    return normalised_pixels(images, packing.pixel_mean, packing.pixel_std)


def _augmented(
    image: npt.NDArray[np.uint8], packing: UnderstandingPacking, draw: np.random.Generator
) -> npt.NDArray[np.uint8]:
    margin, (height, width) = packing.shift_pixels, image.shape
    if margin:
        top, left = (int(offset) for offset in draw.integers(0, 2 * margin + 1, 2))
        image = np.pad(image, margin, mode="edge")[top : top + height, left : left + width]
    if packing.gain_spread:
        gain = 1.0 + packing.gain_spread * draw.uniform(-1.0, 1.0)
        image = np.clip(image * gain, 0.0, 255.0).astype(np.uint8)
    return image


def pack_generation(
    keys: Sequence[str],
    captions: Sequence[str],
    latent_BChw: Tensor,
    tokenizer: Tokenizer,
    packing: GenerationPacking,
    *,
    seed: int,
    step: int,
    alignment_BTE: Tensor | None = None,
) -> GenerationBatch:
    """Captions beside float32 clean latents, with noise and time drawn and some captions dropped."""
    noise: list[npt.NDArray[np.float32]] = []
    times: list[float] = []
    rows: list[list[int]] = []
    shape = tuple(latent_BChw.shape[1:])
    for key, ids in zip(keys, tokenizer.encode_batch(captions), strict=True):
        dropped = sample_generator(seed, step, key, Purpose.CAPTION_DROPOUT).random() < packing.caption_dropout
        rows.append([] if dropped else [tokenizer.bos, *ids[: packing.max_caption_tokens], tokenizer.eos])
        times.append(draw_time(sample_generator(seed, step, key, Purpose.TIME), packing.time_shift))
        noise.append(sample_generator(seed, step, key, Purpose.NOISE).standard_normal(shape, dtype=np.float32))
    return GenerationBatch(
        keys=tuple(keys),
        caption_ids_BL=_pad(rows, tokenizer.eos),
        caption_length_B=torch.tensor([len(row) for row in rows]),
        latent_BChw=latent_BChw,
        noise_BChw=torch.as_tensor(np.stack(noise)),
        time_B=torch.tensor(times, dtype=torch.float32),
        alignment_BTE=alignment_BTE,
    )


def draw_time(generator: np.random.Generator, shift: float) -> float:
    """t = sigmoid(n), n ~ N(0, 1), then s*t / (1 + (s-1)*t)."""
    time = 1.0 / (1.0 + np.exp(-generator.standard_normal()))
    return float(shift * time / (1.0 + (shift - 1.0) * time))


def posterior_noise(keys: Sequence[str], shape: tuple[int, ...], *, seed: int, step: int) -> Tensor:
    """Standard normal float32 [B, *shape] for drawing from the autoencoder's posterior."""
    draws = [
        sample_generator(seed, step, key, Purpose.POSTERIOR).standard_normal(shape, dtype=np.float32) for key in keys
    ]
    return torch.as_tensor(np.stack(draws))


def _pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max((len(row) for row in rows), default=0)
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows], dtype=torch.int64).reshape(
        len(rows), width
    )


def _require_equal_sizes(shapes: Sequence[tuple[str, tuple[int, ...]]]) -> None:
    first_key, first_shape = shapes[0]
    for key, shape in shapes:
        if shape != first_shape:
            raise ShardError(
                f"image {key} is {shape}, but {first_key} in the same batch is {first_shape}; rebuild the shard set"
            )
