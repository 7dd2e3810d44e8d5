"""`torch.compile` gives what eager does; slow, since it builds C++."""

import shutil

import pytest
import torch

from unix.batch import GenerationBatch, UnderstandingBatch
from unix.model.dual_branch import DualBranch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),
]


def test_both_training_passes_compile(
    model: DualBranch, understanding_batch: UnderstandingBatch, generation_batch: GenerationBatch
) -> None:
    reading, drawing = torch.compile(model.understanding), torch.compile(model.generation)
    with torch.no_grad():
        logits = reading(understanding_batch).logits_NV
        torch.testing.assert_close(logits, model.understanding(understanding_batch).logits_NV, rtol=1e-4, atol=1e-4)
    velocity = model.generation(generation_batch).velocity_BChw
    velocity.square().mean().backward()
    expected = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad(set_to_none=True)
    compiled = drawing(generation_batch).velocity_BChw
    torch.testing.assert_close(compiled, velocity, rtol=1e-4, atol=1e-4)
    compiled.square().mean().backward()
    for name, value in model.named_parameters():
        assert (value.grad is None) == (name not in expected), name
        if value.grad is not None:
            torch.testing.assert_close(value.grad, expected[name], rtol=2e-3, atol=1e-4, msg=name)
