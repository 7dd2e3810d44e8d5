"""One attention over any keys, grouped heads included."""

import torch

from unix.model.attention import KeyValue, attend


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
