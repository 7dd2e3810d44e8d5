"""A small MIMIC-CXR-JPG folder that tests can damage."""

import gzip
import io
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unix.records import CHEXPERT_14

REPORT = " FINAL REPORT\n\n FINDINGS:  The lungs are clear.\n\n IMPRESSION:  No acute process.\n"
METADATA = ("dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns")


class MimicFolder:
    """Writes studies in MIMIC's layout; `write_tables` last."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.metadata: list[tuple[str, ...]] = []
        self.split: list[tuple[str, ...]] = []
        self.labels: list[tuple[str, ...]] = []
        (root / "files").mkdir(parents=True)

    def study(
        self,
        subject: str,
        study: str,
        images: Iterable[str] = (),
        report: str | bytes | None = REPORT,
        view: str = "PA",
        split: str = "train",
        labels: dict[str, str] | None = None,
    ) -> Path:
        """Write a study with one 20 x 16 JPEG per image id; the study's folder of images."""
        folder = self.folder(subject, study)
        folder.mkdir(parents=True)
        if report is not None:
            content = report.encode() if isinstance(report, str) else report
            folder.with_suffix(".txt").write_bytes(content)
        for image in images:
            (folder / f"{image}.jpg").write_bytes(jpeg(20, 16))
            self.metadata.append((image, subject, study, view, "20", "16"))
            self.split.append((image, study, subject, split))
        marks = labels or {}
        self.labels.append((subject, study, *(marks.get(name, "") for name in CHEXPERT_14)))
        return folder

    def folder(self, subject: str, study: str) -> Path:
        return self.root / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"

    def write_tables(self) -> Path:
        """Write the three tables; the root."""
        self.table("metadata", METADATA, self.metadata)
        self.table("split", ("dicom_id", "study_id", "subject_id", "split"), self.split)
        self.table("chexpert", ("subject_id", "study_id", *CHEXPERT_14), self.labels)
        return self.root

    def table(self, name: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Path:
        path = self.root / f"mimic-cxr-2.0.0-{name}.csv.gz"
        lines = (",".join(row) for row in (columns, *rows))
        path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
        return path


def jpeg(rows: int, columns: int) -> bytes:
    """A small grayscale JPEG file."""
    buffer = io.BytesIO()
    ramp = np.linspace(0, 255, rows * columns, dtype=np.uint8).reshape(rows, columns)
    Image.fromarray(ramp).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def mimic_folder(tmp_path: Path) -> MimicFolder:
    """An empty folder in MIMIC-CXR-JPG's layout."""
    return MimicFolder(tmp_path / "mimic")
