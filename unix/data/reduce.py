"""LANCZOS reduction of grayscale pictures, by products of matrices of whole numbers.

A picture far larger than wanted is first averaged over boxes of 2 x 2 or 4 x 4 pixels. The weights then are those of
LANCZOS on the full picture, applied to the boxes and to the slope between neighbours, so that the boxes leave hardly a
trace. A JPEG decoded at half its size is no such average but the picture's lower frequencies, sampled in the middles of
2 x 2 boxes: there LANCZOS itself is sampled.

Pixels, weights and sums are whole numbers below 2**24, all of which float32 holds: the result depends neither on the
order in which a library adds, nor on the processor.
"""

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sums = npt.NDArray[np.uint8 | np.uint16]
"""Whole numbers [rows, columns]: pixels, or their sums over boxes."""
_Band = tuple[slice, slice, npt.NDArray[np.float32]]
"""Pixels of the result, the boxes that they are made from, and whole-numbered weights [pixels, boxes]."""

_BOXES_PER_PIXEL = 2.6
"""Boxes that must remain per pixel of the result, in each direction, where a picture is averaged here: with fewer,
pictures that are encoded at quality 95 afterwards lose more than 0.1 dB by it.
"""
_SUPPORT = 3
"""Lobes of LANCZOS on each side."""
_BOXES = (4, 2, 1)
_FIRST_BITS, _KEPT_BITS, _SECOND_BITS = 15, 3, 12
"""Fractional bits of the first product's weights, of what is kept of it, and of the second product's weights: LANCZOS
weights add up to less than 1.5 in absolute value, and 1.5 x 255 x 2**15 and 1.5 x 1.3 x 255 x 2**3 x 2**12 are below
2**24.
"""
_ROWS_AT_ONCE, _COLUMNS_AT_ONCE = 8, 16
"""Of the result, in one product: more waste multiplications by zero, fewer cost calls."""
_SUMMED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Decoded:
    """A grayscale picture of `rows` x `columns`, perhaps sampled more sparsely."""

    pixels: npt.NDArray[np.uint8]
    """[ceil(rows / spacing), ceil(columns / spacing)], samples in the middles of boxes of spacing x spacing pixels."""
    rows: int
    columns: int
    spacing: int = 1


class Reducer:
    """Makes pictures of any smaller size from one picture."""

    def __init__(self, picture: Decoded) -> None:
        self._picture = picture
        self._boxes: dict[int, Sums] = {picture.spacing: picture.pixels}

    def reduce(self, rows: int, columns: int) -> npt.NDArray[np.uint8]:
        """The picture at `rows` x `columns`, neither larger than it is: uint8."""
        picture = self._picture
        per_pixel = min(picture.rows / rows, picture.columns / columns)
        box = next(
            (each for each in _BOXES if per_pixel / each >= _BOXES_PER_PIXEL and each > picture.spacing),
            picture.spacing,
        )
        sums, grid = self._sums(box), (picture.spacing, box)
        down = _bands(picture.rows, rows, grid, _ROWS_AT_ONCE, 2**_FIRST_BITS // (box // picture.spacing) ** 2)
        across = _bands(picture.columns, columns, grid, _COLUMNS_AT_ONCE, 2**_SECOND_BITS)
        first = np.empty((rows, sums.shape[1]), dtype=np.float32)
        for done, taken, weights in down:
            np.matmul(weights, sums[taken].astype(np.float32), out=first[done])
        first *= 2.0 ** (_KEPT_BITS - _FIRST_BITS)
        np.rint(first, out=first)
        second = np.empty((rows, columns), dtype=np.float32)
        for done, taken, weights in across:
            np.matmul(first[:, taken], weights.T, out=second[:, done])
        second *= 2.0 ** -(_KEPT_BITS + _SECOND_BITS)
        second += 0.5
        return np.clip(second, 0, 255, out=second).astype(np.uint8)

    def _sums(self, box: int) -> Sums:
        if box not in self._boxes:
            self._boxes[box] = _pair_sums(self._sums(box // 2))
        return self._boxes[box]


@functools.lru_cache(maxsize=64)  # detectors come in a few sizes
def _bands(length: int, result: int, grid: tuple[int, int], at_once: int, one: int) -> list[_Band]:
    """LANCZOS weights from `length` pixels in boxes to `result` pixels, without the zeros; they add up to `one`.

    `grid` is the spacing of the samples and the side of the boxes, in pixels.
    """
    spacing, box = grid
    first_box, exact = _box_weights(length, result, spacing, box)
    whole = np.rint(exact * one)
    # What rounding has added goes to the largest weight: a constant picture stays as it is.
    whole[np.arange(result), exact.argmax(axis=1)] += one - whole.sum(axis=1)
    # The edge stands in for what lies beyond it.
    wanted = first_box[:, None] + np.arange(exact.shape[1], dtype=np.int64)
    places = wanted.clip(0, -(-length // box) - 1)
    begin: npt.NDArray[np.int64] = np.arange(0, result, at_once)
    end: npt.NDArray[np.int64] = np.minimum(begin + at_once, result)
    low: npt.NDArray[np.int64] = places[begin, 0]
    high: npt.NDArray[np.int64] = places[end - 1, -1] + 1
    weights = np.zeros((len(begin), at_once, int((high - low).max())), dtype=np.float32)
    number, row = np.divmod(np.arange(result)[:, None], at_once)
    np.add.at(weights, (number, row, places - low[number]), whole)
    return [
        (slice(b, e), slice(lo, hi), weights[i, : e - b, : hi - lo])
        for i, (b, e, lo, hi) in enumerate(np.stack([begin, end, low, high], axis=1).tolist())
    ]


def _box_weights(
    length: int, result: int, spacing: int, box: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """First box, which may be -1 or less, and weights [result, boxes from there] of every pixel of the result."""
    scale = length / result
    centres = (np.arange(result) + 0.5) * scale
    begin = np.floor((centres - _SUPPORT * scale) / box).astype(np.int64) * box
    taps = (int(np.ceil(2 * _SUPPORT * scale / box)) + 1) * box
    places: npt.NDArray[np.int64] = begin[:, np.newaxis] + np.arange(0, taps, spacing)
    distance: npt.NDArray[np.float64] = (places + spacing / 2 - centres[:, np.newaxis]) / scale
    # sinc(x) sinc(x / 3), with sin(3 y) = 3 sin y - 4 sin^3 y; nothing lies exactly at 0 but for odd whole scales.
    square: npt.NDArray[np.float64] = np.sin(distance * (np.pi / _SUPPORT)) ** 2
    distance *= distance
    near = distance < 1e-12
    weights: npt.NDArray[np.float64] = square * (3 - 4 * square) / np.where(near, 1, distance * (np.pi**2 / _SUPPORT))
    weights[near] = 1
    weights[(distance >= _SUPPORT**2) | (places < 0) | (places >= length)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    samples = box // spacing
    of_box: npt.NDArray[np.float64] = weights.reshape(result, -1, samples)
    # A sample stands off its box's middle, and the picture slopes there by half the step between the neighbours.
    slope: npt.NDArray[np.float64] = of_box @ (np.arange(samples) - (samples - 1) / 2) / (2 * samples)
    around = np.zeros((result, of_box.shape[1] + 2))
    around[:, 1:-1] = of_box.sum(axis=2)
    around[:, 2:] += slope
    around[:, :-2] -= slope
    return begin // box - 1, around


def _pair_sums(sums: Sums) -> npt.NDArray[np.uint16]:
    """Sums over 2 x 2 boxes [ceil(rows / 2), ceil(columns / 2)]; a missing last row or column repeats its neighbour."""
    rows, columns = sums.shape
    result = np.empty((-(-rows // 2), -(-columns // 2)), dtype=np.uint16)
    bits = 8 * sums.itemsize
    strip = np.empty((_SUMMED_AT_ONCE, columns + columns % 2), dtype=sums.dtype)
    # Two neighbours are the halves of one wider number, which is several times faster than every other number.
    pairs = strip.view(np.uint16 if bits == 8 else np.uint32)
    across = np.empty_like(pairs)
    for begin in range(0, rows, _SUMMED_AT_ONCE):
        count = min(_SUMMED_AT_ONCE, rows - begin)
        strip[:count, :columns] = sums[begin : begin + count]
        strip[:count, columns:] = strip[:count, columns - 1 : columns]
        if count % 2:
            strip[count] = strip[count - 1]
        np.bitwise_and(pairs, 2**bits - 1, out=across)
        np.right_shift(pairs, bits, out=pairs)
        np.add(across, pairs, out=across)
        done = -(-count // 2)
        result[begin // 2 : begin // 2 + done] = across[: 2 * done : 2] + across[1 : 2 * done : 2]
    return result
