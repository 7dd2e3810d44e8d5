"""Radiograph files -> square grayscale pictures: decode, resize, pad, encode. Pure: bytes in, arrays and bytes out.

One decode serves every size: a JPEG is decoded at the smallest DCT scale that still covers the largest size, and each
smaller picture is made from the next larger one. EXIF orientation is ignored, as MIMIC-CXR-JPG's pixels are upright.
"""

import io
import math
import struct
import warnings
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from unix.config import Config
from unix.errors import ImageError

Pixels = npt.NDArray[np.uint8]
"""Grayscale picture, uint8 [rows, columns], 0 = black."""

MAX_PIXELS = 80_000_000
"""Largest picture decoded; above it a file is taken for a decompression bomb. Detectors stay below 20 million."""

_DECODE_MARGIN = 1.15
"""How much larger than the largest size wanted a scaled decode must be. Closer to it, the DCT's own low-pass filter
shows beside LANCZOS: of ten real 2,000-3,000 px images the two with a margin of 1.07 came out at 43-44 dB, the others
at 46-51.
"""

_FORMATS = ("JPEG", "PNG")
_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_DICOM_MAGIC = (128, b"DICM")


def decode(data: bytes) -> Pixels:
    """Decode a JPEG, PNG or DICOM file at its full size.

    RGB becomes luma. More than 8 bits per pixel are mapped linearly from the picture's own range to 0..255, since such
    files rarely say which part of the range they use.

    Raises:
        ImageError: `truncated_image`, `unreadable_image` or `image_too_large`.
    """
    return np.asarray(_open(data).image)


def squares(data: bytes, sizes: Collection[int]) -> dict[int, Pixels]:
    """Decode once and return one `size` x `size` picture per requested size, in pixels.

    The aspect ratio is kept: the picture is scaled so that its long side fills the square, centred, and padded with
    black.

    Raises:
        ImageError: as `decode`.
    """
    opened = _open(data, at_least=math.ceil(_DECODE_MARGIN * max(sizes)))
    image, box = opened.image, opened.box
    pictures: dict[int, Pixels] = {}
    for size in sorted(set(sizes), reverse=True):
        content = image.resize(fit(opened.columns, opened.rows, size), Image.Resampling.LANCZOS, box=box)
        pictures[size] = _pad(content, size)
        if size < max(opened.columns, opened.rows):  # never make a smaller picture from an enlarged one
            image, box = content, (0.0, 0.0, float(content.width), float(content.height))
    return pictures


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
    """Encode a grayscale picture as a single-channel JPEG; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def encode_png(pixels: Pixels) -> bytes:
    """Encode a grayscale picture as a single-channel PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class _Opened:
    """A loaded grayscale picture, perhaps smaller than its file."""

    image: Image.Image
    box: tuple[float, float, float, float]
    """The part of `image` that shows the file's extent: a scaled decode rounds its size up, the extent is exact."""
    columns: int
    rows: int
    """Size of the picture in the file."""


def _open(data: bytes, at_least: int | None = None) -> _Opened:
    """Load a picture; with `at_least`, a JPEG may be decoded smaller, its long side no shorter than that."""
    if data[_DICOM_MAGIC[0] : _DICOM_MAGIC[0] + 4] == _DICOM_MAGIC[1]:
        image = _open_dicom(data)
        return _Opened(image, (0.0, 0.0, float(image.width), float(image.height)), image.width, image.height)
    try:
        with warnings.catch_warnings():
            # Pillow warns about large pictures before we can ask for their size; the refusal below is ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=_FORMATS)
        columns, rows = image.size
        if columns * rows > MAX_PIXELS:
            raise ImageError("image_too_large", f"{columns} x {rows} pixels, at most {MAX_PIXELS} are decoded")
        drafted = None if at_least is None else image.draft("L", fit(columns, rows, at_least))
        image.load()
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", f"more than {MAX_PIXELS} pixels") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
        cause = str(error)
        reason = "truncated_image" if "truncated" in cause.lower() else "unreadable_image"
        raise ImageError(reason, f"{len(data)} bytes: {type(error).__name__}: {cause:.120}") from error
    box = (0.0, 0.0, float(columns), float(rows)) if drafted is None else drafted[1]
    return _Opened(_to_grayscale(image), box, columns, rows)


def _open_dicom(data: bytes) -> Image.Image:
    # pydicom takes half a second to import and most stores hold no DICOM file.
    from unix.data.sources.dicom import dicom_to_uint8

    return Image.fromarray(dicom_to_uint8(data))


def _to_grayscale(image: Image.Image) -> Image.Image:
    if image.mode not in _DEEP_MODES:
        return image if image.mode == "L" else image.convert("L")
    values = np.asarray(image).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    values -= low  # in place: such pictures are large
    if high > low:
        values *= 255.0 / (high - low)
    return Image.fromarray(np.round(values, out=values).astype(np.uint8))


def _pad(content: Image.Image, size: int) -> Pixels:
    square = np.zeros((size, size), dtype=np.uint8)
    left, top = (size - content.width) // 2, (size - content.height) // 2
    square[top : top + content.height, left : left + content.width] = np.asarray(content)
    return square
