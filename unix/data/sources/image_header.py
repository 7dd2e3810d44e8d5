"""A quick look at an image file: its size, and whether it begins and ends as its format does. No pixel is decoded."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unix.data.sources.base import ImageFault
from unix.errors import ImageError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
_DICOM_MARK = b"DICM"
_DICOM_MARK_OFFSET = 128
_SIZE_SEGMENTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN = 0xDA


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image file says about itself; `view_position` is "" in all but DICOM."""

    rows: int
    columns: int
    view_position: str = ""


def read_header(path: Path) -> ImageHeader:
    """The header of a JPEG, PNG or DICOM file, told apart by content.

    Raises:
        ImageError: `truncated_image` or `unreadable_image`.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_DICOM_MARK_OFFSET + len(_DICOM_MARK))
            if start[_DICOM_MARK_OFFSET:] == _DICOM_MARK:
                # pydicom takes half a second to import and most sources hold no DICOM file.
                from unix.data.sources.dicom import dicom_header

                return dicom_header(path)
            if not start:
                raise ImageError(ImageFault.TRUNCATED, "the file is empty")
            if start.startswith(_JPEG_START):
                header = _jpeg_header(file)
                _require_end(file, _JPEG_END)
            elif start.startswith(_PNG_START):
                header = _png_header(start)
                _require_end(file, _PNG_END)
            else:
                raise ImageError(ImageFault.UNREADABLE, "neither JPEG, PNG nor DICOM")
    except OSError as error:
        raise ImageError(ImageFault.UNREADABLE, error.strerror or "cannot be read") from error
    if not header.rows or not header.columns:
        raise ImageError(ImageFault.UNREADABLE, f"{header.rows} rows, {header.columns} columns")
    return header


def _jpeg_header(file: BinaryIO) -> ImageHeader:
    """Walk the marker segments up to the first that states the frame's size."""
    file.seek(len(_JPEG_START))
    while True:
        marker = file.read(2)
        while marker == b"\xff\xff":  # fill bytes
            marker = b"\xff" + file.read(1)
        if len(marker) < 2:
            raise ImageError(ImageFault.TRUNCATED, "ends within the JPEG header")
        if marker[0] != 0xFF or marker[1] == _SCAN:
            raise ImageError(ImageFault.UNREADABLE, f"JPEG marker {marker.hex()} before the frame header")
        if marker[1] in _BARE_MARKERS:
            continue
        segment = file.read(2)
        if len(segment) < 2:
            raise ImageError(ImageFault.TRUNCATED, "ends within the JPEG header")
        length = int.from_bytes(segment, "big")
        if marker[1] in _SIZE_SEGMENTS:
            frame = file.read(5)
            if len(frame) < 5:
                raise ImageError(ImageFault.TRUNCATED, "ends within the JPEG header")
            _, rows, columns = struct.unpack(">BHH", frame)
            return ImageHeader(rows, columns)
        if length < 2:
            raise ImageError(ImageFault.UNREADABLE, f"JPEG segment of length {length}")
        file.seek(length - 2, os.SEEK_CUR)


def _png_header(start: bytes) -> ImageHeader:
    if len(start) < 33:
        raise ImageError(ImageFault.TRUNCATED, "ends within the PNG header")
    if start[12:16] != b"IHDR":
        raise ImageError(ImageFault.UNREADABLE, "PNG without IHDR")
    columns, rows = struct.unpack(">II", start[16:24])
    return ImageHeader(rows, columns)


def _require_end(file: BinaryIO, end: bytes) -> None:
    """Refuse a file whose last bytes, zero padding apart, are not `end`."""
    size = file.seek(0, os.SEEK_END)
    file.seek(-min(size, 512), os.SEEK_END)
    if not file.read().rstrip(b"\0").endswith(end):
        raise ImageError(ImageFault.TRUNCATED, f"{size} bytes without an end marker")
