"""Uploads: what is accepted, and that hostile files are refused with a sentence, in bounded memory and time."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from unix.errors import ConfigError
from unix.web.playground import uploads
from unix.web.playground.uploads import Uploads, decode_upload

SENTENCES = ("JPEG, PNG or DICOM", "ends before", "larger than any", "too much memory", "is empty", "larger than 32")


def encoded(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def grey(rows: int, columns: int) -> np.ndarray:
    return np.linspace(0, 255, rows * columns).reshape(rows, columns).astype(np.uint8)


def png_claiming(columns: int, rows: int, body: bytes = b"") -> bytes:
    """A PNG whose header claims a size that its data do not have."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_the_aspect_ratio_is_kept() -> None:
    pixels = decode_upload(encoded(np.full((100, 200), 200, np.uint8), "PNG"))
    assert pixels.shape == (512, 512)
    assert pixels[256].mean() > 190 and pixels[20].max() == 0


def hostile_files() -> dict[str, bytes]:
    jpeg, png = encoded(grey(64, 64), "JPEG"), encoded(grey(64, 64), "PNG")
    lying_jpeg = bytearray(jpeg)
    frame = jpeg.index(b"\xff\xc0")
    lying_jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    return {
        "empty": b"",
        "text": b"FINDINGS: The lungs are clear.",
        "executable": b"\x7fELF" + bytes(500),
        "script as picture": b"<svg onload=alert(1)>" * 20,
        "zip": b"PK\x03\x04" + bytes(200),
        "gif": encoded(grey(32, 32), "GIF"),
        "tiff": encoded(grey(32, 32), "TIFF"),
        "bmp": encoded(grey(32, 32), "BMP"),
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[: len(png) // 2],
        "jpeg header only": jpeg[:20],
        "png signature only": png[:8],
        "bomb of a png": png_claiming(30_000, 30_000, bytes(3_000_000)),
        "png of 2^31": png_claiming(2**31 - 1, 2**31 - 1),
        "png without area": png_claiming(0, 0),
        "jpeg of 65,500": bytes(lying_jpeg),
        "dicom mark on nothing": bytes(128) + b"DICM",
        "dicom mark on noise": bytes(128) + b"DICM" + bytes(range(256)) * 20,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(hostile_files()))
def test_hostile_files_are_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        decode_upload(hostile_files()[name])
    assert any(part in str(refusal.value) for part in SENTENCES)


def test_one_hostile_file_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="larger than any radiograph"):
        decode_upload(hostile_files()["bomb of a png"])


def test_pictures_are_kept_for_their_session_for_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    kept, clock = Uploads(), [0.0]
    monkeypatch.setattr(uploads, "decode_upload", lambda data: grey(512, 512))
    monkeypatch.setattr(uploads.time, "monotonic", lambda: clock[0])
    mine, other = kept.add("me", b"."), kept.add("you", b".")
    assert kept.get("me", mine) is not None and kept.get("you", mine) is None
    kept.forget("me")
    assert kept.get("me", mine) is None and kept.get("you", other) is not None
    clock[0] = 3601.0
    assert kept.get("you", other) is None


def test_the_oldest_pictures_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Uploads()
    monkeypatch.setattr(uploads, "decode_upload", lambda data: grey(512, 512))
    names = [kept.add("me", b".") for _ in range(101)]
    assert kept.get("me", names[0]) is None and kept.get("me", names[1]) is not None
