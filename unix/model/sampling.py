"""Latents from captions: Euler steps along the flow with classifier-free guidance."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from unix.config import Config
from unix.errors import ConfigError
from unix.model import flow
from unix.model.attention import KeyValue
from unix.model.dual_branch import CaptionPrefix, DualBranch

Renormalisation = Literal["none", "sample", "token", "text_token", "batch"]
"""Over what the guided velocity is shrunk back to the conditional one's norm: each sample, each token, each token
before image guidance, or (as the reference does, which couples the samples of a batch) the whole batch."""


class SamplerConfig(Config):
    """How latents are drawn."""

    num_steps: int = Field(default=50, ge=1)
    """Euler steps (the reference's `num_timesteps` - 1)."""
    guidance: float = 2.0
    """Classifier-free guidance on the caption: v_u + guidance * (v_c - v_u); 1 or less is none."""
    image_guidance: float = 1.0
    """The reference's second scale: v_c + image_guidance * (v - v_c) on the guided v; 1 or less is none."""
    interval: tuple[float, float] = (0.4, 1.0)
    """Guidance acts at (shifted) times t with interval[0] < t <= interval[1]."""
    renormalisation: Renormalisation = "sample"
    """Over what the guided velocity keeps the conditional one's norm."""
    renormalisation_floor: float = 0.0
    """Least factor of the renormalisation."""
    time_shift: float = 3.0
    """Shift of the times: more than 1 spends more steps near noise."""


@dataclass(frozen=True)
class SampledStep:
    """One Euler step of a batch: where it started and which velocities it saw."""

    time: float
    noised_BChw: Tensor
    conditional_BChw: Tensor
    unconditional_BChw: Tensor | None
    """None outside the guidance interval."""
    velocity_BChw: Tensor
    next_BChw: Tensor


def sample_latents(
    model: DualBranch,
    caption_ids: Sequence[Sequence[int]],
    grid: tuple[int, int],
    seeds: Sequence[int],
    config: SamplerConfig,
) -> Tensor:
    """Draw one latent per caption, [B, C, h, w] float32 in the codec's scaled space.

    Args:
        model: the model.
        caption_ids: token ids without bos and eos; an empty caption draws unconditionally.
        grid: latent rows and columns (pixels / 16).
        seeds: one per caption; an image depends on its own seed and caption only, not on what else is in the batch.
        config: steps, guidance, renormalisation.

    Raises:
        ConfigError: captions and seeds differ in number.
    """
    if len(seeds) != len(caption_ids):
        raise ConfigError(f"{len(caption_ids)} captions but {len(seeds)} seeds; give one seed per caption")
    latent = latent_noise(seeds, model.config.latent.channels, grid).to(model.latent_in.weight.device)
    for step in integrate(model, caption_ids, latent, config):
        latent = step.next_BChw
    return latent


def latent_noise(seeds: Sequence[int], channels: int, grid: tuple[int, int]) -> Tensor:
    """Standard normal noise [B, C, h, w] float32 on the CPU, each sample's from its own seed alone."""
    noise = [torch.randn(channels, *grid, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(noise)


@torch.inference_mode()
def integrate(
    model: DualBranch, caption_ids: Sequence[Sequence[int]], noise_BChw: Tensor, config: SamplerConfig
) -> Iterator[SampledStep]:
    """Follow the flow from noise to clean latents step by step; arguments as for `sample_latents`."""
    count = len(noise_BChw)
    conditional = _prefix(model, caption_ids, noise_BChw.device)
    both = _with_unconditional(conditional)
    times = flow.sampling_times(config.num_steps, config.time_shift)
    # compared as the float32 numbers that they are: 0.4 is not above an interval's lower end of 0.4
    inside = (times > config.interval[0]) & (times <= config.interval[1])
    noised = noise_BChw
    for (time, next_time), within in zip(pairwise(times.tolist()), inside.tolist(), strict=False):
        time_B = torch.full((count,), time, device=noised.device)
        guided = config.guidance > 1 and within
        if guided:
            predicted = model.velocity(torch.cat([noised, noised]), torch.cat([time_B, time_B]), both).velocity_BChw
            with_caption, without = predicted.float().chunk(2)
            velocity = guide(with_caption, without, config)
        else:
            velocity = with_caption = model.velocity(noised, time_B, conditional).velocity_BChw.float()
            without = None
        after = flow.euler_step(noised, velocity, time, next_time)
        yield SampledStep(time, noised, with_caption, without, velocity, after)
        noised = after


def guide(conditional_BChw: Tensor, unconditional_BChw: Tensor, config: SamplerConfig) -> Tensor:
    """Classifier-free guidance of two velocities, and its renormalisation: BChw, in the inputs' dtype."""
    guided = unconditional_BChw + config.guidance * (conditional_BChw - unconditional_BChw)
    if config.renormalisation == "text_token":
        guided = _renormalise(guided, conditional_BChw, config)
    if config.image_guidance > 1:
        guided = conditional_BChw + config.image_guidance * (guided - conditional_BChw)
    if config.renormalisation in ("sample", "token", "batch"):
        guided = _renormalise(guided, conditional_BChw, config)
    return guided


def _renormalise(guided: Tensor, conditional: Tensor, config: SamplerConfig) -> Tensor:
    over = {"sample": (1, 2, 3), "batch": (0, 1, 2, 3)}.get(config.renormalisation, (1,))
    wanted = conditional.square().sum(over, keepdim=True).sqrt()
    actual = guided.square().sum(over, keepdim=True).sqrt()
    return guided * (wanted / (actual + 1e-8)).clamp(config.renormalisation_floor, 1.0)


def _prefix(model: DualBranch, caption_ids: Sequence[Sequence[int]], device: torch.device) -> CaptionPrefix:
    tokens = model.config.tokens
    captions = [[tokens.bos, *caption, tokens.eos] if caption else [] for caption in caption_ids]
    longest = max(map(len, captions))
    padded = [caption + [tokens.eos] * (longest - len(caption)) for caption in captions]
    ids_BL = torch.tensor(padded, dtype=torch.long, device=device).reshape(len(captions), longest)
    return model.caption_prefix(ids_BL, torch.tensor([len(caption) for caption in captions], device=device))


def _with_unconditional(prefix: CaptionPrefix) -> CaptionPrefix:
    """The same captions followed by as many samples that see none."""
    layers = tuple(
        KeyValue(*(functional.pad(part, (0, 0) * 3 + (0, len(part))) for part in (kv.key, kv.value)))
        for kv in prefix.layers
    )
    if not layers:
        return prefix
    visible = prefix.visible_BL
    if visible is None:
        key = layers[0].key
        visible = torch.ones(len(key) // 2, key.shape[2], dtype=torch.bool, device=key.device)
    return CaptionPrefix(layers, torch.cat([visible, torch.zeros_like(visible)]))
