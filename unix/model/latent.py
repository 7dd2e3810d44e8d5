"""Image codecs: radiographs to the latents that the generation branch draws, 16 times smaller, and back."""

from abc import ABC, abstractmethod
from typing import Any, Literal, cast

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from unix.config import Config
from unix.errors import ConfigError
from unix.model.initialisation import initialise

DOWNSAMPLING = 16
"""Pixels per latent row or column."""


class FoldedVAEConfig(Config):
    """A cheap single-channel VAE for two CPU cores."""

    kind: Literal["folded"] = "folded"
    """Says which codec a saved configuration is of."""
    fine_channels: int = 32
    """Width of the residual blocks at a quarter of the resolution."""
    coarse_channels: int = 96
    """Width of the residual blocks at an eighth of the resolution."""
    num_blocks: int = Field(default=2, ge=1)
    """Residual blocks at each of the two resolutions."""


class KLF16Config(Config):
    """kl-f16 of latent diffusion, as a diffusers `AutoencoderKL`; the defaults are the released shape."""

    kind: Literal["kl-f16"] = "kl-f16"
    """Says which codec a saved configuration is of."""
    image_channels: int = 3
    """Channels of an image; a radiograph is repeated on all of them."""
    base_channels: int = 128
    """Width of the convolutions at full resolution."""
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    """Width at each level as a multiple of `base_channels`; each level but the last halves the resolution."""
    num_blocks: int = 2
    """Residual blocks a level (one more in the decoder)."""
    attention_levels: tuple[int, ...] = (4,)
    """Levels (0 = full resolution) whose blocks have attention."""
    latent_channels: int = 16
    """Channels of z."""
    norm_groups: int = 32
    """Groups of every GroupNorm."""
    scale: float = 0.238092
    """The model's latent is scale * (z - shift)."""
    shift: float = -0.201906
    """See `scale`."""


class NoCodecConfig(Config):
    """Stands where converted weights came without an image codec."""

    kind: Literal["none"] = "none"
    """Says which codec a saved configuration is of."""


class ImageCodec(nn.Module, ABC):
    """A variational autoencoder whose scaled latents the model draws.

    The model's latent is scale * (z - shift), z being what the encoder's posterior gives.
    """

    config: FoldedVAEConfig | KLF16Config | NoCodecConfig
    scale_C: Tensor
    shift_C: Tensor

    @property
    @abstractmethod
    def channels(self) -> int:
        """Image channels wanted and given (1 or 3)."""

    @abstractmethod
    def moments(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in [-1, 1], sides multiples of 16 -> mean and log-variance of z, each [B, 16, h, w], unscaled."""

    @abstractmethod
    def decode(self, latent_BChw: Tensor) -> Tensor:
        """Scaled latents -> pixels, about [-1, 1], [B, channels, 16 h, 16 w]."""

    def scaled(self, z_BChw: Tensor) -> Tensor:
        """scale * (z - shift): the encoder's space -> the model's."""
        return (z_BChw - self.shift_C[:, None, None]) * self.scale_C[:, None, None]

    def unscaled(self, latent_BChw: Tensor) -> Tensor:
        """latent / scale + shift: the model's space -> the decoder's."""
        return latent_BChw / self.scale_C[:, None, None] + self.shift_C[:, None, None]


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.silu(self.first(functional.silu(self.norm(x)))))


class FoldedVAE(ImageCodec):
    """Pixel-unshuffle by 4, convolutions at 1/4 and 1/8 of the resolution, 4 channels there, folded 2x2: 16 at 1/16.

    `scale_C` and `shift_C` are buffers, one entry a channel: set them from the training latents' statistics with
    `set_statistics`.
    """

    def __init__(self, config: FoldedVAEConfig) -> None:
        super().__init__()
        self.config = config
        fine, coarse, count = config.fine_channels, config.coarse_channels, config.num_blocks
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(16, fine, 3, padding=1),
            *(_ResidualBlock(fine) for _ in range(count)),
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * fine, coarse, 1),
            *(_ResidualBlock(coarse) for _ in range(count)),
            nn.GroupNorm(8, coarse),
            nn.SiLU(),
            nn.Conv2d(coarse, 8, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.PixelShuffle(2),
            nn.Conv2d(4, coarse, 3, padding=1),
            *(_ResidualBlock(coarse) for _ in range(count)),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(_ResidualBlock(fine) for _ in range(count)),
            nn.GroupNorm(8, fine),
            nn.SiLU(),
            nn.Conv2d(fine, 16, 3, padding=1),
            nn.PixelShuffle(4),
        )
        self.register_buffer("scale_C", torch.ones(16))
        self.register_buffer("shift_C", torch.zeros(16))

    @classmethod
    def build(cls, config: FoldedVAEConfig, seed: int) -> "FoldedVAE":
        """A freshly initialised codec, the same for the same seed."""
        with torch.random.fork_rng(devices=[]):
            codec = cls(config)
        initialise(codec, torch.Generator().manual_seed(seed), deviation=0.02)
        with torch.no_grad():
            for part in codec.modules():
                if isinstance(part, _ResidualBlock):
                    part.second.weight *= 0.1
            for last in (codec.encoder[-1], codec.decoder[-2]):
                cast(nn.Conv2d, last).weight.mul_(0.3)
        return codec

    @property
    def channels(self) -> int:
        """One: radiographs are grey."""
        return 1

    def moments(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each [B, 16, h, w]."""
        _check_pixels(pixels_BCSS, self.channels)
        mean, logvar = self.encoder(pixels_BCSS).chunk(2, dim=1)
        return functional.pixel_unshuffle(mean, 2), functional.pixel_unshuffle(logvar, 2).clamp(-30, 20)

    def decode(self, latent_BChw: Tensor) -> Tensor:
        """Scaled latents -> pixels [B, 1, 16 h, 16 w]."""
        return self.decoder(self.unscaled(latent_BChw))

    @torch.no_grad()
    def set_statistics(self, mean_C: Tensor, deviation_C: Tensor) -> None:
        """Make scaled latents zero-mean and unit-variance, given the statistics of z over training images."""
        self.shift_C.copy_(mean_C)
        self.scale_C.copy_(1 / deviation_C.clamp_min(1e-6))


class KLF16(ImageCodec):
    """The released kl-f16 shape on diffusers' `AutoencoderKL`, with UniX's scale and shift."""

    def __init__(self, config: KLF16Config) -> None:
        super().__init__()
        self.config = config
        self.image_channels = config.image_channels
        levels = len(config.channel_multipliers)
        attention = [level in config.attention_levels for level in range(levels)]
        build = cast(Any, AutoencoderKL)  # diffusers annotates tuples of any length as tuples of one
        self.network = build(
            in_channels=config.image_channels,
            out_channels=config.image_channels,
            down_block_types=tuple("AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention),
            up_block_types=tuple("AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)),
            block_out_channels=tuple(config.base_channels * factor for factor in config.channel_multipliers),
            layers_per_block=config.num_blocks,
            latent_channels=config.latent_channels,
            norm_num_groups=config.norm_groups,
        )
        ones = torch.ones(config.latent_channels)
        self.register_buffer("scale_C", config.scale * ones, persistent=False)
        self.register_buffer("shift_C", config.shift * ones, persistent=False)

    @property
    def channels(self) -> int:
        """Image channels."""
        return self.image_channels

    def moments(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z, each [B, C, h, w]."""
        _check_pixels(pixels_BCSS, self.channels)
        mean, logvar = self.network._encode(pixels_BCSS).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, latent_BChw: Tensor) -> Tensor:
        """Scaled latents -> pixels."""
        return self.network.decode(self.unscaled(latent_BChw)).sample


class NoCodec(ImageCodec):
    """The codec of weights that came without one: whoever needs it is told so."""

    def __init__(self, config: NoCodecConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def channels(self) -> int:
        """One: radiographs are grey."""
        return 1

    def moments(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """Raises ConfigError."""
        raise self._missing()

    def decode(self, latent_BChw: Tensor) -> Tensor:
        """Raises ConfigError."""
        raise self._missing()

    def _missing(self) -> ConfigError:
        return ConfigError(
            "these weights came without an image autoencoder: convert one with `unix convert kl-f16 native`, and name "
            "its folder as generation.autoencoder in training, or copy its vae.* beside model.*"
        )


def sample_posterior(mean_BChw: Tensor, logvar_BChw: Tensor, noise_BChw: Tensor) -> Tensor:
    """z = mean + exp(logvar / 2) * noise."""
    return mean_BChw + (0.5 * logvar_BChw).exp() * noise_BChw


def _check_pixels(pixels_BCSS: Tensor, channels: int) -> None:
    _, given, height, width = pixels_BCSS.shape
    if given != channels or height % DOWNSAMPLING or width % DOWNSAMPLING:
        raise ConfigError(
            f"the codec reads {channels}-channel images with sides in multiples of {DOWNSAMPLING}, "
            f"not {given} x {height} x {width}"
        )
