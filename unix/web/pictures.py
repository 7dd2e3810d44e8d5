"""Radiographs for the browser: found by id in the store, decoded, made small, encoded."""

from pathlib import Path
from typing import Literal

import fsspec  # pyright: ignore[reportMissingTypeStubs]
import polars as pl

from unix.data.images import decode, encode_jpeg, squares
from unix.errors import ImageError
from unix.web.library import Library

Size = Literal["256", "512", "1024", "full"]


def picture(library: Library, image_id: str, size: Size) -> bytes | None:
    """The radiograph as JPEG, squared with black at a size, or as it is; None where the store has no such image.

    Raises:
        ImageError: the file is missing or cannot be decoded.
    """
    paths = library.images.filter(pl.col("image_id") == image_id)["path"]
    if paths.is_empty():
        return None
    data = read_picture(str(paths[0]))
    return encode_jpeg(decode(data) if size == "full" else squares(data, [int(size)])[int(size)], quality=90)


def read_picture(path: str) -> bytes:
    """The bytes of a stored image file, local or in an object store.

    Raises:
        ImageError: the file is missing or cannot be read.
    """
    try:
        if "://" not in path:
            return Path(path).read_bytes()
        with fsspec.open(path, "rb") as file:  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
            return bytes(file.read())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType, reportAttributeAccessIssue]
    except OSError as error:
        raise ImageError("missing_image", error.strerror or type(error).__name__) from error
