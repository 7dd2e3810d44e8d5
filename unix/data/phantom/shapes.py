"""Soft-edged shapes on a coordinate grid; each returns float32 [H, W] in [0, 1]."""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating[Any]]
"""Pixels on a grid, float32 [H, W] as used here."""


def edge(distance: Field, softness: float) -> Field:
    """1 where `distance` is well above 0, 0 well below; the step is about `softness` wide."""
    return np.clip(distance * np.float32(0.5 / softness) + np.float32(0.5), 0.0, 1.0)


def band(distance: Field, half_width: float, softness: float) -> Field:
    """A strip of the given half width around distance 0."""
    return edge(half_width - np.abs(distance), softness)


def ellipse(x: Field, y: Field, radius_x: float, radius_y: float, softness: float) -> Field:
    """An ellipse around the origin; `softness` is relative to its radius."""
    radius = np.sqrt((x * np.float32(1 / radius_x)) ** 2 + (y * np.float32(1 / radius_y)) ** 2)
    return edge(1.0 - radius, 2 * softness)


def blob(x: Field, y: Field, radius_x: float, radius_y: float) -> Field:
    """A Gaussian hill around the origin."""
    return np.exp(-((x * np.float32(1 / radius_x)) ** 2) - (y * np.float32(1 / radius_y)) ** 2)


def line(x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], half_width: float) -> Field:
    """A straight stroke with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    distance = np.sqrt((x - start[0] - along * dx) ** 2 + (y - start[1] - along * dy) ** 2)
    return edge(half_width - distance, half_width * 0.5)


def polyline(x: Field, y: Field, points: list[tuple[float, float]], half_width: float) -> Field:
    """Strokes through the points."""
    stroke = line(x, y, points[0], points[1], half_width)
    for start, end in pairwise(points[1:]):
        stroke = np.maximum(stroke, line(x, y, start, end, half_width))
    return stroke
