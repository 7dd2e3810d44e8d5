"""Seeded initial weights, drawn in the order of the modules from one explicit generator."""

import torch
from torch import nn


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator, deviation: float) -> None:
    """Fill every parameter of `module`: matrices and embeddings normal(0, deviation), biases 0, norm weights 1.

    Convolutions are He-initialised instead, since their fan-in, unlike a transformer's width, is small and known.
    """
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            part.weight.normal_(0, deviation, generator=generator)
        elif isinstance(part, nn.Conv2d):
            part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=generator)
        elif isinstance(getattr(part, "weight", None), nn.Parameter):
            nn.init.ones_(part.weight)  # pyright: ignore[reportArgumentType]
        if isinstance(getattr(part, "bias", None), nn.Parameter):
            nn.init.zeros_(part.bias)  # pyright: ignore[reportArgumentType]
