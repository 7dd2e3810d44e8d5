"""Seeded initial weights."""

import torch
from torch import nn

from unix.model.initialisation import initialise


def test_every_kind_of_parameter_gets_its_distribution() -> None:
    module = nn.ModuleList([nn.Linear(200, 100), nn.Embedding(100, 200), nn.LayerNorm(50), nn.Conv2d(32, 64, 3)])
    for value in module.parameters():
        nn.init.constant_(value, 7)
    module.requires_grad_(False)
    initialise(module, torch.Generator().manual_seed(0), 0.02)
    linear, embedding, norm, convolution = module
    assert abs(float(linear.weight.std()) - 0.02) < 0.001 and abs(float(embedding.weight.std()) - 0.02) < 0.001
    assert abs(float(convolution.weight.std()) - (2 / (32 * 9)) ** 0.5) < 0.003
    assert bool((norm.weight == 1).all())
    assert all(bool((part.bias == 0).all()) for part in (linear, norm, convolution))
