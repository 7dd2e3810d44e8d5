"""How the recorded implementation lays samples out: texts and images one after another, with masks and positions.

A text is `[bos] ids [eos]`, an image `[boi] tokens [eoi]`; rope positions restart in every sample.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.unix.model.recorded.formulas import Packed

TEXT, VISION, LATENT = 0, 1, 2


@dataclass(frozen=True)
class Split:
    """A text or an image block of a sample."""

    mode: str
    """`causal`, `full` or `noise`."""
    ids: list[int]
    """-1 where the token is none of text."""
    kinds: list[int]
    position: list[int]


@dataclass
class Layout:
    """Samples as sequences."""

    samples: list[list[Split]] = field(default_factory=list)

    def packed(self) -> Packed:
        """All samples in one sequence."""
        blocks = [self._attend(sample) for sample in self.samples]
        position = torch.tensor([p for sample in self.samples for split in sample for p in split.position])
        return Packed(position, self.kinds() == LATENT, torch.block_diag(*blocks).bool())

    def kinds(self) -> Tensor:
        return torch.tensor([kind for sample in self.samples for split in sample for kind in split.kinds])

    def ids(self) -> Tensor:
        return torch.tensor([token for sample in self.samples for split in sample for token in split.ids])

    def tensors(self) -> dict[str, Tensor]:
        """What a recording says about its layout."""
        kinds, ids = self.kinds(), self.ids()
        out = {
            "packed_text_ids": ids[kinds == TEXT],
            "packed_text_indexes": (kinds == TEXT).nonzero()[:, 0],
            "packed_position_ids": self.packed().position_L,
        }
        for index, sample in enumerate(self.samples):
            out[f"sample{index}.attend"] = self._attend(sample).bool()
            for name, of in (("position_ids", "position"), ("kind", "kinds"), ("token_ids", "ids")):
                out[f"sample{index}.{name}"] = torch.tensor([x for split in sample for x in getattr(split, of)])
        return out

    @staticmethod
    def _attend(sample: list[Split]) -> Tensor:
        """A split sees all earlier ones but noise, and itself: in order where it is text."""
        rows = []
        for query, split in enumerate(sample):
            columns = []
            for key, other in enumerate(sample):
                block = torch.zeros(len(split.ids), len(other.ids))
                if key < query and other.mode != "noise":
                    block += 1
                if key == query:
                    block = torch.ones_like(block).tril() if split.mode == "causal" else torch.ones_like(block)
                columns.append(block)
            rows.append(torch.cat(columns, dim=1))
        return torch.cat(rows)
