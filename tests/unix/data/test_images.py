"""Decoding, squaring and encoding of radiographs."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from unix.data.images import decode, encode_jpeg, fit, squares
from unix.errors import ImageError

Picture = Callable[..., np.ndarray]
Encode = Callable[..., bytes]
SIZES = (512, 384, 256)


def content_of(square: np.ndarray, columns: int, rows: int) -> np.ndarray:
    top, left = (square.shape[0] - rows) // 2, (square.shape[1] - columns) // 2
    return square[top : top + rows, left : left + columns]


def gold(data: bytes, size: int) -> np.ndarray:
    """Full decode and one LANCZOS step, without padding."""
    image = Image.open(io.BytesIO(data)).convert("L")
    return np.asarray(image.resize(fit(*image.size, size), Image.Resampling.LANCZOS))


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


# 2,200 px would come out at 1.07 times 512 from the quarter-size decode; odd sizes round up in a scaled decode.
@pytest.mark.parametrize("shape", [(2200, 1992), (3056, 2544), (2021, 2489), (1100, 896)])
def test_one_scaled_decode_gives_every_size_close_to_the_full_one(
    shape: tuple[int, int], smooth_picture: Picture, encode: Encode
) -> None:
    texture = np.random.default_rng(1).normal(0, 6, shape[::-1])
    data = encode((smooth_picture(*shape) + texture).clip(0, 255).astype(np.uint8))
    pictures = squares(data, SIZES)
    assert list(pictures) == list(SIZES)
    for size, square in pictures.items():
        reference = gold(data, size)
        assert psnr(content_of(square, *reference.shape[::-1]), reference) >= 45, size


def test_every_real_radiograph_of_full_size_comes_out_close_to_the_full_decode(shared_folder: Path) -> None:
    full_size = 0
    for path in sorted((shared_folder / "real_cxr" / "files").glob("*/*/*/*.jpg")):
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) <= 896:  # the short side of those that come reduced
                continue
        full_size += 1
        for size, square in squares(data, SIZES).items():
            reference = gold(data, size)
            assert psnr(content_of(square, *reference.shape[::-1]), reference) >= 45, (path.name, size)
    assert full_size >= 13


@pytest.mark.parametrize(("columns", "rows"), [(100, 60), (60, 100), (33, 100), (100, 1)])
def test_padding_is_black_and_centred_and_the_ratio_kept(columns: int, rows: int, encode: Encode) -> None:
    square = squares(encode(np.full((rows, columns), 200, np.uint8), "PNG"), [50])[50]
    width, height = fit(columns, rows, 50)
    assert square.shape == (50, 50)
    assert max(width, height) == 50
    assert (content_of(square, width, height) > 190).all()
    assert int((square > 0).sum()) == width * height


def test_a_picture_smaller_than_the_square_is_enlarged_and_not_enlarged_twice(encode: Encode) -> None:
    small = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    data = encode(small, "PNG")
    pictures = squares(data, [32, 16, 8])
    assert pictures[32].shape == (32, 32)
    assert np.array_equal(pictures[8], small)
    assert np.array_equal(pictures[16], gold(data, 16))


def test_colour_becomes_luma() -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 1] = 255
    buffer = io.BytesIO()
    Image.fromarray(colour).save(buffer, "PNG")
    assert np.unique(decode(buffer.getvalue())) == [150]


def test_sixteen_bits_are_spread_over_their_own_range() -> None:
    ramp = np.linspace(100, 4095, 256).astype(np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "PNG")
    pixels = decode(buffer.getvalue())
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels.ravel().astype(int) - np.arange(256)).max() <= 1
    assert squares(buffer.getvalue(), [16])[16].max() == 255


def test_a_constant_sixteen_bit_picture_is_black() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 900, np.uint16)).save(buffer, "PNG")
    assert not decode(buffer.getvalue()).any()


def test_exif_orientation_is_ignored(smooth_picture: Picture) -> None:
    pixels = smooth_picture(64, 32)
    exif = Image.Exif()
    exif[274] = 6  # "rotate by 90 degrees"
    plain, tagged = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(plain, "JPEG")
    Image.fromarray(pixels).save(tagged, "JPEG", exif=exif)
    assert np.array_equal(decode(plain.getvalue()), decode(tagged.getvalue()))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_truncated_file_is_named_so(kind: str, share: float, smooth_picture: Picture, encode: Encode) -> None:
    data = encode(smooth_picture(600, 500), kind)
    with pytest.raises(ImageError) as caught:
        squares(data[: int(len(data) * share)], [128])
    assert caught.value.reason == "truncated_image"


@pytest.mark.parametrize("data", [b"", b"no picture", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xe0" + bytes(50)])
def test_other_bytes_are_unreadable(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.reason == "unreadable_image"


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(ImageError) as caught:
        decode(bomb)
    assert caught.value.reason == "image_too_large"


def dicom(pixels: np.ndarray, photometric: str) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_files_are_squared_like_others(photometric: str, smooth_picture: Picture, encode: Encode) -> None:
    shown = smooth_picture(80, 40)
    shown = ((shown - shown.min()) * (255.0 / np.ptp(shown))).round().astype(np.uint8)
    stored = shown.astype(int) * 16
    data = dicom(stored if photometric == "MONOCHROME2" else stored.max() - stored, photometric)
    assert np.abs(squares(data, [32])[32].astype(int) - squares(encode(shown, "PNG"), [32])[32]).max() <= 1


def test_a_broken_dicom_file_is_unreadable() -> None:
    with pytest.raises(ImageError) as caught:
        squares(bytes(128) + b"DICM" + b"no such thing", [32])
    assert caught.value.reason == "unreadable_image"


def test_encoding_is_one_channel_and_repeatable(smooth_picture: Picture) -> None:
    pixels = smooth_picture(96, 96)
    data = encode_jpeg(pixels)
    assert data == encode_jpeg(pixels.copy())
    assert Image.open(io.BytesIO(data)).mode == "L"
    assert psnr(decode(data), pixels) > 40
