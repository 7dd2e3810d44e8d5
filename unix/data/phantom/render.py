"""Draws a synthetic chest radiograph from findings: smooth fields on a coordinate grid, then noise and exposure.

Coordinates: x and y from -1 to 1 over the film's short side before the patient is shifted and tilted, y down, as seen
on the image; the patient's left is at x > 0. Brightness 0 is air, 1 is bone or metal. All fields are float32 [H, W].
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unix.data.phantom import anatomy
from unix.data.phantom.draws import generator
from unix.data.phantom.findings import Finding
from unix.data.phantom.shapes import Field

Pixels = NDArray[np.uint8]

_LARGEST_FIELD = 768
"""Fields are computed up to this long side; larger radiographs are enlarged from it and grained at full size."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """How the detector saw the patient: position and size on the image, contrast and noise."""

    size: float
    shift_x: float
    shift_y: float
    tilt: float
    gamma: float
    gain: float
    offset: float
    grain: float


def render(
    seed: int, content: int, number: int, findings: tuple[Finding, ...], view_position: str, rows: int, columns: int
) -> Pixels:
    """The radiograph, uint8 [rows, columns], of view `number` of study `content`."""
    body = anatomy.draw_body(generator(seed, content, "body"), findings, view_position)
    rng = generator(seed, content, f"view {number}")
    exposure = _draw_exposure(rng, view_position)
    places = generator(seed, content, "places")
    scale = min(1.0, _LARGEST_FIELD / max(rows, columns))
    height, width = round(rows * scale), round(columns * scale)
    x, y = _grid(height, width, exposure)
    if view_position == "LATERAL":
        field = anatomy.lateral(x, y, body, findings, places)
    else:
        field = anatomy.frontal(x, y, body, findings, places)
    field += _cloud(rng, height, width, 9, 0.02)
    field = np.clip(field * exposure.gain + exposure.offset, 0.0, 1.0) ** exposure.gamma
    if scale < 1.0:
        field = np.asarray(Image.fromarray(field).resize((columns, rows), Image.Resampling.BICUBIC))
    grain = rng.standard_normal((rows, columns), dtype=np.float32)
    return np.clip((field + exposure.grain * grain) * 255.0, 0.0, 255.0).astype(np.uint8)


def _draw_exposure(rng: np.random.Generator, view_position: str) -> Exposure:
    portable = view_position == "AP"
    wander = 1.5 if portable else 1.0
    return Exposure(
        size=float(rng.uniform(0.88, 1.02)),
        shift_x=float(rng.uniform(-0.05, 0.05) * wander),
        shift_y=float(rng.uniform(-0.06, 0.06)),
        tilt=float(rng.uniform(-0.035, 0.035) * wander),
        gamma=float(rng.uniform(0.85, 1.2)),
        gain=float(rng.uniform(0.9, 1.08)),
        offset=float(rng.uniform(-0.02, 0.04)),
        grain=float(rng.uniform(0.008, 0.022)),
    )


def _grid(height: int, width: int, exposure: Exposure) -> tuple[Field, Field]:
    # The short side spans the body: a landscape film shows more air beside it, a portrait film more of the abdomen.
    half = 0.5 * min(height * 1.08, width) * exposure.size
    rows = (np.arange(height, dtype=np.float32) + 0.5 - 0.5 * height) / half - exposure.shift_y
    columns = (np.arange(width, dtype=np.float32) + 0.5 - 0.5 * width) / half - exposure.shift_x
    cos, sin = math.cos(exposure.tilt), math.sin(exposure.tilt)
    x = columns[None, :] * cos + rows[:, None] * sin
    y = rows[:, None] * cos - columns[None, :] * sin
    return x, y


def _cloud(rng: np.random.Generator, height: int, width: int, cells: int, amplitude: float) -> Field:
    """Smooth noise of about `cells` bumps along each side."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32) * amplitude
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
