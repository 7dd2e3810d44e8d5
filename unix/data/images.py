"""Radiograph files -> square grayscale pictures: decode, resize, pad, encode. Pure: bytes in, arrays and bytes out.

One decode serves every size. EXIF orientation is ignored, as MIMIC-CXR-JPG's pixels are upright.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Collection
from typing import Literal

import numpy as np
import numpy.typing as npt
import simplejpeg  # pyright: ignore[reportMissingTypeStubs]
from PIL import Image, UnidentifiedImageError
from pydantic import Field
from threadpoolctl import ThreadpoolController  # pyright: ignore[reportMissingTypeStubs]

from unix.config import Config
from unix.data.reduce import Decoded, reduce
from unix.errors import ImageError

Pixels = npt.NDArray[np.uint8]
"""Grayscale picture, uint8 [rows, columns], 0 = black."""

MAX_PIXELS = 80_000_000
"""Largest picture decoded; above it a file is taken for a decompression bomb. Detectors stay below 20 million."""

PREPROCESSING = "lanczos-3"
"""Names how squares are made; what is made from them carries it. It changes when their bytes do."""

_HALVED_PER_PIXEL = 2.15
"""A JPEG is decoded at half its size where that leaves so many pixels per pixel of the largest size: from 2,202 px for
512. Below, a full decode takes a third more and loses 0.1 to 0.2 dB less at encoding.
"""

_BLAS = ThreadpoolController().select(user_api="blas")  # pyright: ignore[reportUnknownMemberType]
"""Small products on several threads cost more than they save, the more so where every processor has a picture."""

_FORMATS = ("JPEG", "PNG")
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_DICOM_MAGIC = (128, b"DICM")
_JPEG_MAGIC = b"\xff\xd8\xff"


def decode(data: bytes) -> Pixels:
    """Decode a JPEG, PNG or DICOM file at its full size: uint8 [rows, columns].

    RGB becomes luma. More than 8 bits per pixel are mapped linearly from the picture's own range to 0..255, since such
    files rarely say which part of the range they use.

    Raises:
        ImageError: `truncated_image`, `unreadable_image` or `image_too_large`.
    """
    return _decode(data, None).pixels


def squares(data: bytes, sizes: Collection[int]) -> dict[int, Pixels]:
    """Decode once and return a picture per requested size in pixels: uint8 [size, size].

    The aspect ratio is kept: the picture is scaled so that its long side fills the square, centred, and padded with
    black.

    Raises:
        ImageError: as `decode`.
    """
    picture = _decode(data, max(sizes))
    longest = max(picture.columns, picture.rows)
    shapes: dict[int, tuple[int, int]] = {}
    for size in sorted(set(sizes), reverse=True):
        width, height = fit(picture.columns, picture.rows, size)
        shapes[size] = height, width
    with _BLAS.limit(limits=1):  # pyright: ignore[reportUnknownMemberType]
        reduced = reduce(picture, [shape for size, shape in shapes.items() if size < longest])
    return {
        size: _pad(reduced[shape] if size < longest else _enlarge(picture.pixels, *shape), size)
        for size, shape in shapes.items()
    }


def fit(columns: int, rows: int, size: int) -> tuple[int, int]:
    """Columns and rows of a picture scaled so that its long side is `size`; neither falls below 1."""
    longest = max(columns, rows)
    return max(1, round(columns * size / longest)), max(1, round(rows * size / longest))


class PictureEncoding(Config):
    """How squares are written: single-channel JPEG or, without loss and about three times as large, PNG."""

    format: Literal["jpg", "png"] = "jpg"
    """Also the file extension."""
    quality: int = Field(default=95, ge=1, le=100)
    """Of JPEG."""

    def encode(self, pixels: Pixels) -> bytes:
        """The picture's file; the same pixels give the same bytes."""
        return encode_jpeg(pixels, self.quality) if self.format == "jpg" else encode_png(pixels)


def encode_jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    """Encode a picture, uint8 [rows, columns], as a single-channel JPEG; the same pixels give the same bytes."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels)[:, :, None], quality, "GRAY", "Gray")


def encode_png(pixels: Pixels) -> bytes:
    """Encode a grayscale picture as a single-channel PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _decode(data: bytes, largest: int | None) -> Decoded:
    """Decode for pictures of at most `largest` pixels a side, at half the size where that loses little."""
    if data[_DICOM_MAGIC[0] : _DICOM_MAGIC[0] + 4] == _DICOM_MAGIC[1]:
        # pydicom takes half a second to import and most stores hold no DICOM file.
        from unix.data.sources.dicom import dicom_to_uint8

        pixels = dicom_to_uint8(data)
    else:
        plain = _decode_plain_jpeg(data, largest) if data.startswith(_JPEG_MAGIC) else None
        if plain is not None:
            return plain
        pixels = np.asarray(_open(data))
    return Decoded(pixels, *pixels.shape)


def _decode_plain_jpeg(data: bytes, largest: int | None) -> Decoded | None:
    """A grayscale JPEG without any fault; None for every other, which Pillow reads or names the fault of."""
    try:
        rows, columns, colours, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(rows), int(columns)
        if colours != "Gray" or height * width > MAX_PIXELS:
            return None
        spacing = 1 if largest is None or max(height, width) < 2 * _HALVED_PER_PIXEL * largest else 2
        pixels = simplejpeg.decode_jpeg(
            data, "GRAY", min_height=-(-height // spacing), min_width=-(-width // spacing), min_factor=spacing
        )[:, :, 0]
    except ValueError:
        return None
    return Decoded(pixels, height, width, spacing)


def _open(data: bytes) -> Image.Image:
    """Load a picture as grayscale."""
    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures before we can ask for their size; the refusal below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        columns, rows = image.size
        if columns * rows > MAX_PIXELS:
            raise ImageError("image_too_large", f"{columns} x {rows} pixels, at most {MAX_PIXELS} are decoded")
        image.load()
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"more than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        cause = str(error)
        reason = "truncated_image" if "truncated" in cause.lower() else "unreadable_image"
        if isinstance(error, UnidentifiedImageError):  # whose words name an object in memory
            cause = "no picture of a known format"
        raise ImageError(reason, f"{len(data)} bytes: {cause:.120}") from error
    return _to_grayscale(image)


def _to_grayscale(image: Image.Image) -> Image.Image:
    if image.mode not in _DEEP_MODES:
        return image if image.mode == "L" else image.convert("L")
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    values -= low  # in place: such pictures are large
    if high > low:
        values *= 255.0 / (high - low)
    return Image.fromarray(np.round(values, out=values).astype(np.uint8))


def _enlarge(pixels: Pixels, rows: int, columns: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.LANCZOS))


def _pad(content: Pixels, size: int) -> Pixels:
    square = np.zeros((size, size), dtype=np.uint8)
    rows, columns = content.shape
    top, left = (size - rows) // 2, (size - columns) // 2
    square[top : top + rows, left : left + columns] = content
    return square
