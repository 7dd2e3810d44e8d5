"""Layers against their formulas in float64."""

import math

import pytest
import torch
from torch.nn import functional

from unix.model.layers import Linear, RMSNorm, Rotary, SwiGLU, TimeEmbedding, position_table


def test_rms_norm_follows_its_formula() -> None:
    norm = RMSNorm(8, 1e-6)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    wide = x.double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight.double()
    torch.testing.assert_close(norm(x).double(), expected, rtol=1e-5, atol=1e-6)


def test_rms_norm_computes_in_float32_and_keeps_the_dtype() -> None:
    norm = RMSNorm(8, 1e-6).bfloat16()
    x = torch.full((1, 8), 300.0, dtype=torch.bfloat16)
    out = norm(x)
    assert out.dtype == torch.bfloat16
    assert out.tolist() == [[1.0] * 8]


@pytest.mark.parametrize("num_rows", [1, 9, 63, 64])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_multiplies_any_number_of_rows(num_rows: int, bias: bool) -> None:
    linear = Linear(6, 4, bias=bias)
    x = torch.randn(1, num_rows, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = linear(x)
    assert out.is_contiguous()  # whoever reshapes it into heads reads it row by row
    leaves = (x, *linear.parameters())
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = functional.linear(*wide)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-6)
    ours, theirs = torch.autograd.grad(out.square().sum(), leaves), torch.autograd.grad(expected.square().sum(), wide)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", [("x",), ("x", "gate", "up", "down"), ("up",)])
def test_swiglu_has_the_gradients_of_its_formula(trained: tuple[str, ...]) -> None:
    mlp = SwiGLU(8, 12).requires_grad_(False)
    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    leaves = {"x": x, "gate": mlp.gate.weight, "up": mlp.up.weight, "down": mlp.down.weight}
    wide = {name: leaf.detach().double() for name, leaf in leaves.items()}
    for name in trained:
        leaves[name].requires_grad_()
        wide[name].requires_grad_()
    expected = (functional.silu(wide["x"] @ wide["gate"].T) * (wide["x"] @ wide["up"].T)) @ wide["down"].T
    ours = torch.autograd.grad(mlp(x).square().sum(), [leaves[name] for name in trained])
    theirs = torch.autograd.grad(expected.square().sum(), [wide[name] for name in trained])
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-4, atol=1e-6)


def test_swiglu_gates_with_silu() -> None:
    mlp = SwiGLU(4, 6)
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    expected = (functional.silu(x @ mlp.gate.weight.T) * (x @ mlp.up.weight.T)) @ mlp.down.weight.T
    torch.testing.assert_close(mlp(x), expected)


def test_rotary_scores_depend_on_differences_only() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator)

    def score(query_position: int, key_position: int) -> float:
        turned_query = Rotary(torch.tensor([query_position]), 16, 10_000.0)(query)
        turned_key = Rotary(torch.tensor([key_position]), 16, 10_000.0)(key)
        return float((turned_query * turned_key).sum())

    assert math.isclose(score(7, 3), score(0, -4), abs_tol=1e-5)
    assert len({round(score(7, place), 2) for place in (7, 5, 1)}) == 3


def test_rotary_at_zero_is_the_identity() -> None:
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Rotary(torch.zeros(5, dtype=torch.long), 8, 10_000.0)(x), x)


def test_rotary_takes_positions_per_sample() -> None:
    x = torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    positions = torch.tensor([[0, 1, 2, 3], [-4, -3, -2, -1]])
    together = Rotary(positions, 8, 10_000.0)(x)
    for row in range(2):
        torch.testing.assert_close(Rotary(positions[row], 8, 10_000.0)(x[row : row + 1]), together[row : row + 1])


def test_time_embedding_follows_its_formula() -> None:
    embedding = TimeEmbedding(4)
    time = 0.37
    frequency = [10_000 ** (-i / 128) for i in range(128)]
    waves = [math.cos(time * f) for f in frequency] + [math.sin(time * f) for f in frequency]
    expected = embedding.second(functional.silu(embedding.first(torch.tensor([waves]))))
    torch.testing.assert_close(embedding(torch.tensor([time])), expected)


def test_position_table_encodes_column_then_row() -> None:
    table = position_table(3, 5, 16).unflatten(0, (3, 5))
    frequency = torch.tensor([10_000.0 ** (-2 * i / 8) for i in range(4)])
    for row, column in ((0, 0), (2, 1), (1, 4)):
        parts = [torch.cat([(place * frequency).sin(), (place * frequency).cos()]) for place in (column, row)]
        torch.testing.assert_close(table[row, column], torch.cat(parts))


def test_small_grids_are_the_corner_of_large_ones() -> None:
    large = position_table(8, 8, 16).unflatten(0, (8, 8))
    assert torch.equal(position_table(3, 5, 16), large[:3, :5].reshape(15, 16))


def test_scaled_positions_are_those_of_the_coarse_grid() -> None:
    """Positions 2k and 2k + 1 of the fine grid lie a quarter of a coarse cell left and right of coarse position k."""
    fine = position_table(8, 8, 4, 0.5).unflatten(0, (8, 8))
    first_frequency = fine[0, :, 0]
    expected = torch.tensor([(index + 0.5) / 2 - 0.5 for index in range(8)]).sin()
    torch.testing.assert_close(first_frequency, expected)
