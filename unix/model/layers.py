"""The small parts of the decoder: normalisation, rotary positions, gated MLP, time embedding, 2-D position table.

Shape legend: see `unix.batch`.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

TIME_CHANNELS = 256
"""Channels of the sinusoidal embedding of the flow time, before its MLP."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) in float32 over the last dimension, cast back, times a learned weight."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [..., width]; the dtype is kept."""
        if eager_on_cpu(x):
            return _RMSNormInFewPasses.apply(x, self.weight, self.epsilon)  # pyright: ignore[reportReturnType]: untyped
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * scale).to(x.dtype) * self.weight


class Linear(nn.Linear):
    """`nn.Linear`, which multiplies rows as columns where a CPU has only a few of them."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] -> [..., out_features]."""
        if not eager_on_cpu(input) or input.numel() // self.in_features not in _AS_COLUMNS:
            return super().forward(input)
        out = (self.weight @ input.flatten(0, -2).T).T.contiguous()
        return (out if self.bias is None else out + self.bias).unflatten(0, input.shape[:-1])


_AS_COLUMNS = range(9, 64)
"""Numbers of rows for which columns take a quarter (16 rows) to a half of the time; fewer or more gain nothing."""


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), no biases."""

    def __init__(self, width: int, intermediate: int) -> None:
        super().__init__()
        self.gate = Linear(width, intermediate, bias=False)
        self.up = Linear(width, intermediate, bias=False)
        self.down = Linear(intermediate, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., width]."""
        if eager_on_cpu(x) and torch.is_grad_enabled():
            return _SwiGLUInFewPasses.apply(x, self.gate.weight, self.up.weight, self.down.weight)  # pyright: ignore[reportReturnType]: untyped
        return self.down(functional.silu(self.gate(x)) * self.up(x))


def eager_on_cpu(x: Tensor) -> bool:
    """Whether `x` is float32 on a CPU, stays so, and no compiler is at work; compilers and GPUs have their own kernels.

    Where so, the hand-written derivatives below are used: between matrix multiplications that run at full speed, what
    such a formula costs is its passes over memory, of which automatic differentiation makes more than twice as many.
    """
    plain = not torch.compiler.is_compiling() and not torch.is_autocast_enabled("cpu")
    return plain and x.device.type == "cpu" and x.dtype == torch.float32


class _RMSNormInFewPasses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        scale = mean_square.add_(epsilon).rsqrt_()
        ctx.save_for_backward(x, scale, weight)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        # LayerNorm's derivative with the mean set to zero, in torch's one fused pass; its term for the mean is undone
        x, scale, weight = ctx.saved_tensors
        zero = torch.zeros_like(scale)
        grad_x, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, weight.shape, zero, scale, weight, weight, [True, True, False]
        )
        return grad_x.add_((grad @ weight).unsqueeze(-1).mul_(scale).div_(x.shape[-1])), grad_weight, None


class _SwiGLUInFewPasses(torch.autograd.Function):
    """SwiGLU that computes silu(gate) again in the backward pass rather than keep it, and there writes over its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_weight: Tensor, up_weight: Tensor, down_weight: Tensor) -> Tensor:
        gate, up = x @ gate_weight.T, x @ up_weight.T
        gated = functional.silu(gate).mul_(up)
        ctx.save_for_backward(x, gate, up, gated, gate_weight, up_weight, down_weight)
        return gated @ down_weight.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gate, up, gated, gate_weight, up_weight, down_weight = ctx.saved_tensors
        needs_x, needs_gate, needs_up, needs_down = ctx.needs_input_grad
        rows, gate, up, gated, grad_rows = (each.flatten(0, -2) for each in (x, gate, up, gated, grad))
        grad_gate = grad_rows @ down_weight
        grad_up = functional.silu(gate).mul_(grad_gate)
        grad_gate.mul_(up)
        torch.ops.aten.silu_backward.grad_input(grad_gate, gate, grad_input=grad_gate)
        return (
            (grad_gate @ gate_weight).addmm_(grad_up, up_weight).unflatten(0, grad.shape[:-1]) if needs_x else None,
            grad_gate.T @ rows if needs_gate else None,
            grad_up.T @ rows if needs_up else None,
            grad_rows.T @ gated if needs_down else None,
        )


class TimeEmbedding(nn.Module):
    """Flow time in [0, 1], not scaled up -> vector: [cos, sin] at 128 geometric frequencies, Linear-SiLU-Linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(TIME_CHANNELS, width)
        self.second = nn.Linear(width, width)

    def forward(self, time_B: Tensor) -> Tensor:
        """[B] -> [B, E]."""
        half = TIME_CHANNELS // 2
        frequency = 10000.0 ** (-torch.arange(half, device=time_B.device, dtype=torch.float32) / half)
        angle = time_B.float()[:, None] * frequency
        waves = torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.first.weight.dtype)
        return self.second(functional.silu(self.first(waves)))


class Rotary:
    """Rotation angles of some positions, ready to be applied to queries and keys (half-split convention)."""

    def __init__(self, position: Tensor, width: int, theta: float) -> None:
        """`position` [L] or [B, L]: any integers, since only differences matter; `width` is the head width D."""
        exponent = torch.arange(0, width, 2, device=position.device, dtype=torch.float32) / width
        angle = position.float()[..., None] * theta**-exponent
        if position.dim() == 2:
            angle = angle[:, None]
        self.cosine, self.sine = angle.cos(), angle.sin()

    def __call__(self, x_BHLD: Tensor) -> Tensor:
        """Rotate queries or keys [B, H, L, D]."""
        low, high = x_BHLD.chunk(2, dim=-1)
        cosine, sine = self.cosine.to(x_BHLD.dtype), self.sine.to(x_BHLD.dtype)
        turned = (torch.addcmul(low * cosine, high, sine, value=-1), torch.addcmul(high * cosine, low, sine))
        return torch.cat(turned, dim=-1)


@lru_cache(maxsize=32)
def position_table(rows: int, columns: int, width: int, scale: float = 1.0, device: str = "cpu") -> Tensor:
    """Fixed 2-D sin-cos positions of a grid, [rows * columns, width] float32, row-major.

    The first half of the channels encodes the column, the second the row; each half is [sin, cos] of the coordinate at
    frequencies 10000^(-2i / (width / 2)). With `scale` < 1 coordinates are those of a coarser grid of the same extent:
    (index + 0.5) * scale - 0.5. Computed in float64, then cast.
    """
    with torch.inference_mode(False):
        count = width // 4
        frequency = 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)

        def waves(length: int) -> Tensor:
            coordinate = torch.arange(length, dtype=torch.float64)
            if scale != 1.0:
                coordinate = (coordinate + 0.5) * scale - 0.5
            angle = coordinate[:, None] * frequency
            return torch.cat([angle.sin(), angle.cos()], dim=-1)

        column = waves(columns).expand(rows, columns, -1)
        row = waves(rows)[:, None].expand(rows, columns, -1)
        return torch.cat([column, row], dim=-1).reshape(rows * columns, width).float().to(device)
