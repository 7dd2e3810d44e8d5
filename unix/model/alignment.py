"""REPA: representation alignment of the generation branch with a frozen image encoder.

Latent tokens of one decoder layer pass a projector and are pulled, by cosine, towards the encoder's patch features of
the clean image. Two feature grids of different sizes are made equal by 2-D bilinear resizing of the encoder's.
"""

import json
from abc import ABC, abstractmethod
from math import isqrt
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Dinov2Model

from unix.errors import ConfigError, WeightsError
from unix.model.initialisation import initialise
from unix.model.vision import PIXEL_DEVIATION, PIXEL_MEAN, VisionTower

Compatibility = Literal["right", "reference"]
"""`reference` repeats the reference's alignment loss with its mistakes: divided by the number of samples twice, and
unequal grids made equal by 1-D interpolation of the flattened projection."""


class AlignmentProjector(nn.Module):
    """Linear-SiLU-Linear-SiLU-Linear from the decoder's width to the encoder's."""

    def __init__(self, width: int, hidden: int, target: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.third = nn.Linear(hidden, target)

    @classmethod
    def build(cls, width: int, hidden: int, target: int, seed: int) -> "AlignmentProjector":
        """A freshly initialised projector, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            projector = cls(width, hidden, target)
        generator = torch.Generator().manual_seed(seed)
        for layer in (projector.first, projector.second, projector.third):
            initialise(layer, generator, deviation=layer.in_features**-0.5)
        return projector

    def forward(self, captured_BTE: Tensor) -> Tensor:
        """[B, T, E] -> [B, T, encoder width]."""
        # a sharded model computes in bfloat16 by itself, and no autocast is open around this
        x = functional.silu(self.first(captured_BTE.to(self.first.weight.dtype)))
        return self.third(functional.silu(self.second(x)))


def alignment_loss(
    projected_BTZ: Tensor, features_BTZ: Tensor, grid: tuple[int, int], compatibility: Compatibility = "right"
) -> Tensor:
    """Minus the cosine between projected latent tokens and encoder features, averaged over tokens and samples.

    Args:
        projected_BTZ: the projector's output, T = rows * columns of `grid`, row-major.
        features_BTZ: the encoder's patch features; another number of tokens must be a square grid.
        grid: latent rows and columns.
        compatibility: `reference` repeats the reference's mistakes.
    """
    if compatibility == "reference":
        return _reference_loss(projected_BTZ, features_BTZ)
    features = resize_features(features_BTZ, grid).to(projected_BTZ.dtype)
    return -functional.cosine_similarity(projected_BTZ, features, dim=-1).mean()


def resize_features(features_BTZ: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bilinear (antialiased when shrinking) resizing of a square feature grid to `grid`, [B, rows * columns, Z]."""
    count = features_BTZ.shape[1]
    if count == grid[0] * grid[1]:
        return features_BTZ
    side = isqrt(count)
    if side * side != count:
        raise ConfigError(f"{count} encoder features are no square grid, so they cannot be resized to {grid}")
    image = features_BTZ.transpose(1, 2).unflatten(2, (side, side))
    resized = functional.interpolate(image, size=grid, mode="bilinear", align_corners=False, antialias=True)
    return resized.flatten(2).transpose(1, 2)


def _reference_loss(projected_BTZ: Tensor, features_BTZ: Tensor) -> Tensor:
    projected = functional.normalize(projected_BTZ, dim=-1)
    count = features_BTZ.shape[1]
    if projected.shape[1] != count:
        projected = functional.interpolate(projected.transpose(1, 2), size=count, mode="linear").transpose(1, 2)
    cosine = (projected * functional.normalize(features_BTZ, dim=-1)).sum(-1)
    return -cosine.mean() / len(cosine)


class AlignmentEncoder(nn.Module, ABC):
    """A frozen encoder of clean radiographs into a square grid of patch features."""

    width: int
    """Channels of a feature."""
    description: str
    """What it is, for a person to read."""

    @abstractmethod
    def encode(self, pixels_B1SS: Tensor) -> Tensor:
        """Pixels in [0, 1] -> [B, T, width]."""

    @torch.no_grad()
    def forward(self, pixels_B1SS: Tensor) -> Tensor:
        """Pixels [B, 1, S, S] in [0, 1] -> features [B, T, width], without gradients.

        Raises:
            ConfigError: pixels of another range, which the encoder would silently misread.
        """
        low, high = pixels_B1SS.aminmax()
        if low < 0 or high > 1:
            raise ConfigError(f"the alignment encoder wants pixels in [0, 1], not [{low:.3g}, {high:.3g}]")
        return self.encode(pixels_B1SS)


class TowerEncoder(AlignmentEncoder):
    """The model's own vision tower, frozen as it is after stage 1: a stand-in for RAD-DINO at tiny size.

    It holds no copy: freeze the tower wherever this is used.
    """

    def __init__(self, tower: VisionTower) -> None:
        super().__init__()
        # hidden from state_dict and parameters(): the tower belongs to the model
        self._tower = (tower,)
        self.width = tower.config.hidden_size
        self.description = "the understanding branch's own vision tower, frozen (stands for RAD-DINO)"

    def encode(self, pixels_B1SS: Tensor) -> Tensor:
        """Features of the tower at its own input size."""
        tower = self._tower[0]
        pixels = _resized(pixels_B1SS, tower.config.image_size)
        return tower(((pixels - PIXEL_MEAN) / PIXEL_DEVIATION).expand(-1, 3, -1, -1))


class RadDinoEncoder(AlignmentEncoder):
    """RAD-DINO, or any transformers `Dinov2Model`, read from a local folder; class token dropped."""

    def __init__(self, model: Dinov2Model, image_size: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.image_size, self.mean_value, self.deviation_value = image_size, mean, deviation
        self.width = model.config.hidden_size
        self.description = "RAD-DINO (Dinov2Model)"

    @classmethod
    def load(cls, folder: Path) -> "RadDinoEncoder":
        """Read a local transformers folder with its preprocessor_config.json; nothing is downloaded.

        Raises:
            WeightsError: the folder lacks a file, or its preprocessing is of another kind.
        """
        for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
            if not (folder / name).is_file():
                raise WeightsError(f"{folder / name} is missing; the folder must hold rad-dino in transformers' layout")
        preprocessing = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        try:
            size = int(preprocessing["crop_size"]["height"])
            mean, deviation = float(preprocessing["image_mean"][0]), float(preprocessing["image_std"][0])
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise WeightsError(
                f"{folder}/preprocessor_config.json: crop_size, image_mean, image_std: {error}"
            ) from error
        return cls(
            Dinov2Model.from_pretrained(folder, local_files_only=True, use_safetensors=True), size, mean, deviation
        )

    def encode(self, pixels_B1SS: Tensor) -> Tensor:
        """Patch tokens of the last hidden state."""
        pixels = (_resized(pixels_B1SS, self.image_size) - self.mean_value) / self.deviation_value
        return self.model(pixel_values=pixels.expand(-1, 3, -1, -1)).last_hidden_state[:, 1:]


def _resized(pixels_B1SS: Tensor, size: int) -> Tensor:
    if pixels_B1SS.shape[-1] == size:
        return pixels_B1SS
    resized = functional.interpolate(
        pixels_B1SS, size=(size, size), mode="bicubic", align_corners=False, antialias=True
    )
    return resized.clamp(0, 1)
