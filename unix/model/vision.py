"""The vision tower (transformers' SigLIP, with an optional convolutional stem) and the connector to the decoder."""

from itertools import pairwise
from typing import Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional
from transformers import SiglipVisionConfig, SiglipVisionModel

from unix.config import Config
from unix.errors import ConfigError

Gelu = Literal["erf", "tanh"]
"""Exact GELU, or its tanh approximation."""


class VisionConfig(Config):
    """Shape of the vision tower; the defaults are SigLIP-large-patch16-384."""

    image_size: int = 384
    """Side of the square input, pixels."""
    patch_size: int = 16
    """Pixels per token and side; T = (image_size / patch_size)^2."""
    hidden_size: int = 1024
    """Width of a token inside the tower."""
    intermediate_size: int = 4096
    """Width inside its MLPs."""
    num_layers: int = 24
    """Transformer layers."""
    num_heads: int = 16
    """Attention heads."""
    activation: Gelu = "erf"
    """GELU of its MLPs; the released tower was trained with the exact one."""
    layer_norm_epsilon: float = 1e-6
    """Added to the variance in every LayerNorm."""
    stem_channels: tuple[int, ...] = ()
    """Convolutional stem in place of the patch projection: one 3x3 convolution per entry, each but the first halving
    the resolution, after a pixel-unshuffle by what remains of `patch_size`. Empty: SigLIP's own patch projection."""

    @model_validator(mode="after")
    def _check(self) -> "VisionConfig":
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}")
        if self.stem_channels and self.patch_size % self.stem_stride:
            raise ValueError(f"patch_size {self.patch_size} is not a multiple of the stem's stride {self.stem_stride}")
        return self

    @property
    def num_tokens(self) -> int:
        """Image tokens T."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def stem_stride(self) -> int:
        """Downsampling by the stem's convolutions alone."""
        return 2 ** (len(self.stem_channels) - 1)


class ConvolutionalStem(nn.Module):
    """Pixel-unshuffle and a few cheap 3x3 convolutions: learns local structure from few images, at little cost.

    The three identical channels of a radiograph are read once.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.unshuffle = config.patch_size // config.stem_stride
        channels = (self.unshuffle**2, *config.stem_channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=1 if index == 0 else 2, padding=1)
            for index, (before, after) in enumerate(pairwise(channels))
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, channel) for channel in config.stem_channels)

    def forward(self, pixels_BCSS: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, last stem channel, S / patch, S / patch]."""
        x = functional.pixel_unshuffle(pixels_BCSS[:, :1], self.unshuffle)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.gelu(norm(convolution(x)))
        return x


class VisionTower(nn.Module):
    """SigLIP's vision transformer without its pooling head: every patch token after the final norm."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvolutionalStem(config) if config.stem_channels else None
        grid = config.image_size // config.patch_size
        siglip = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=config.hidden_size,
                intermediate_size=config.intermediate_size,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                num_channels=config.stem_channels[-1] if self.stem else 3,
                image_size=grid if self.stem else config.image_size,
                patch_size=1 if self.stem else config.patch_size,
                hidden_act="gelu" if config.activation == "erf" else "gelu_pytorch_tanh",
                layer_norm_eps=config.layer_norm_epsilon,
                vision_use_head=False,
            )
        )

        # transformers before 5 wraps the transformer once more; without the wrapping, names are the same in both
        self.siglip = getattr(siglip, "vision_model", siglip)

    def forward(self, pixels_BCSS: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] -> [B, T, vision width].

        Raises:
            ConfigError: the images are not of the tower's size.
        """
        size = self.config.image_size
        if tuple(pixels_BCSS.shape[-2:]) != (size, size):
            raise ConfigError(
                f"the vision tower reads {size} x {size} pixels, not {tuple(pixels_BCSS.shape[-2:])}; "
                "use shards of its size or another preset"
            )
        pixels = pixels_BCSS if self.stem is None else self.stem(pixels_BCSS)
        return self.siglip(pixel_values=pixels).last_hidden_state


class Connector(nn.Module):
    """Two-layer MLP from the tower's width to the decoder's."""

    def __init__(self, vision_width: int, width: int, activation: Gelu) -> None:
        super().__init__()
        self.first = nn.Linear(vision_width, width)
        self.second = nn.Linear(width, width)
        self.approximate = "none" if activation == "erf" else "tanh"

    def forward(self, x: Tensor) -> Tensor:
        """[..., vision width] -> [..., E]."""
        return self.second(functional.gelu(self.first(x), approximate=self.approximate))


def normalise_pixels(image_BSS: Tensor) -> Tensor:
    """uint8 radiographs [B, S, S] -> float32 [B, 3, S, S] as the tower wants them: (x / 255 - mean) / deviation."""
    scaled = (image_BSS.to(torch.float32) / 255 - PIXEL_MEAN) / PIXEL_DEVIATION
    return scaled[:, None].expand(-1, 3, -1, -1)


PIXEL_MEAN = 0.555895
PIXEL_DEVIATION = 0.336385
"""Mean and standard deviation of the tower's input, of pixels in [0, 1], the same on all three channels."""
