"""What the model is fed: frozen batches of tensors. The only place where `unix.data` and `unix.model` meet.

Shape legend, used in names throughout `unix.model` and `unix.training`:
    B samples, C channels, S image side in pixels, T image tokens, L text positions,
    h, w latent rows and columns, H heads, D head width, E hidden width, V vocabulary
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


class _Movable:
    """Moves every tensor of a frozen batch at once."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`."""
        moved = {
            item.name: value.to(device, non_blocking=True)
            for item in fields(self)  # pyright: ignore[reportArgumentType]
            if isinstance(value := getattr(self, item.name), Tensor)
        }
        return replace(self, **moved)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


@dataclass(frozen=True)
class UnderstandingBatch(_Movable):
    """Images with the text that follows them, for the understanding branch (PARITY section 4, stage 1).

    A sample's sequence is `[boi] T image tokens [eoi]` and then `text_ids`: `[bos] prompt [eos] [bos] answer [eos]`,
    padded on the right. The causal mask keeps padding out of sight of what comes before it.
    """

    keys: tuple[str, ...]
    """Image ids, B of them."""
    pixels_BCSS: Tensor
    """float32, normalised as the vision tower wants it ((x / 255 - mean) / std), C = 3 identical channels."""
    text_ids_BL: Tensor
    """int64 token ids."""
    text_length_B: Tensor
    """int64 number of real positions of `text_ids_BL`."""
    target_ids_BL: Tensor
    """int64 next-token targets; IGNORED (-100) where a position bears no loss: only answers (bos included) do."""


@dataclass(frozen=True)
class GenerationBatch(_Movable):
    """Captions with the latents to be drawn, for the generation branch (PARITY section 4, stages 2 and 3).

    A sample's sequence is `[bos] caption [eos]` and then `[boi] h*w latents [eoi]`, the latter block bidirectional.
    A dropped caption has length 0 and its image block starts at rope position 0.
    """

    keys: tuple[str, ...]
    """Image ids, B of them."""
    caption_ids_BL: Tensor
    """int64 token ids with bos and eos, padded on the right."""
    caption_length_B: Tensor
    """int64 number of real positions; 0 = caption dropped."""
    latent_BChw: Tensor
    """float32 clean latents, scaled and shifted as the VAE's configuration says."""
    noise_BChw: Tensor
    """float32 standard normal noise."""
    time_B: Tensor
    """float32 in [0, 1]; 1 is pure noise."""
    alignment_BTE: Tensor | None = None
    """float32 frozen-encoder patch features for REPA (T = any square grid), or None where the stage has no REPA."""


IGNORED = -100
"""Target id of positions without a loss (torch's `ignore_index`)."""
