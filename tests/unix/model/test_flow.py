"""Identities of the flow."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.model import flow

times = st.floats(0, 1, allow_nan=False)
shifts = st.floats(0.2, 5)


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    clean, noise = torch.randn(2, 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    return clean, noise


def test_the_path_runs_from_clean_to_noise() -> None:
    clean, noise = pair()
    ends = flow.interpolate(clean, noise, torch.tensor([0.0, 1.0, 0.25]))
    torch.testing.assert_close(ends[0], clean[0])
    torch.testing.assert_close(ends[1], noise[1])
    torch.testing.assert_close(ends[2], 0.75 * clean[2] + 0.25 * noise[2])


@settings(deadline=None)
@given(start=times, end=times)
def test_one_step_along_the_true_velocity_is_exact(start: float, end: float) -> None:
    clean, noise = pair()
    at_start, at_end = (flow.interpolate(clean, noise, torch.full((3,), time)) for time in (start, end))
    stepped = flow.euler_step(at_start, flow.velocity_target(clean, noise), start, end)
    torch.testing.assert_close(stepped, at_end, atol=1e-5, rtol=1e-5)


@settings(deadline=None)
@given(time=times, shift=shifts)
def test_shifting_back_undoes_a_shift(time: float, shift: float) -> None:
    there = flow.shift_time(torch.tensor(time, dtype=torch.float64), shift)
    assert 0 <= float(there) <= 1 + 1e-12
    torch.testing.assert_close(flow.shift_time(there, 1 / shift), torch.tensor(time, dtype=torch.float64))


def test_sampling_times_fall_from_one_to_zero() -> None:
    plain, shifted = flow.sampling_times(10), flow.sampling_times(10, 3.0)
    for series in (plain, shifted):
        assert len(series) == 11 and float(series[0]) == 1 and float(series[-1]) == 0
        assert bool((series[:-1] > series[1:]).all())
    assert bool((shifted[1:-1] > plain[1:-1]).all())
