"""Measures a frontal phantom radiograph: heart width, brightness at the lung bases, darkness at the lungs' rims.

Nothing here knows what a study was meant to show. The chest is found on the image itself (its outline gives midline and
scale, the lung apices its height), so real, reconstructed and generated images are measured alike.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
_Values = NDArray[np.float32]

_SIZE = 96
"""Images are brought to this side first, so that measures do not depend on resolution."""
_INNER = 0.825
"""Inner chest wall as a share of the outline's half width."""
_APEX_ABOVE_CENTRE = 1.06
"""Apex above the middle of the film in units of the thorax's inner half width."""
_LUNG_HEIGHT = 1.80
"""Apex to diaphragm in units of the thorax's inner half width."""
_LEFT_SHARE = 0.61
"""Share of the heart's width that lies to the patient's left of the midline."""
_UNSEEN_RATIO = 0.5
"""Answer where fluid hides both borders of the heart: between a normal and an enlarged one."""
_AERATED = 0.8
"""Below this relative brightness a point at the base still holds air, hazy or not; fluid lies well above."""
_BESIDE_HEART = 0.68
"""Below this relative brightness a point is beside the heart rather than in it."""
_ACROSS = np.linspace(0.02, 1.0, 50, dtype=np.float32)
_DOWN = np.linspace(0.0, 1.1, 56, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Measures of one frontal image; left and right are the patient's.

    `heart_width_ratio` is heart width over inner thoracic width. `base_brightness` is that of the outer lung base on
    the image's own scale from aerated lung (0) to soft tissue (1); fluid is 1 and above. `rim_darkness` is how much
    darker the outermost lung is than soft tissue: 1 for black; air in the pleural space comes close to it, lung does
    not.
    """

    heart_width_ratio: float
    base_brightness_left: float
    base_brightness_right: float
    rim_darkness_left: float
    rim_darkness_right: float

    @property
    def base_brightness(self) -> float:
        """The brighter of both bases."""
        return max(self.base_brightness_left, self.base_brightness_right)

    @property
    def rim_darkness(self) -> float:
        """The darker of both rims."""
        return max(self.rim_darkness_left, self.rim_darkness_right)


def measure(image: Pixels) -> Geometry:
    """Measure a frontal radiograph, uint8 [H, W] (square with black padding, or not)."""
    values = _normalised(image)
    middle, half = _outline(values)
    inner = half * _INNER
    top = _apex_row(values, middle, inner)
    # Each half of the chest as a table: rows from the apex down, columns from the midline outwards.
    rows = top + _DOWN * inner * _LUNG_HEIGHT
    right = _sampled(values, rows, middle - _ACROSS * inner)
    left = _sampled(values, rows, middle + _ACROSS * inner)
    tissue = max(0.1, float(np.median(np.concatenate([left[_DOWN > 1.02], right[_DOWN > 1.02]]))))
    lungs = np.concatenate([_part(left, (0.35, 0.8), (0.15, 0.7)), _part(right, (0.35, 0.8), (0.15, 0.7))])
    air = float(np.percentile(lungs, 30))
    contrast = max(tissue - air, 0.08)
    dark_left, dark_right = left / tissue, right / tissue
    left, right = (left - air) / contrast, (right - air) / contrast
    return Geometry(
        heart_width_ratio=_heart_width(left, right),
        base_brightness_left=_base_brightness(left),
        base_brightness_right=_base_brightness(right),
        rim_darkness_left=_rim_darkness(dark_left),
        rim_darkness_right=_rim_darkness(dark_right),
    )


def _normalised(image: Pixels) -> _Values:
    height, width = image.shape
    side = max(height, width)
    square = np.zeros((side, side), np.uint8)
    row, column = (side - height) // 2, (side - width) // 2
    square[row : row + height, column : column + width] = image
    small = Image.fromarray(square).resize(
        (_SIZE, _SIZE), Image.Resampling.BOX if side > _SIZE else Image.Resampling.BILINEAR
    )
    values = np.asarray(small, np.float32)
    return values / max(float(np.percentile(values, 95)), 1.0)


def _content_rows(values: _Values) -> tuple[int, int]:
    """First and last row that show something; the rest is padding."""
    filled = np.flatnonzero(values.max(axis=1) > 0.3)
    return (int(filled[0]), int(filled[-1])) if filled.size else (0, _SIZE - 1)


def _outline(values: _Values) -> tuple[float, float]:
    """Column of the midline and half width of the chest's outline, in pixels, from the rows below the shoulders."""
    first, last = _content_rows(values)
    span = last - first
    lefts: list[int] = []
    rights: list[int] = []
    for row in range(first + round(0.50 * span), first + round(0.72 * span) + 1):
        columns = np.flatnonzero(values[row] > 0.33)
        if columns.size:
            lefts.append(int(columns[0]))
            rights.append(int(columns[-1]))
    if not lefts:
        return _SIZE / 2, _SIZE * 0.42
    start, stop = float(np.median(lefts)), float(np.median(rights))
    return (start + stop) / 2, max((stop - start + 1) / 2, 4.0)


def _apex_row(values: _Values, middle: float, inner: float) -> float:
    """Row of the lungs' apices: the steepest fall from shoulder to lung on either side, near where it must be."""
    expected = sum(_content_rows(values)) / 2 - _APEX_ABOVE_CENTRE * inner
    rows = np.arange(_SIZE, dtype=np.float32)
    step = max(round(inner * 0.12), 2)
    falls: list[_Values] = []
    for sign in (-1.0, 1.0):
        columns = middle + sign * inner * np.linspace(0.35, 0.58, 8, dtype=np.float32)
        profile = _sampled(values, rows, columns).mean(axis=1)
        falls.append(profile[: -2 * step] - profile[2 * step :])
    centres = rows[step:-step]
    # The fall is steepest a little below the apex itself, as the apex is round.
    apices = centres - 0.10 * inner
    near = np.abs(apices - expected) < 0.25 * inner
    fall = np.where(near, np.maximum(falls[0], falls[1]), -1.0)
    best = int(np.argmax(fall))
    return float(apices[best]) if fall[best] > 0.08 else expected


def _sampled(values: _Values, rows: _Values, columns: _Values) -> _Values:
    """Nearest values at the crossings of `rows` and `columns`, clipped to the image."""
    row = np.clip(np.rint(rows), 0, _SIZE - 1).astype(np.intp)
    column = np.clip(np.rint(columns), 0, _SIZE - 1).astype(np.intp)
    return values[row[:, None], column[None, :]]


def _part(half: _Values, across: tuple[float, float], down: tuple[float, float]) -> _Values:
    rows = (down[0] <= _DOWN) & (down[1] > _DOWN)
    columns = (across[0] <= _ACROSS) & (across[1] > _ACROSS)
    return half[rows][:, columns]


def _heart_width(left: _Values, right: _Values) -> float:
    """Heart width over thoracic width, from how far the bright middle reaches to either side."""
    reaches = [_heart_reach(left) / _LEFT_SHARE, _heart_reach(right) / (1.0 - _LEFT_SHARE)]
    seen = [reach for reach in reaches if not np.isnan(reach)]
    if not seen:
        return _UNSEEN_RATIO
    # Each side alone foretells the width. A shadow beside the heart can only widen it, so the smaller one counts more.
    return (0.7 * min(seen) + 0.3 * max(seen)) / 2


def _heart_reach(half: _Values) -> float:
    """Share of the half thorax up to which the heart reaches, or NaN where fluid or shadow hides its border."""
    rows = (_DOWN > 0.66) & (_DOWN < 0.94)
    reach = [
        float(_ACROSS[np.argmax(row < _BESIDE_HEART)]) if (row < _BESIDE_HEART).any() else 1.0 for row in half[rows]
    ]
    clear = [value for value in reach if value < 0.95]
    return float(np.percentile(clear, 60)) if len(clear) >= 3 else float("nan")


def _base_brightness(half: _Values) -> float:
    """Brightness of the outer base, beside the point where the middle of the base turns bright.

    The healthy diaphragm falls away towards the chest wall, so the outer base is lung; fluid climbs there instead.
    """
    level = float(np.median([_floor(column) for column in half[:, (_ACROSS > 0.5) & (_ACROSS < 0.72)].T]))
    outer = _part(half, (0.78, 0.94), (level - 0.05, level + 0.08))
    return float(np.percentile(outer, 30))


def _floor(column: _Values) -> float:
    """Height, as a share of the lung's, of the lowest aerated point of a column that runs from apex to abdomen."""
    lung = np.flatnonzero(column[_DOWN > 0.2] < _AERATED)
    return float(_DOWN[_DOWN > 0.2][lung[-1]]) if lung.size else 0.3


def _rim_darkness(half: _Values) -> float:
    return 1.0 - float(np.median(_part(half, (0.84, 0.95), (0.15, 0.7))))
