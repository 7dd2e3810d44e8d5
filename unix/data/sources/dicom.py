"""DICOM radiographs: header facts without pixels, and pixels as 8-bit grayscale the way a viewer shows them."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom import config as pydicom_config
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.processing import apply_modality_lut, apply_voi

from unix.data.sources.base import ImageFault
from unix.data.sources.image_header import ImageHeader
from unix.errors import ImageError

Values = npt.NDArray[np.float64]

# Files break the standard's rules on values in a hundred ways that do not touch the picture, and pydicom's warnings
# quote the values, which may name a patient.
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE


def dicom_header(path: Path) -> ImageHeader:
    """Size and view of a DICOM file.

    Raises:
        ImageError: it is no DICOM image, or shorter than its pixels.
    """
    dataset = _read(path, defer=True)
    rows, columns = _integer(dataset, "Rows"), _integer(dataset, "Columns")
    if rows < 1 or columns < 1 or "PixelData" not in dataset:
        raise ImageError(ImageFault.UNREADABLE, f"DICOM without a picture ({rows} rows, {columns} columns)")
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        needed = rows * columns * _integer(dataset, "SamplesPerPixel", 1) * _integer(dataset, "BitsAllocated", 8) // 8
        if (size := path.stat().st_size) < needed:
            raise ImageError(ImageFault.TRUNCATED, f"{size} bytes, its pixels alone take {needed}")
    view = str(dataset.get("ViewPosition") or "").strip().upper()
    return ImageHeader(rows, columns, view)


def dicom_to_uint8(source: str | Path | bytes) -> npt.NDArray[np.uint8]:
    """Decode a single-frame grayscale DICOM file or its bytes to uint8 [rows, columns], 0 = black.

    The modality LUT, then the first VOI LUT or window is applied, the window's range mapped to 0..255; without either,
    the values' own range is. `MONOCHROME1` is inverted.

    Raises:
        ImageError: no DICOM, truncated, in colour, or packed by a codec that is not installed.
    """
    dataset = _read(source)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ImageError(ImageFault.UNREADABLE, f"photometric interpretation {photometric!r:.40}, not grayscale")
    try:
        stored = dataset.pixel_array
    except Exception as error:  # pydicom's decoders raise many kinds
        fault = ImageFault.TRUNCATED if "expected" in str(error) else ImageFault.UNREADABLE
        raise ImageError(fault, f"{type(error).__name__}: {str(error).partition(chr(10))[0]:.120}") from error
    if stored.ndim != 2:
        raise ImageError(ImageFault.UNREADABLE, f"{stored.ndim} dimensions, expected one grayscale frame")
    shown = _to_range(dataset, stored)
    if photometric == "MONOCHROME1":
        shown = 1.0 - shown
    return np.round(shown * 255.0).astype(np.uint8)


def _read(source: str | Path | bytes, defer: bool = False) -> Dataset:
    file = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
    try:
        return pydicom.dcmread(file, defer_size=1024 if defer else None)  # pyright: ignore[reportUnknownMemberType]
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ImageError(ImageFault.UNREADABLE, f"no DICOM file: {type(error).__name__}") from error


def _to_range(dataset: Dataset, stored: npt.NDArray[Any]) -> Values:
    """Values in [0, 1] as DICOM PS3.3 C.11.2.1 has a viewer show them."""
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    if dataset.get("VOILUTSequence"):
        table = dataset.VOILUTSequence[0]
        bits = int(table.LUTDescriptor[2])
        looked_up = np.asarray(apply_voi(values.astype(np.int64), dataset), dtype=np.float64)
        return np.clip(looked_up / (2**bits - 1), 0.0, 1.0)
    window = _window(dataset)
    if window is None:
        low, high = float(values.min()), float(values.max())
        return (values - low) / (high - low) if high > low else np.zeros_like(values)
    centre, width = window
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(-4.0 * (values - centre) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    return np.clip((values - (centre - 0.5)) / max(width - 1.0, 1e-6) + 0.5, 0.0, 1.0)


def _window(dataset: Dataset) -> tuple[float, float] | None:
    """Centre and width of the first window that makes sense."""

    def first(name: str) -> float:
        value = dataset.get(name)
        if value is None or value == "":
            return math.nan
        return float(value if isinstance(value, int | float | str) else value[0])

    centre, width = first("WindowCenter"), first("WindowWidth")
    return (centre, width) if math.isfinite(centre) and math.isfinite(width) and width > 0 else None


def _integer(dataset: Dataset, name: str, default: int = 0) -> int:
    value = dataset.get(name)
    return default if value is None else int(value)
