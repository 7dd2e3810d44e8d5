"""LANCZOS reduction of grayscale pictures, by products of matrices of whole numbers.

A picture far larger than wanted is first averaged over boxes of 2 x 2 or 4 x 4 pixels. The weights then are those of
LANCZOS on the full picture, applied to the boxes and to the slope between neighbours, so that the boxes leave hardly a
trace. A JPEG decoded at half its size is the average over boxes of 2 x 2, rounded to 8 bits: there LANCZOS is sampled
in the middles of the boxes, which loses no more at encoding than the boxes' own weights do.

Pixels, weights and sums are whole numbers below 2**24, all of which float32 holds: the result depends neither on the
order in which a library adds, nor on the processor.
"""

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Sums = npt.NDArray[np.uint8 | np.uint16]
"""Whole numbers [rows, columns]: pixels, or their sums over boxes."""
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
2**24. The weights are stored divided by a power of two, which changes no digit of a product.
"""
_ROWS_AT_ONCE, _COLUMNS_AT_ONCE = 8, 16
"""Of the largest result, in one product: more waste multiplications by zero, fewer cost calls."""
_BANDS_COPIED_AT_ONCE = 3
"""Bands of rows brought into float32 together, which share boxes: more no longer fit a processor's own cache."""
_SUMMED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Decoded:
    """A grayscale picture of `rows` x `columns`, perhaps sampled more sparsely."""

    pixels: npt.NDArray[np.uint8]
    """[ceil(rows / spacing), ceil(columns / spacing)], samples in the middles of boxes of spacing x spacing pixels."""
    rows: int
    columns: int
    spacing: int = 1


@dataclass(frozen=True, slots=True)
class _Band:
    """Neighbouring pixels of one or several results, in one direction, and what they are made from."""

    pixels: list[slice]
    """Of each result."""
    boxes: slice
    weights: npt.NDArray[np.float32]
    """[pixels of all results, boxes]."""


def reduce(picture: Decoded, shapes: Collection[tuple[int, int]]) -> dict[tuple[int, int], npt.NDArray[np.uint8]]:
    """The picture at each of `shapes` (rows, columns), none larger than it is: uint8."""
    by_box: dict[int, list[tuple[int, int]]] = {}
    for rows, columns in shapes:
        per_pixel = min(picture.rows / rows, picture.columns / columns)
        box = next(
            (each for each in _BOXES if per_pixel / each >= _BOXES_PER_PIXEL and each > picture.spacing),
            picture.spacing,
        )
        by_box.setdefault(box, []).append((rows, columns))
    sums: Sums = picture.pixels
    side = picture.spacing
    pictures: dict[tuple[int, int], npt.NDArray[np.uint8]] = {}
    for box, of_box in sorted(by_box.items()):
        while side < box:
            sums, side = _pair_sums(sums), 2 * side
        for shape, first in zip(of_box, _rows(picture, sums, box, [rows for rows, _ in of_box]), strict=True):
            pictures[shape] = _columns(picture, first, box, shape[1])
    return pictures


def _rows(picture: Decoded, sums: Sums, box: int, results: list[int]) -> list[npt.NDArray[np.float32]]:
    """For each number of rows wanted, [rows, boxes across] in whole numbers of 2**-_KEPT_BITS.

    All at once, since half the work is to bring the boxes into a product.
    """
    bands = _bands(
        picture.rows,
        tuple(results),
        (picture.spacing, box),
        _ROWS_AT_ONCE,
        2**_FIRST_BITS // (box // picture.spacing) ** 2,
        _KEPT_BITS - _FIRST_BITS,
    )
    columns = sums.shape[1]
    whole = [np.empty((rows, columns), dtype=np.float32) for rows in results]
    copied = [bands[at : at + _BANDS_COPIED_AT_ONCE] for at in range(0, len(bands), _BANDS_COPIED_AT_ONCE)]
    strip = np.empty((max(each[-1].boxes.stop - each[0].boxes.start for each in copied), columns), dtype=np.float32)
    products = np.empty((max(len(band.weights) for band in bands), columns), dtype=np.float32)
    for together in copied:
        top, bottom = together[0].boxes.start, together[-1].boxes.stop
        np.copyto(strip[: bottom - top], sums[top:bottom])
        for band in together:
            boxes = strip[band.boxes.start - top : band.boxes.stop - top]
            np.matmul(band.weights, boxes, out=products[: len(band.weights)])
            begin = 0
            for result, pixels in zip(whole, band.pixels, strict=True):
                end = begin + pixels.stop - pixels.start
                np.rint(products[begin:end], out=result[pixels])
                begin = end
    return whole


def _columns(picture: Decoded, first: npt.NDArray[np.float32], box: int, columns: int) -> npt.NDArray[np.uint8]:
    """The picture of so many columns from `first`, as `_rows` gives it."""
    grid = (picture.spacing, box)
    second = np.empty((len(first), columns), dtype=np.float32)
    for band in _bands(
        picture.columns, (columns,), grid, _COLUMNS_AT_ONCE, 2**_SECOND_BITS, -_KEPT_BITS - _SECOND_BITS
    ):
        np.matmul(first[:, band.boxes], band.weights.T, out=second[:, band.pixels[0]])
    second += 0.5
    whole = second.astype(np.int16)  # a pass over half the bytes
    return np.clip(whole, 0, 255, out=whole).astype(np.uint8)


@functools.lru_cache(maxsize=256)  # detectors come in a few sizes, what was cropped in many; 0.1 to 0.3 MB each
def _bands(
    length: int, results: tuple[int, ...], grid: tuple[int, int], at_once: int, one: int, shift: int
) -> list[_Band]:
    """LANCZOS weights from `length` pixels in boxes to each of `results` pixels, cut where all of a band's are zero.

    They are whole numbers that add up to `one`, times 2**`shift`. `grid` is the spacing of the samples and the side of
    the boxes, in pixels.
    """
    weights = [_whole_weights(length, result, grid, one) for result in results]
    count = -(-max(results) // at_once)
    bands: list[_Band] = []
    for number in range(count):
        pixels = [slice(number * result // count, (number + 1) * result // count) for result in results]
        some = [(each, part) for each, part in zip(weights, pixels, strict=True) if part.start < part.stop]
        low = min(int(first_box[part.start]) for (_, first_box, _), part in some)
        high = max(int(first_box[part.stop - 1]) + taps for (_, first_box, taps), part in some)
        boxes = slice(max(low, 0), min(high, -(-length // grid[1])))
        of_band = np.concatenate([each[part, boxes] for (each, _, _), part in some])
        # For the products on the right, whose weights stand first there, column by column is faster.
        order = "F" if len(results) == 1 else "C"
        bands.append(_Band(pixels, boxes, np.multiply(of_band, np.float32(2.0**shift), order=order)))
    return bands


def _whole_weights(
    length: int, result: int, grid: tuple[int, int], one: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], int]:
    """Weights [result, boxes of the whole length], each pixel's first box, perhaps negative, and how many it has."""
    spacing, box = grid
    first_box, exact = _box_weights(length, result, spacing, box)
    whole = np.rint(exact * one)
    # What rounding has added goes to the largest weight: a constant picture stays as it is.
    pixels: npt.NDArray[np.int64] = np.arange(result)
    whole[pixels, exact.argmax(axis=1)] += one - whole.sum(axis=1)
    taps = exact.shape[1]
    boxes = -(-length // box)
    before = max(0, -int(first_box[0]))
    after = max(0, int(first_box[-1]) + taps - boxes)
    wide = np.zeros((result, before + boxes + after), dtype=np.float32)
    wide[pixels[:, None], first_box[:, None] + np.arange(before, before + taps)] = whole
    # The edge stands in for what lies beyond it.
    wide[:, before] += wide[:, :before].sum(axis=1)
    wide[:, before + boxes - 1] += wide[:, before + boxes :].sum(axis=1)
    return wide[:, before : before + boxes], first_box, taps


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
    sums = np.ascontiguousarray(sums)
    result = np.empty((-(-rows // 2), -(-columns // 2)), dtype=np.uint16)
    # Two neighbours are the halves of one wider number, which is several times faster than every other number.
    bits, pair = (8, np.uint16) if sums.dtype == np.uint8 else (16, np.uint32)
    strip = np.empty((_SUMMED_AT_ONCE, columns + columns % 2), dtype=sums.dtype)
    across = np.empty((_SUMMED_AT_ONCE, result.shape[1]), dtype=pair)
    right = np.empty_like(across)
    for begin in range(0, rows, _SUMMED_AT_ONCE):
        part = sums[begin : begin + _SUMMED_AT_ONCE]
        count = len(part)
        if columns % 2 or count % 2:
            strip[:count, :columns] = part  # the edge stands in for what lies beyond it
            strip[:count, columns:] = strip[:count, columns - 1 : columns]
            strip[count : count + count % 2] = strip[count - 1]
            part = strip[: count + count % 2]
        pairs = part.view(pair)
        np.bitwise_and(pairs, 2**bits - 1, out=across[: len(part)])
        np.right_shift(pairs, bits, out=right[: len(part)])
        across += right
        np.add(across[: len(part) : 2], across[1 : len(part) : 2], out=result[begin // 2 : (begin + len(part)) // 2])
    return result
