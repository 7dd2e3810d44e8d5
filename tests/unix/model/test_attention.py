"""One attention over any keys, grouped heads included."""

import pytest
import torch

from unix.model.attention import BranchLayer, KeyValue, attend


def test_grouped_heads_share_keys_and_values() -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, 4, 3, 8, generator=generator)
    key, value = torch.randn(2, 2, 2, 5, 8, generator=generator)
    mask = torch.rand(2, 1, 1, 5, generator=generator) > 0.4
    mask[..., 0] = True
    out = attend(query, KeyValue(key, value), mask)
    assert out.shape == (2, 3, 32)
    for head in range(4):
        score = query[:, head] @ key[:, head // 2].transpose(1, 2) / 8**0.5
        weight = score.masked_fill(~mask[:, 0], -torch.inf).softmax(-1)
        torch.testing.assert_close(out[..., head * 8 : head * 8 + 8], weight @ value[:, head // 2])


def test_hidden_keys_have_no_influence() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 4, 8, generator=generator)
    mask = torch.tensor([True, True, False, True])[None, None, None]
    before = attend(query, KeyValue(key, value), mask)
    key[:, :, 2], value[:, :, 2] = 1e3, -1e3
    assert torch.equal(attend(query, KeyValue(key, value), mask), before)


@pytest.mark.parametrize("mask", ["causal", "padding"])
@pytest.mark.parametrize("num_queries", [32, 40, 191, 192])
def test_every_number_of_queries_gives_the_same_values_and_gradients(num_queries: int, mask: str) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, length, 8, generator=generator, requires_grad=True)
        for heads, length in ((4, num_queries), (2, num_queries + 5), (2, num_queries + 5))
    )
    if mask == "causal":
        visible = torch.ones(num_queries, num_queries + 5, dtype=torch.bool).tril(5)
    else:
        visible = (torch.arange(num_queries + 5) != torch.tensor([[3], [7]]))[:, None, None]
    out = attend(query, KeyValue(key, value), visible)
    ours = torch.autograd.grad(out.square().mean(), (query, key, value))
    wide = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    keys, values = (tensor.repeat_interleave(2, dim=1) for tensor in wide[1:])
    score = torch.einsum("bhqd,bhkd->bhqk", wide[0], keys) / 8**0.5
    expected = torch.einsum("bhqk,bhkd->bqhd", score.masked_fill(~visible, -torch.inf).softmax(-1), values).flatten(2)
    theirs = torch.autograd.grad(expected.square().mean(), wide)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-6)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.double(), right, rtol=1e-3, atol=1e-7)


def test_the_residual_stays_in_float32_under_autocast() -> None:
    layer = BranchLayer(16, 24, 2, 2, 8, 1e-6)
    hidden, attended = torch.randn(2, 1, 3, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        out = layer.finish(hidden, attended)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer.finish(hidden, attended), rtol=0.02, atol=0.02)
