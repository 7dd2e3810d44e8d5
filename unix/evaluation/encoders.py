"""Encoders behind the image metrics: RAD-DINO from a folder, the project's own vision tower, fixed random convolutions.

Imports torch. Numbers of different encoders have no common scale; `unix.evaluation.features` refuses to mix them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from unix.config import json_digest
from unix.data.images import Pixels
from unix.errors import ConfigError
from unix.evaluation.features import Encoder, FeatureMatrix
from unix.evaluation.predictor import resized
from unix.model.alignment import RadDinoEncoder
from unix.model.vision import VisionTower, normalise_pixels
from unix.model.weights.native import load_model
from unix.model.weights.tensors import tensors_digest
from unix.runs import newest_step

RAD_DINO, TOWER, RANDOM = "rad-dino", "tower", "random"
KINDS = (RAD_DINO, TOWER, RANDOM)


def open_encoder(kind: str, folder: Path | None = None, device: torch.device | str | None = None) -> Encoder:
    """The encoder `rad-dino` (from a transformers folder), `tower` (of a checkpoint's folder) or `random`.

    Weights go onto `device` (default: a GPU where there is one).

    Raises:
        ConfigError: there is no such encoder, or it needs a folder.
        WeightsError: the folder lacks a file or holds other weights.
    """
    if kind == RANDOM:
        return RandomConvolutions()
    if kind not in KINDS:
        raise ConfigError(f"there is no encoder {kind!r}; choose one of {', '.join(KINDS)}")
    if folder is None:
        raise ConfigError(f"the encoder {kind} needs a folder of weights; nothing is downloaded")
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return RadDino.load(folder, chosen) if kind == RAD_DINO else Tower.load(folder, chosen)


class RadDino:
    """RAD-DINO's class token after the last norm (`pooler_output`, 768 wide), with its own image preprocessing.

    As transformers' image processor does without torchvision: short side to the crop's size by Pillow's bicubic filter,
    centre crop, then mean and deviation (microsoft/rad-dino, preprocessor_config.json: 518 px, 0.5307, 0.2583).
    """

    def __init__(self, encoder: RadDinoEncoder, device: torch.device | str = "cpu") -> None:
        self._encoder, self._device = encoder.to(device), device
        self.name, self.width = RAD_DINO, encoder.width
        settings = {"side": encoder.image_size, "mean": encoder.mean_value, "deviation": encoder.deviation_value}
        self.digest = json_digest({"tensors": tensors_digest(encoder.model.state_dict()), **settings})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "RadDino":
        """Read a local transformers folder; nothing is downloaded.

        Raises:
            WeightsError: the folder lacks a file, or its preprocessing is of another kind.
        """
        return cls(RadDinoEncoder.load(folder), device)

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
        """Pictures uint8 [rows, columns] of any sizes -> float32 [B, width]."""
        side = self._encoder.image_size
        pixels_BSS = torch.as_tensor(np.stack([short_side_crop(image, side) for image in images]))
        scaled = (pixels_BSS.to(self._device).float() / 255 - self._encoder.mean_value) / self._encoder.deviation_value
        pooled = self._encoder.model(pixel_values=scaled[:, None].expand(-1, 3, -1, -1)).pooler_output
        return pooled.float().cpu().numpy()


class Tower:
    """The understanding branch's vision tower: the mean of its patch tokens after the final norm."""

    def __init__(self, tower: VisionTower, device: torch.device | str = "cpu") -> None:
        self._tower, self._device = tower.to(device).eval(), device
        self.name, self.width = TOWER, tower.config.hidden_size
        self.digest = json_digest({"tensors": tensors_digest(tower.state_dict()), "config": tower.config.digest()})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "Tower":
        """Read the tower of a run's or a step's folder.

        Raises:
            WeightsError: it is no whole checkpoint.
        """
        return cls(load_model(newest_step(folder))[0].vision, device)

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
        """Square pictures uint8 [S, S] of any sizes -> float32 [B, width].

        Raises:
            ConfigError: one is not square, as every training image was.
        """
        odd = next((image.shape for image in images if image.shape[0] != image.shape[1]), None)
        if odd is not None:
            raise ConfigError(
                f"the tower reads square pictures, not {odd[0]} x {odd[1]}; pad them as shards are padded"
            )
        side = self._tower.config.image_size
        pixels_BSS = torch.as_tensor(np.stack([resized(image, side) for image in images])).to(self._device)
        return self._tower(normalise_pixels(pixels_BSS)).mean(dim=1).float().cpu().numpy()


class RandomConvolutions:
    """Untrained, fixed by a seed, without any file: a pyramid of random convolutions, pooled to means and deviations.

    It sees texture and layout but no pathology: for tests and to try the machinery.
    """

    def __init__(self, seed: int = 0, side: int = 64, channels: Sequence[int] = (8, 16, 32)) -> None:
        self._side = side
        self.name, self.width = RANDOM, 2 * sum(channels)
        generator, before = torch.Generator().manual_seed(seed), 1
        self._filters: list[Tensor] = []
        for after in channels:
            scale = (2 / (9 * before)) ** 0.5
            self._filters.append(torch.randn(after, before, 3, 3, generator=generator) * scale)
            before = after
        filters = {str(index): one for index, one in enumerate(self._filters)}
        self.digest = json_digest({"tensors": tensors_digest(filters), "side": side})

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
        """Pictures uint8 [rows, columns] of any sizes -> float32 [B, width]."""
        x = torch.as_tensor(np.stack([resized(image, self._side) for image in images]))[:, None].float() / 255 - 0.5
        pooled: list[Tensor] = []
        for weight in self._filters:
            x = functional.relu(functional.conv2d(x, weight, stride=2, padding=1))
            pooled += [x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)]
        return torch.cat(pooled, dim=1).numpy()


def short_side_crop(image: Pixels, side: int) -> Pixels:
    """The centre [side, side] of a picture whose short side was made `side` pixels long."""
    rows, columns = image.shape
    # the long side is cut to a whole number, as transformers' get_resize_output_image_size does
    short = min(rows, columns)
    size = (side, int(side * rows / short)) if columns <= rows else (int(side * columns / short), side)
    picture = (
        Image.fromarray(image)
        if (columns, rows) == size
        else Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    )
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return np.asarray(picture)[top : top + side, left : left + side]
