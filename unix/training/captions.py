"""What the frozen understanding branch makes of captions, computed once: in stages 2 and 3 it never changes.

At tiny size the captions' pass costs more than all the rest of a step. Memory: 8 x layers x width bytes a token.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from unix.batch import GenerationBatch
from unix.model.attention import KeyValue
from unix.model.dual_branch import CaptionPrefix, DualBranch

_CAPTIONS_AT_ONCE = 64
"""Captions run in these fixed groups, so that their rounding, and with it a resumed run, is always the same."""


class RememberedCaptions:
    """Keys and values of every caption of a data set, by its token ids (bos and eos included)."""

    def __init__(self, model: DualBranch, captions: Iterable[tuple[int, ...]]) -> None:
        self._rows: dict[tuple[int, ...], Tensor] = {}
        ordered = sorted(set(captions), key=lambda ids: (len(ids), ids))
        device = model.embedding.weight.device
        for start in range(0, len(ordered), _CAPTIONS_AT_ONCE):
            group = ordered[start : start + _CAPTIONS_AT_ONCE]
            longest = len(group[-1])
            ids_BL = torch.tensor([[*ids, *[ids[-1]] * (longest - len(ids))] for ids in group], device=device)
            length_B = torch.tensor([len(ids) for ids in group], device=device)
            with torch.no_grad():
                prefix = model.caption_prefix(ids_BL, length_B)
            parts = torch.stack([part for kv in prefix.layers for part in (kv.key, kv.value)], dim=1)
            for ids, row in zip(group, parts, strict=True):
                self._rows[ids] = row[:, :, : len(ids)].clone()

    def of(self, batch: GenerationBatch) -> CaptionPrefix:
        """The batch's captions as its latents see them; equal to `DualBranch.caption_prefix` up to rounding.

        Raises:
            KeyError: a caption is not one of those remembered.
        """
        lengths = batch.caption_length_B.tolist()
        longest = max(lengths)
        if longest == 0:
            return CaptionPrefix((), None)
        rows = [
            self._rows[tuple(ids[:length])] if length else None
            for ids, length in zip(batch.caption_ids_BL.tolist(), lengths, strict=True)
        ]
        like = next(row for row in rows if row is not None)
        num_parts, num_heads, _, width = like.shape
        parts = like.new_zeros(len(rows), num_parts, num_heads, longest, width)
        for place, row in zip(parts, rows, strict=True):
            if row is not None:
                place[:, :, : row.shape[2]] = row
        layers = tuple(KeyValue(parts[:, index], parts[:, index + 1]) for index in range(0, num_parts, 2))
        visible_BL = torch.arange(longest, device=like.device) < batch.caption_length_B[:, None]
        return CaptionPrefix(layers, None if min(lengths) == longest else visible_BL)
