"""Image headers: the size without decoding, and damage seen from the ends."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unix.data.sources.image_header import ImageHeader, read_header
from unix.errors import ImageError


def encoded(rows: int, columns: int, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (rows, columns), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, kind, **options)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def header(path: Path, content: bytes) -> ImageHeader:
    path.write_bytes(content)
    return read_header(path)


def reason(path: Path, content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        header(path, content)
    return caught.value.reason


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["JPEG", "PNG", "progressive"]))
def test_sizes_are_read_from_any_kind(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, kind: str
) -> None:
    options = {"progressive": True} if kind == "progressive" else {}
    content = encoded(rows, columns, "PNG" if kind == "PNG" else "JPEG", **options)
    assert header(tmp_path_factory.getbasetemp() / "image", content) == ImageHeader(rows, columns)


def test_a_long_comment_and_fill_bytes_before_the_frame_are_passed_over(tmp_path: Path) -> None:
    content = encoded(7, 9, "JPEG", comment=b"\xff\xc0" * 20_000)
    assert header(tmp_path / "a.jpg", content) == ImageHeader(7, 9)
    assert header(tmp_path / "a.jpg", content[:2] + b"\xff\xff\xff" + content[3:]) == ImageHeader(7, 9)


def test_zeros_after_the_end_do_no_harm(tmp_path: Path) -> None:
    assert header(tmp_path / "a.jpg", encoded(7, 9, "JPEG") + bytes(100)) == ImageHeader(7, 9)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_every_truncation_is_noticed(tmp_path: Path, kind: str) -> None:
    content = encoded(12, 12, kind)
    reasons = {reason(tmp_path / "a", content[:length]) for length in range(len(content) - 1)}
    assert reasons == {"truncated_image", "unreadable_image"}  # the latter where not even the format shows
    assert reason(tmp_path / "a", content[: len(content) // 2]) == "truncated_image"
    assert reason(tmp_path / "a", content[:-1]) == "truncated_image"


@pytest.mark.parametrize(
    "content",
    [
        b"GIF89a" + bytes(200),
        b"<html>not found</html>",
        b"\xff\xd8\xff\xda" + bytes(10) + b"\xff\xd9",
        b"\xff\xd8\x00\x00" + bytes(10) + b"\xff\xd9",
        b"\xff\xd8\xff\xe0\x00\x01" + bytes(10) + b"\xff\xd9",
        b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 0, 9, 1) + bytes(4) + b"\xff\xd9",
    ],
)
def test_what_is_no_picture_is_unreadable(tmp_path: Path, content: bytes) -> None:
    assert reason(tmp_path / "a.jpg", content) == "unreadable_image"


def test_an_empty_file_is_truncated_and_a_missing_one_unreadable(tmp_path: Path) -> None:
    assert reason(tmp_path / "a.jpg", b"") == "truncated_image"
    with pytest.raises(ImageError, match="unreadable_image"):
        read_header(tmp_path / "none.jpg")
