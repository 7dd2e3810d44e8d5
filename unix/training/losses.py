"""The losses, as named terms. Each is a sum over this micro-batch divided by a count over the whole global batch."""

from typing import NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor


class UnderstandingLosses(NamedTuple):
    """Stage 1 (eq. 1)."""

    loss: Tensor
    cross_entropy: Tensor


class GenerationLosses(NamedTuple):
    """Stages 2 and 3 (eq. 2), with REPA's term where the stage has one."""

    loss: Tensor
    flow: Tensor
    alignment: Tensor


def understanding_losses(logits_NV: Tensor, targets_N: Tensor, num_targets: float) -> UnderstandingLosses:
    """Cross entropy summed in float32 over N targets, divided by the global batch's `num_targets`."""
    cross_entropy = functional.cross_entropy(logits_NV.float(), targets_N, reduction="sum") / num_targets
    return UnderstandingLosses(cross_entropy, cross_entropy.detach())


def generation_losses(
    velocity_BChw: Tensor, target_BChw: Tensor, alignment: Tensor | None, alignment_weight: float, num_samples: float
) -> GenerationLosses:
    """Mean squared error of the velocity plus weighted alignment.

    `alignment` is a mean over this micro-batch's samples; both terms are means per sample over the global batch's
    `num_samples`.
    """
    share = velocity_BChw.shape[0] / num_samples
    flow = functional.mse_loss(velocity_BChw.float(), target_BChw) * share
    aligned = torch.zeros_like(flow) if alignment is None else alignment * share
    return GenerationLosses(flow + alignment_weight * aligned, flow.detach(), aligned.detach())
