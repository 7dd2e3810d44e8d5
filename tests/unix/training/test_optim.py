"""The optimizer: torch's AdamW, whose moments are there before the first step."""

import torch
from torch import nn

from unix.training.optim import OptimizerConfig, adamw


def test_moments_from_the_beginning_change_no_step() -> None:
    config = OptimizerConfig(learning_rate=1e-2, weight_decay=0.1)
    start, *gradients = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizer = adamw([[ours]], config)
    lazy = torch.optim.AdamW([theirs], lr=1e-2, betas=config.betas, eps=config.eps, weight_decay=0.1, fused=True)
    assert not optimizer.state[ours]["exp_avg"].any()
    assert not lazy.state[theirs]
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        lazy.step()
    assert torch.equal(ours, theirs)
    for name, value in lazy.state[theirs].items():
        assert torch.equal(optimizer.state[ours][name], value)
