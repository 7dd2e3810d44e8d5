import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unix.evaluation import charts
from unix.evaluation.charts import Series

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


@given(numbers, numbers)
@example(-1e6, -999_999.9999999999)
@example(1.0000001e-6, 1.0000002e-6)
def test_ticks_cover_the_range_in_few_round_steps(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks = charts.nice_ticks(low, high)
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 8
    assert all(a < b for a, b in itertools.pairwise(ticks))


def test_curves_stay_inside_the_chart_and_skip_what_is_not_finite() -> None:
    values = [1000.0, *np.linspace(5, 1, 600), math.nan, math.inf]
    chart = charts.line_chart("stage", [Series("loss", list(range(len(values))), values)])
    (line,) = chart.lines
    points = [tuple(map(float, point.split(","))) for point in re.findall(r"[\d.]+,[\d.]+", line.raw_path)]
    assert 100 < len(points) <= 240
    assert all(chart.left <= x <= chart.right and chart.top <= y <= chart.bottom for x, y in points)
    assert len({y for _, y in points}) > 50, "one huge loss must not flatten the rest"


def test_an_empty_curve_draws_nothing() -> None:
    assert charts.line_chart("stage", [Series("loss", [1], [math.nan])]).lines == ()


@given(st.integers(1, 100))
def test_the_moving_mean_keeps_length_and_constants(length: int) -> None:
    np.testing.assert_allclose(charts.moving_mean(np.full(length, 2.5)), np.full(length, 2.5))
    ramp = np.arange(length, dtype=np.float64)
    assert charts.moving_mean(ramp)[length // 2] == pytest.approx(length // 2, abs=0.51)


def test_long_labels_have_room_before_the_axis() -> None:
    short, long = (charts.interval_chart("F1", [charts.Interval("a" * count, 0.5, 0.4, 0.6)]) for count in (5, 60))
    assert short.left < long.left < long.right
    assert long.marks[0].x > long.left
