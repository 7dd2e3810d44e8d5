"""AdamW over the trainable parameters: its learning-rate schedule, clipping, an optional moving average of weights."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from unix.config import Config


class OptimizerConfig(Config):
    """AdamW and its schedule: linear warm-up, then constant, then an optional linear decay to zero."""

    learning_rate: float
    warmup_steps: int = 0
    decay_steps: int = 0
    """Length of a linear decay to zero at the end of the run; 0 keeps the rate constant, as Table 1 does."""
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-15
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    average_decay: float | None = None
    """Decay of a moving average of the weights, which is what a checkpoint then publishes; None = no average."""


def learning_rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """The rate of optimizer step `step` (counted from 0) of a run of `steps`."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = min(1.0, (steps - step) / config.decay_steps) if config.decay_steps else 1.0
    return config.learning_rate * warmup * decay


def adamw(groups: Sequence[Sequence[nn.Parameter]], config: OptimizerConfig) -> torch.optim.AdamW:
    """torch's fused AdamW, with moments from the beginning.

    Made in the first step, as torch does, they would lie where that step's activations were, and leave holes between
    them that no activation fits into: a tenth of the memory of a small model.
    """
    optimizer = torch.optim.AdamW(
        [{"params": list(group)} for group in groups],
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=True,
    )
    for parameter in (parameter for group in groups for parameter in group):
        optimizer.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }
    return optimizer


class Optimizer:
    """Owns everything that changes a weight: AdamW's moments, the schedule, the clip and the moving average."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], config: OptimizerConfig, steps: int) -> None:
        self.parameters = dict(parameters)
        self._config, self._steps = config, steps
        # torch's fused kernels take sharded or whole tensors, but not both at once
        sharded = {name for name, value in self.parameters.items() if isinstance(value, DTensor)}
        self._groups = [
            group for group in (sorted(sharded), [name for name in self.parameters if name not in sharded]) if group
        ]
        self._adamw = adamw([[self.parameters[name] for name in group] for group in self._groups], config)
        self._average: dict[str, Tensor] = {}
        if config.average_decay is not None:
            self._average = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def step(self, step: int, loss: float) -> tuple[float, float]:
        """Apply the gathered gradients as step `step` (from 0); returns (gradient norm before clipping, rate).

        Where the loss or the norm is not finite they are thrown away: weights, moments and average stay as they are.
        """
        norm = self._clip()
        rate = learning_rate_at(self._config, step, self._steps)
        if math.isfinite(norm) and math.isfinite(loss):
            for group in self._adamw.param_groups:
                group["lr"] = rate
            self._adamw.step()
            self._update_average(step)
        self._adamw.zero_grad(set_to_none=True)
        return norm, rate

    def _clip(self) -> float:
        """Scale all gradients to the configured norm at most; returns their norm before."""
        groups = [[self.parameters[name] for name in group] for group in self._groups]
        norms = [nn.utils.get_total_norm([value.grad for value in group if value.grad is not None]) for group in groups]
        whole = [norm.full_tensor() if isinstance(norm, DTensor) else norm for norm in norms]
        total = whole[0] if len(whole) == 1 else torch.stack(whole).norm()
        for group in groups:
            nn.utils.clip_grads_with_norm_(group, self._config.gradient_clip, total)
        return float(total)

    @contextmanager
    def published(self) -> Iterator[None]:
        """While open, the parameters hold what a checkpoint publishes: the moving average where there is one."""
        raw = {name: self.parameters[name].detach().clone() for name in self._average}
        self._write(self._average)
        try:
            yield
        finally:
            self._write(raw)

    def publish(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A model's tensors as a checkpoint publishes them: with the moving average in place of what it averages."""
        return {name: self._average.get(name, value) for name, value in tensors.items()}

    def settle(self) -> None:
        """Put what a checkpoint publishes into the parameters for good: the run is over."""
        self._write(self._average)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on bit for bit, by parameter name: raw weights, moments, average."""
        return {
            "weights": {name: value.detach() for name, value in self.parameters.items()},
            "moments": {name: self._adamw.state[value] for name, value in self.parameters.items()},
            "average": self._average,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        self._write(state["weights"])
        for name, value in self.parameters.items():
            self._adamw.state[value] = {key: item.to(value.device) for key, item in state["moments"][name].items()}
        self._average = {name: item.to(self.parameters[name].device) for name, item in state["average"].items()}

    @torch.no_grad()
    def _write(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in weights.items():
            self.parameters[name].copy_(value)

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        if not self._average:
            return
        # A young average would remember the initial weights: let it follow closely at first.
        decay = min(self._config.average_decay or 0.0, (1 + step) / (10 + step))
        for group in self._groups:
            averages = [self._average[name] for name in group]
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]: torch's only fused lerp
                averages, [self.parameters[name].detach() for name in group], 1.0 - decay
            )
