"""Decodes one uploaded picture in a process of its own, whose memory and time are bounded.

`python -m unix.web.playground.upload_decoder` reads the file from standard input. It writes the picture, a square of
SIDE pixels, as raw bytes to standard output; or it exits with REFUSED and the reason's name. A file that exhausts
memory, loops or crashes a codec takes this process with it and nothing else.
"""

import io
import resource
import sys

from unix.data.images import squares
from unix.errors import ImageError

SIDE = 512
"""Pixels; the most that any stage reads or draws."""
MOST_PIXELS = 20_000_000
"""Detectors stay below; a picture that claims more is refused before a pixel is decoded."""
REFUSED = 3
_MOST_BYTES = 900 << 20
"""Address space, of which the imports take about half before any file is read."""
_MOST_SECONDS = 8
_DICOM_MARK_AT, _DICOM_MARK = 128, b"DICM"


def decoded(data: bytes) -> bytes:
    """The picture as SIDE x SIDE grey values, 0 = black.

    Raises:
        ImageError: no JPEG, PNG or DICOM picture, damaged, or larger than MOST_PIXELS.
    """
    columns, rows = _claimed_size(data)
    if columns * rows > MOST_PIXELS:
        raise ImageError("image_too_large", f"{columns} x {rows} pixels")
    return squares(data, [SIDE])[SIDE].tobytes()


def _claimed_size(data: bytes) -> tuple[int, int]:
    """Columns and rows by the file's header."""
    if data[_DICOM_MARK_AT : _DICOM_MARK_AT + len(_DICOM_MARK)] == _DICOM_MARK:
        import pydicom

        try:
            header = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)  # pyright: ignore[reportUnknownMemberType]
            return int(header.get("Columns", 0)), int(header.get("Rows", 0)) * int(header.get("NumberOfFrames") or 1)
        except Exception as error:  # pydicom raises many kinds on damaged files
            raise ImageError("unreadable_image", type(error).__name__) from error
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            return image.size
    except Image.DecompressionBombError as error:
        raise ImageError("image_too_large", "far more pixels than a radiograph has") from error
    except Exception as error:  # Pillow raises many kinds on damaged files
        raise ImageError("unreadable_image", type(error).__name__) from error


def main() -> int:
    """Decode standard input; the exit status."""
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_SECONDS, _MOST_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        sys.stdout.buffer.write(decoded(sys.stdin.buffer.read()))
    except ImageError as error:
        sys.stdout.write(error.reason)
        return REFUSED
    except MemoryError:
        sys.stdout.write("image_too_large")
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
