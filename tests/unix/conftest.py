"""A small MIMIC-CXR-JPG folder that tests can damage, and a small curated store to fill."""

import gzip
import io
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unix.records import CHEXPERT_14, no_labels
from unix.store import SCHEMAS, Store

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


EARLY = datetime(2024, 1, 1, tzinfo=UTC)


def smooth_picture(columns: int, rows: int, seed: int = 0) -> np.ndarray:
    """A smooth uint8 picture [rows, columns] with grey everywhere, so that padding is told from content."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns] / max(columns, rows)
    waves = sum(np.sin(7 * (a * x + b * y) + c) for a, b, c in generator.uniform(0.5, 4, (4, 3)))
    return (128 + 25 * waves).clip(30, 255).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str = "JPEG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


class CuratedStore:
    """Writes rows straight into a store's tables, with defaults for every column that a test does not care about."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}

    def study(self, study_id: str, subject_id: str | None = None, *, source: str = "phantom", **changes: Any) -> None:
        defaults = dict(
            source=source,
            subject_id=subject_id or study_id,
            study_id=study_id,
            report_raw="",
            report_sha256=f"sha-{study_id}",
            findings_raw="",
            impression_raw="",
            sections="{}",
            fingerprint="",
            ingested_at=EARLY,
            withdrawn=False,
        )
        self._rows["studies"].append({**defaults, **changes})

    def image(
        self, image_id: str, study_id: str, subject_id: str | None = None, *, source: str = "phantom", **changes: Any
    ) -> Path:
        path = self.root / "images" / f"{image_id}.jpg"
        defaults = dict(
            source=source,
            subject_id=subject_id or study_id,
            study_id=study_id,
            image_id=image_id,
            path=str(path),
            view_position="PA",
            rows=90,
            columns=120,
            labels={**no_labels(), "Edema": 1, "Fracture": -1},
            official_split=None,
            withdrawn=False,
        )
        self._rows["images"].append({**defaults, **changes})
        return path

    def cleaned(self, study_id: str, *, source: str = "phantom", minutes: int = 0, **changes: Any) -> None:
        defaults = dict(
            source=source,
            study_id=study_id,
            report_sha256=f"sha-{study_id}",
            prompt_version="v1",
            prompt_digest="prompt",
            model="rules",
            parameters_digest="parameters",
            endpoint="embedded",
            status="accepted",
            findings=f"Findings of {study_id}.",
            impression=f"Impression of {study_id}.",
            removed=[],
            flags=[],
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            cost_usd=0.0,
            latency_ms=0.0,
            attempts=1,
            created_at=EARLY + timedelta(minutes=minutes),
        )
        self._rows["cleaned_reports"].append({**defaults, **changes})

    def review(self, study_id: str, decision: str, *, minutes: int = 0, **changes: Any) -> None:
        defaults = dict(
            source="phantom",
            study_id=study_id,
            report_sha256=f"sha-{study_id}",
            prompt_version="v1",
            model="rules",
            decision=decision,
            findings="",
            impression="",
            reviewer="somebody",
            note="",
            created_at=EARLY + timedelta(minutes=minutes),
        )
        self._rows["reviews"].append({**defaults, **changes})

    def complete_study(self, study_id: str, subject_id: str | None = None, *, images: int = 1, **changes: Any) -> None:
        """A study with a cleaned report and image files `<study_id>-<n>`, their split as `changes` says."""
        self.study(study_id, subject_id)
        self.cleaned(study_id)
        for number in range(images):
            path = self.image(f"{study_id}-{number}", study_id, subject_id, **changes)
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = int.from_bytes(path.name.encode()) % 2**32
            path.write_bytes(encode(smooth_picture(120, 90, seed)))

    def commit(self) -> str:
        """Write the rows gathered so far; returns the store's URI."""
        for table, rows in self._rows.items():
            if rows:
                frame = pl.DataFrame(rows, schema=SCHEMAS[table])
                (self.store.append if table == "reviews" else self.store.upsert)(table, frame)
                rows.clear()
        return self.store.uri


@pytest.fixture
def curated(tmp_path: Path) -> CuratedStore:
    """An empty store to fill with curated rows."""
    return CuratedStore(tmp_path)


@pytest.fixture(name="smooth_picture")
def smooth_picture_fixture() -> Callable[..., np.ndarray]:
    """`smooth_picture(columns, rows, seed)`."""
    return smooth_picture


@pytest.fixture(name="encode")
def encode_fixture() -> Callable[..., bytes]:
    """`encode(pixels, kind)`."""
    return encode
