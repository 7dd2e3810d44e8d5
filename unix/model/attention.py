"""Decoder layers with two sets of weights and one attention over both.

Each branch's tokens stay in a tensor of their own; only keys and values meet. `BranchLayer` is the part of a layer that
one branch owns; `DualLayer` holds both and runs them: `read` for the understanding branch alone (image block, then
causal text), `step` for one decoded token, `remember` for a caption's last layer, `draw` for a block of noised latents
over a caption.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from unix.model.layers import Linear, RMSNorm, Rotary, SwiGLU, eager_on_cpu


@dataclass(frozen=True)
class KeyValue:
    """Keys (normalised and rotated) and values of one layer, each [B, key-value heads, L, D]."""

    key: Tensor
    value: Tensor


def attend(query_BHLD: Tensor, kv: KeyValue, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Softmax attention with scale 1 / sqrt(D); query head h uses key-value head h // group. Returns [B, L, H * D].

    `mask` is boolean, True = may attend, broadcastable to [B, H, L, keys].
    """
    key, value = kv.key, kv.value
    group = query_BHLD.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    if mask is not None and eager_on_cpu(query_BHLD) and query_BHLD.shape[2] in _PLAINLY:
        bias = query_BHLD.new_zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        out = cast(Tensor, _PlainAttention.apply(query_BHLD, key, value, bias))
    else:
        out = functional.scaled_dot_product_attention(query_BHLD, key, value, attn_mask=mask, is_causal=causal)
    return out.transpose(1, 2).flatten(2)


_PLAINLY = range(33, 192)
"""Numbers of queries for which torch's fused kernel on a CPU takes 32 at a time (64 from 192 on), fetching all keys and
values anew for each: matrix products and a softmax take less than half of its time there, and keep the softmax for the
backward pass."""


class _PlainAttention(torch.autograd.Function):
    """Attention by matrix products; of each product the side is turned that multiplies quickest (a third of the time).

    What `bias` [.., L, keys] keeps from being seen has a probability of 0, and so a gradient of 0 without a mask.
    """

    @staticmethod
    def forward(ctx: Any, query_BHLD: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        heads = query_BHLD.shape[:2]
        query = (query_BHLD * query_BHLD.shape[-1] ** -0.5).flatten(0, 1)
        key, value = key.flatten(0, 1), value.flatten(0, 1)
        bias = bias.expand(*heads, query.shape[1], key.shape[1]).flatten(0, 1)
        probability = torch.baddbmm(bias, query, key.mT)
        torch.softmax(probability, dim=-1, out=probability)
        ctx.save_for_backward(query, key, value, probability)
        return (probability @ value).unflatten(0, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BHLD: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, probability = ctx.saved_tensors
        heads, grad = grad_BHLD.shape[:2], grad_BHLD.flatten(0, 1)
        grad_value = (grad.mT @ probability).mT
        grad_score = torch.ops.aten._softmax_backward_data(grad @ value.mT, probability, -1, probability.dtype)
        grad_query = (grad_score @ key).mul_(query.shape[-1] ** -0.5)
        grad_key = (query.mT @ grad_score).mT
        return grad_query.unflatten(0, heads), grad_key.unflatten(0, heads), grad_value.unflatten(0, heads), None


class BranchLayer(nn.Module):
    """One branch's weights in one decoder layer: norms, Q/K/V/O projections with QK-norm, gated MLP."""

    def __init__(
        self, width: int, intermediate: int, num_heads: int, num_key_value_heads: int, head_width: int, epsilon: float
    ) -> None:
        super().__init__()
        self.head_width = head_width
        self.attention_norm = RMSNorm(width, epsilon)
        self.query = Linear(width, num_heads * head_width)
        self.key = Linear(width, num_key_value_heads * head_width)
        self.value = Linear(width, num_key_value_heads * head_width)
        self.query_norm = RMSNorm(head_width, epsilon)
        self.key_norm = RMSNorm(head_width, epsilon)
        self.output = Linear(num_heads * head_width, width, bias=False)
        self.mlp_norm = RMSNorm(width, epsilon)
        self.mlp = SwiGLU(width, intermediate)

    def normalise(self, hidden: Tensor) -> Tensor:
        """The attention's input."""
        return self.attention_norm(hidden)

    def project_query(self, normed_BLE: Tensor) -> Tensor:
        """Normalised, unrotated queries [B, H, L, D]."""
        return self.query_norm(self._heads(self.query(normed_BLE))).transpose(1, 2)

    def project_key_value(self, normed_BLE: Tensor) -> KeyValue:
        """Normalised, unrotated keys, and values."""
        key = self.key_norm(self._heads(self.key(normed_BLE))).transpose(1, 2)
        return KeyValue(key, self._heads(self.value(normed_BLE)).transpose(1, 2))

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """Output projection and MLP, each with its residual; row-wise, so any leading shape will do."""
        hidden = _added(hidden, self.output(attended))
        return _added(hidden, self.mlp(self.mlp_norm(hidden)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_width))


def _added(hidden: Tensor, update: Tensor) -> Tensor:
    """hidden + update, written over `update` where that saves a pass: nobody else has it."""
    return update.add_(hidden) if eager_on_cpu(update) else hidden + update


class DualLayer(nn.Module):
    """A decoder layer: the understanding and the generation branch's weights around one attention."""

    def __init__(
        self, width: int, intermediate: int, num_heads: int, num_key_value_heads: int, head_width: int, epsilon: float
    ) -> None:
        super().__init__()
        sizes = (width, intermediate, num_heads, num_key_value_heads, head_width, epsilon)
        self.understanding = BranchLayer(*sizes)
        self.generation = BranchLayer(*sizes)

    def read(
        self,
        hidden_BLE: Tensor,
        num_image: int,
        rotary: Rotary,
        text_mask: Tensor | None,
        rows_BL: Tensor | None = None,
    ) -> tuple[Tensor, KeyValue]:
        """One layer of the understanding branch over `[image block | text]`.

        The first `num_image` positions (0 for a caption) see each other and carry rotary position 0, whose rotation is
        the identity; text sees the image and the text before it. `rotary` is for the text positions; `text_mask`
        [L_text, L] says the same as a mask and is needed only where there is an image.
        With `rows_BL` (boolean over text positions) only these rows go on, as [N, E]: the last layer's outputs matter
        only where there is a loss.
        """
        layer = self.understanding
        parts = (num_image, hidden_BLE.shape[1] - num_image)
        normed = layer.normalise(hidden_BLE)
        kv = layer.project_key_value(normed)
        key_image, key_text = kv.key.split(parts, dim=2)
        # head by head in memory, since attention reads its keys and values many times
        kv = KeyValue(torch.cat([key_image, rotary(key_text)], dim=2), kv.value.contiguous())
        if rows_BL is None:
            query_image, query_text = layer.project_query(normed).split(parts, dim=2)
            attended = attend(rotary(query_text), kv, text_mask, causal=num_image == 0)
            if num_image:
                image = KeyValue(kv.key[:, :, :num_image], kv.value[:, :, :num_image])
                attended = torch.cat([attend(query_image, image), attended], dim=1)
            return layer.finish(hidden_BLE, attended), kv
        query = rotary(layer.project_query(normed[:, num_image:]))
        text = attend(query, kv, text_mask, causal=num_image == 0)
        return layer.finish(hidden_BLE[:, num_image:][rows_BL], text[rows_BL]), kv

    def remember(self, hidden_BLE: Tensor, rotary: Rotary) -> KeyValue:
        """Keys and values of a caption alone: all that anybody asks of its last layer."""
        kv = self.understanding.project_key_value(self.understanding.normalise(hidden_BLE))
        return KeyValue(rotary(kv.key), kv.value)

    def step(self, hidden_B1E: Tensor, rotary: Rotary, past: KeyValue, column: int, mask: Tensor | None) -> Tensor:
        """One decoded token of the understanding branch; its key and value are written into `past` at `column`."""
        layer = self.understanding
        normed = layer.normalise(hidden_B1E)
        kv = layer.project_key_value(normed)
        past.key[:, :, column] = rotary(kv.key)[:, :, 0]
        past.value[:, :, column] = kv.value[:, :, 0]
        seen = KeyValue(past.key[:, :, : column + 1], past.value[:, :, : column + 1])
        return layer.finish(hidden_B1E, attend(rotary(layer.project_query(normed)), seen, mask))

    def draw(
        self,
        edges_B2E: Tensor,
        latents_BTE: Tensor,
        caption: KeyValue | None,
        mask: Tensor | None,
        freeze_understanding: bool,
        last: bool,
    ) -> tuple[Tensor, Tensor]:
        """One layer over `[boi] latents [eoi]`: all see each other and the caption.

        The begin- and end-of-image tokens (`edges`) use the understanding weights. The whole block shares one rotary
        position, counted as 0, so that nothing here is rotated. With `freeze_understanding` no gradient passes through
        the edges. After the `last` layer only the latents matter.
        """
        frozen = torch.no_grad if freeze_understanding else nullcontext
        with frozen():
            edges_normed = self.understanding.normalise(edges_B2E)
            edges_kv = self.understanding.project_key_value(edges_normed)
        latents_normed = self.generation.normalise(latents_BTE)
        latents_kv = self.generation.project_key_value(latents_normed)
        parts = ([caption] if caption is not None else []) + [edges_kv, latents_kv]
        kv = KeyValue(torch.cat([part.key for part in parts], dim=2), torch.cat([part.value for part in parts], dim=2))
        # two calls, since the frozen branch's two rows want no derivative, and one call would copy the many others
        attended = attend(self.generation.project_query(latents_normed), kv, mask)
        latents_BTE = self.generation.finish(latents_BTE, attended)
        if last:
            return edges_B2E, latents_BTE
        with frozen():
            attended = attend(self.understanding.project_query(edges_normed), kv, mask)
            return self.understanding.finish(edges_B2E, attended), latents_BTE
