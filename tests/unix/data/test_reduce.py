"""LANCZOS reduction by whole-numbered matrices."""

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unix.data.images import encode_jpeg
from unix.data.reduce import Decoded, reduce


def picture(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (12, 12), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((columns, rows), Image.Resampling.BICUBIC), dtype=float)
    return (smooth + draw.normal(0, 4, (rows, columns))).clip(0, 255).astype(np.uint8)


def reduced(pixels: np.ndarray, rows: int, columns: int) -> np.ndarray:
    return reduce(Decoded(pixels, *pixels.shape), [(rows, columns)])[rows, columns]


def root_mean_square(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(np.mean((one.astype(float) - other.astype(float)) ** 2)))


# Per pixel of the result 3.1, 5.3 and 10.1 pixels: boxes of 1, 2 and 4, with odd sizes.
@pytest.mark.parametrize(("rows", "columns"), [(201, 161), (117, 94), (61, 49)])
def test_it_agrees_with_lanczos_on_the_full_picture(rows: int, columns: int) -> None:
    pixels = picture(617, 495)
    gold = np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.LANCZOS))
    assert root_mean_square(reduced(pixels, rows, columns), gold) < 0.6


def test_a_jpeg_decoded_at_half_its_size_gives_nearly_what_the_full_picture_gives() -> None:
    data = encode_jpeg(picture(600, 480), quality=100)
    whole = simplejpeg.decode_jpeg(data, "GRAY")[:, :, 0]
    half = simplejpeg.decode_jpeg(data, "GRAY", min_height=300, min_width=240, min_factor=2)[:, :, 0]
    assert half.shape == (300, 240)
    for rows, columns in ((120, 96), (60, 48)):
        halved = reduce(Decoded(half, 600, 480, spacing=2), [(rows, columns)])[rows, columns]
        assert root_mean_square(halved, reduced(whole, rows, columns)) < 0.45


def test_pictures_made_together_are_those_made_alone() -> None:
    pixels = picture(617, 495)
    shapes = [(201, 161), (117, 94), (61, 49), (3, 2)]
    together = reduce(Decoded(pixels, *pixels.shape), shapes)
    assert set(together) == set(shapes)
    for shape in shapes:
        assert np.array_equal(together[shape], reduced(pixels, *shape))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.data(), st.sampled_from([0, 1, 77, 255]))
def test_a_constant_picture_stays_as_it_is(rows: int, columns: int, data: st.DataObject, value: int) -> None:
    result = data.draw(st.integers(1, rows)), data.draw(st.integers(1, columns))
    made = reduced(np.full((rows, columns), value, np.uint8), *result)
    assert made.shape == result
    assert (made == value).all()


def test_black_and_white_at_their_extremes_neither_wrap_nor_depend_on_the_order_of_addition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pixels = np.random.default_rng(0).choice(np.array([0, 255], np.uint8), (400, 380))
    made = reduced(pixels, 90, 85)

    def in_reverse(one: np.ndarray, other: np.ndarray, out: np.ndarray) -> np.ndarray:
        exact = one[:, ::-1].astype(np.float64) @ other[::-1].astype(np.float64)
        whole = exact * 2.0 ** (12 if out.shape[1] == pixels.shape[1] else 15)  # the first product, or the second
        assert (whole % 1 == 0).all()
        assert np.abs(whole).max() < 2**24
        out[:] = exact
        return out

    monkeypatch.setattr(np, "matmul", in_reverse)
    assert np.array_equal(reduced(pixels, 90, 85), made)
