"""Geometry of the page's charts: numbers to SVG coordinates and path strings (pure; templates draw them)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 360.0, 200.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 10.0, 26.0
_MAX_POINTS = 240
_ROW, _GROUP_GAP = 15.0, 7.0
_CHARACTER = 5.6
"""Width of a label's character, about."""


@dataclass(frozen=True, slots=True)
class Series:
    """One named curve over optimizer steps."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Tick:
    """A labelled place on an axis, in SVG units."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """A drawn curve: the measured values, faint, and their moving mean."""

    name: str
    raw_path: str
    smooth_path: str
    last: str


@dataclass(frozen=True, slots=True)
class LineChart:
    """Everything a template needs to draw a line chart in a WIDTH x HEIGHT view box."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class Interval:
    """One value with its interval, to be drawn as a bar or a dot with a whisker; `series` picks its colour."""

    label: str
    value: float
    low: float
    high: float
    series: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where an interval lies, in SVG units."""

    interval: Interval
    y: float
    x: float
    x_low: float
    x_high: float
    begins_group: bool
    """Its label differs from the one above."""


@dataclass(frozen=True, slots=True)
class IntervalChart:
    """Values with intervals, one below the other on a common axis."""

    title: str
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    zero: float
    width: float
    height: float
    left: float
    right: float


def interval_chart(
    title: str, intervals: Sequence[Interval], width: float = 520.0, left: float = 190.0
) -> IntervalChart:
    """Place intervals on a common axis that takes in zero; neighbours with the same label stand closer together.

    The axis begins at `left`, or further right where a label needs the room.
    """
    left = max([left, *(_CHARACTER * len(one.label) + 2 * _GROUP_GAP for one in intervals)])
    edges = [edge for one in intervals for edge in (one.low, one.high, one.value) if math.isfinite(edge)]
    ticks = nice_ticks(min([0.0, *edges]), max([0.0, *edges]))
    right = width - 64.0

    def x(value: float) -> float:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return left + min(max(share, 0.0), 1.0) * (right - left)

    marks: list[Mark] = []
    y = 0.0
    for one in intervals:
        begins = not marks or marks[-1].interval.label != one.label
        y += _ROW + (_GROUP_GAP if begins and marks else 0.0)
        marks.append(Mark(one, y - _ROW / 2 + 4, x(one.value), x(one.low), x(one.high), begins))
    placed = tuple(Tick(x(value), f"{value:g}") for value in ticks)
    return IntervalChart(title, tuple(marks), placed, x(0.0), width, y + 30.0, left, right)


def line_chart(title: str, series: Sequence[Series]) -> LineChart:
    """Place several curves on common linear axes.

    The vertical axis ends at the 98th percentile of what is drawn, so that a first, huge loss does not flatten the
    rest; values beyond it are drawn at the edge. Values that are not finite are left out.
    """
    finite = [_finite(one) for one in series]
    finite = [one for one in finite if len(one[1])]
    if not finite:
        return LineChart(title, (), (), ())
    all_steps = np.concatenate([steps for _, steps, _ in finite])
    all_values = np.concatenate([values for _, _, values in finite])
    x_low, x_high = float(all_steps.min()), float(max(all_steps.max(), all_steps.min() + 1))
    y_ticks = nice_ticks(min(0.0, float(all_values.min())), float(np.percentile(all_values, 98)))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def x(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        share = (min(max(value, y_low), y_high) - y_low) / (y_high - y_low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def path(steps: NDArray[np.float64], values: NDArray[np.float64]) -> str:
        kept = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), _MAX_POINTS)).round().astype(int))
        points = zip(steps[kept].tolist(), values[kept].tolist(), strict=True)
        return "M" + "L".join(f"{x(step):.1f},{y(value):.1f}" for step, value in points)

    lines = tuple(
        Line(name, path(steps, values), path(steps, moving_mean(values)), f"{moving_mean(values)[-1]:.3g}")
        for name, steps, values in finite
    )
    x_ticks = tuple(Tick(x(value), f"{value:g}") for value in nice_ticks(x_low, x_high) if x_low <= value <= x_high)
    return LineChart(title, lines, x_ticks, tuple(Tick(y(value), f"{value:g}") for value in y_ticks))


def moving_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over a window of about a tenth of the curve around each point, cut off at the ends; same length."""
    half = len(values) // 20
    total = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(len(values))
    start, end = np.maximum(middle - half, 0), np.minimum(middle + half + 1, len(values))
    return (total[end] - total[start]) / (end - start)


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` steps of 1, 2 or 5 times a power of ten that cover [low, high]; at least two ticks.

    A range too narrow for float64 to hold distinct ticks in it is drawn as if it were one value.
    """
    narrow = high - low <= 1e-9 * max(abs(low), abs(high))
    span = max(abs(high), 1.0) if narrow else high - low
    rough = span / count
    exponent = math.floor(math.log10(rough))
    step = next(factor * 10.0**exponent for factor in (1, 2, 5, 10) if factor * 10.0**exponent >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [round(index * step, 12 - exponent) for index in range(first, max(last, first + 1) + 1)]


def _finite(series: Series) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    steps, values = np.asarray(series.steps, dtype=np.float64), np.asarray(series.values, dtype=np.float64)
    good = np.isfinite(values)
    return series.name, steps[good], values[good]
