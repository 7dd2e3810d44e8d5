"""Uploads: what is accepted, and that hostile files are refused with a sentence, in bounded memory and time."""

import io
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

from unix.errors import ConfigError
from unix.web.playground import uploads
from unix.web.playground.uploads import Uploads, decode_upload

JPEG_2000 = "1.2.840.10008.1.2.4.90"
COMPRESSED = "1.2.840.10008.1.2.4."
SENTENCES = ("JPEG, PNG or DICOM", "ends before", "larger than any", "too much memory", "is empty", "larger than 32")


MEASURE = """
import contextlib, pathlib, resource, sys
from unix.errors import ConfigError
from unix.web.playground.uploads import decode_upload
for path in pathlib.Path(sys.argv[1]).iterdir():
    with contextlib.suppress(ConfigError):
        decode_upload(path.read_bytes())
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


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


def png_with(kind: bytes, data: bytes) -> bytes:
    """A picture with one more chunk before its data."""
    whole = encoded(grey(64, 64), "PNG")
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return whole[:33] + chunk + whole[33:]


def dicom(transfer_syntax: str = ExplicitVRLittleEndian, pixels: bytes = bytes(64 * 64), **fields: Any) -> bytes:
    """A DICOM file that says what it is told to."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.1.1")
    dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    said = {"Rows": 64, "Columns": 64, "SamplesPerPixel": 1, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    said |= {"PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2", **fields}
    for name, value in said.items():
        setattr(dataset, name, value)
    compressed = transfer_syntax.startswith(COMPRESSED)
    dataset.PixelData = encapsulate([pixels]) if compressed else pixels
    dataset["PixelData"].VR = "OB" if compressed or said["BitsAllocated"] == 8 else "OW"
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def hostile_files() -> dict[str, bytes]:
    """Files that must be refused, by what is wrong with them."""
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
        "dicom of 65,000": dicom(Rows=65000, Columns=65000),
        "dicom of a million frames": dicom(NumberOfFrames=1_000_000),
        "dicom in colour": dicom(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
        "dicom shorter than its pixels": dicom(pixels=bytes(100)),
        "dicom in JPEG 2000 without a stream": dicom(JPEG_2000, pixels=bytes(40)),
        "dicom in a syntax of nobody's": dicom(JPEG_2000, pixels=bytes(40)).replace(
            JPEG_2000.encode(), b"1.2.840.10008.1.2.4.09"
        ),
        "truncated dicom": dicom()[:400],
        "png whose comment is a bomb": png_with(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)),
    }


@cache
def odd_files() -> dict[str, bytes]:
    """Files that are radiographs all the same, whatever else they are or claim."""
    deep = np.zeros((4_400, 4_500), np.uint16)
    deep[1_000:3_000, 1_000:3_000] = 60_000
    return {
        "picture and archive in one": encoded(grey(64, 64), "JPEG") + b"PK\x05\x06" + bytes(18),
        "as large as they come, 16 bit": encoded(deep, "PNG"),
        "four colours": encoded(np.zeros((64, 64, 4), np.uint8), "PNG"),
        "dicom of 64-bit numbers": dicom(BitsAllocated=64, BitsStored=64, HighBit=63, pixels=bytes(64 * 64 * 8)),
        "progressive": encoded(grey(2_000, 2_000), "JPEG", progressive=True),
    }


@pytest.mark.slow
def test_hostile_files_are_refused_with_a_sentence() -> None:
    for name, data in hostile_files().items():
        with pytest.raises(ConfigError) as refusal:
            decode_upload(data)
        assert any(part in str(refusal.value) for part in SENTENCES), name


@pytest.mark.slow
def test_odd_files_are_read_all_the_same() -> None:
    for name, data in odd_files().items():
        assert decode_upload(data).shape == (512, 512), name


@pytest.mark.slow
def test_no_upload_takes_more_than_500_megabytes(tmp_path: Path) -> None:
    for number, data in enumerate((*hostile_files().values(), *odd_files().values())):
        (tmp_path / str(number)).write_bytes(data)
    # in a process of its own, whose children are the decoders alone
    told = subprocess.run([sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert 50_000 < int(told.stdout) < 500_000, "KB, of the largest decoder"


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
