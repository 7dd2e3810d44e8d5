"""Rectified flow between clean latents (time 0) and noise (time 1); no networks here.

x_t = (1 - t) * clean + t * noise, with velocity dx_t / dt = noise - clean (the paper's eq. 2).
"""

import torch
from torch import Tensor


def shift_time(time: Tensor, shift: float) -> Tensor:
    """s t / (1 + (s - 1) t) for times of any shape in [0, 1]: moves them towards noise where s > 1."""
    return shift * time / (1 + (shift - 1) * time)


def interpolate(clean_BChw: Tensor, noise_BChw: Tensor, time_B: Tensor) -> Tensor:
    """x_t (BChw) of each sample at its own time in [0, 1]."""
    time = time_B[:, None, None, None]
    return (1 - time) * clean_BChw + time * noise_BChw


def velocity_target(clean_BChw: Tensor, noise_BChw: Tensor) -> Tensor:
    """dx_t / dt (BChw), which the network should predict."""
    return noise_BChw - clean_BChw


def sampling_times(num_steps: int, shift: float = 1.0) -> Tensor:
    """The `num_steps` + 1 times, float32, from 1 down to 0 between which `num_steps` Euler steps go."""
    return shift_time(torch.linspace(1, 0, num_steps + 1), shift)


def euler_step(noised: Tensor, velocity: Tensor, time: float, next_time: float) -> Tensor:
    """Follow the velocity, of `noised`'s shape, from `time` to the smaller `next_time`."""
    return noised - velocity * (time - next_time)
