"""DICOM pictures as a viewer shows them, in 8 bits."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from unix.data.sources.dicom import dicom_to_uint8
from unix.data.sources.image_header import ImageHeader, read_header
from unix.errors import ImageError

RAMP = np.arange(0, 4096, 64, dtype=np.uint16).reshape(4, 16)


def dataset(values: np.ndarray = RAMP, **fields: object) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    made.Rows, made.Columns = values.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = values.astype("<u2").tobytes()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def encoded(made: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def shown(**fields: object) -> np.ndarray:
    return dicom_to_uint8(encoded(dataset(**fields)))


def test_without_a_window_the_values_own_range_is_shown() -> None:
    picture = shown()
    assert (picture.shape, picture.dtype) == ((4, 16), np.uint8)
    assert (picture.min(), picture.max()) == (0, 255)
    assert (np.diff(picture.ravel().astype(int)) >= 0).all()


def test_monochrome1_is_inverted() -> None:
    assert np.array_equal(shown(PhotometricInterpretation="MONOCHROME1"), 255 - shown())


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_maps_its_centre_to_mid_grey_and_clips_beyond(function: str) -> None:
    picture = shown(WindowCenter="2048", WindowWidth="512", VOILUTFunction=function)
    assert abs(int(picture.ravel()[2048 // 64]) - 128) <= 1
    assert picture[RAMP < 1024].max() <= 1
    assert picture[RAMP > 3072].min() >= 254


def test_the_first_of_several_windows_counts() -> None:
    several = shown(WindowCenter=["1000", "3000"], WindowWidth=["200", "200"])
    assert np.array_equal(several, shown(WindowCenter="1000", WindowWidth="200"))


def test_the_rescale_is_applied_before_the_window() -> None:
    rescaled = shown(RescaleSlope="2", RescaleIntercept="-1000", WindowCenter="3096", WindowWidth="1025")
    plain = shown(WindowCenter="2048", WindowWidth="513")
    assert np.abs(rescaled.astype(int) - plain).max() <= 1


def test_a_lookup_table_is_applied() -> None:
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - 16 * np.arange(4096)).astype("<u2").tobytes()
    picture = shown(VOILUTSequence=[table])
    assert np.array_equal(picture, np.round((65535 - 16.0 * RAMP) / 65535 * 255).astype(np.uint8))


def test_one_value_everywhere_is_black() -> None:
    assert shown(values=np.full((3, 5), 700, np.uint16)).max() == 0


def test_a_path_gives_what_its_bytes_give(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(encoded(dataset()))
    assert np.array_equal(dicom_to_uint8(path), dicom_to_uint8(path.read_bytes()))
    assert np.array_equal(dicom_to_uint8(str(path)), dicom_to_uint8(path))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"PhotometricInterpretation": "RGB"}, "unreadable_image"),
        ({"PixelData": b"12"}, "truncated_image"),
        ({"BitsAllocated": 7}, "unreadable_image"),
        ({"NumberOfFrames": "2", "PixelData": RAMP.tobytes() * 2}, "unreadable_image"),
    ],
)
def test_what_cannot_be_shown_is_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ImageError) as caught:
        dicom_to_uint8(encoded(dataset(**fields)))
    assert caught.value.reason == reason
    assert "\n" not in str(caught.value)


def test_what_is_no_dicom_is_refused() -> None:
    with pytest.raises(ImageError, match="unreadable_image"):
        dicom_to_uint8(b"no dicom at all")


def test_the_header_gives_size_and_view(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(encoded(dataset(ViewPosition="PA ")))
    assert read_header(path) == ImageHeader(4, 16, "PA")


def test_headers_of_truncated_and_pictureless_files_are_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.dcm", encoded(dataset(np.zeros((64, 64))))
    path.write_bytes(whole[:-4000])
    with pytest.raises(ImageError, match="truncated_image"):
        read_header(path)
    made = dataset()
    del made.PixelData
    path.write_bytes(encoded(made))
    with pytest.raises(ImageError, match="unreadable_image"):
        read_header(path)


def test_values_that_break_the_standard_are_not_quoted_in_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = encoded(dataset(ViewPosition="PA", PatientBirthDate="19700101"))
    (tmp_path / "a.dcm").write_bytes(content.replace(b"19700101", b"Jan 1970"))
    assert read_header(tmp_path / "a.dcm").view_position == "PA"
    assert dicom_to_uint8(tmp_path / "a.dcm").shape == (4, 16)
    assert caplog.messages == []
