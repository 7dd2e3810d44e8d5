"""What a source is: something that lists studies cheaply, so that only new and changed ones are read.

A listing comes from tables and folder entries alone; no report and no pixel is opened for it. It is made of frames, so
that 200,000 unchanged studies cost seconds. Everything that a source finds ends up either in `Listing.studies` or as a
refusal, so that what goes in can be balanced against what comes out.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import polars as pl

from unix.records import ImageRecord, StudyKey
from unix.store import LABELS_TYPE

INGEST_REVISION = "1"
"""Part of every fingerprint: raise it when reading the same files gives different rows, and all are read again."""


class StudyFault(StrEnum):
    """Why a study is refused."""

    MALFORMED_ID = "malformed_study_id"
    DUPLICATE = "duplicate_study_id"
    WITHOUT_REPORT = "study_without_report"
    WITHOUT_IMAGES = "study_without_images"
    WITHOUT_USABLE_IMAGE = "study_without_usable_image"
    OUTSIDE_ROOT = "report_outside_root"
    EMPTY = "empty_report"
    NOT_UTF8 = "report_not_utf8"
    TOO_LARGE = "report_too_large"
    UNREADABLE = "unreadable_report"


class ImageFault(StrEnum):
    """Why an image is refused."""

    MALFORMED_ID = "malformed_image_id"
    MALFORMED_SIZE = "malformed_image_size"
    DUPLICATE = "duplicate_image_id"
    TAKEN = "image_id_of_another_source"
    OUTSIDE_ROOT = "image_outside_root"
    MISSING = "missing_image_file"
    WITHOUT_METADATA = "image_without_metadata"
    TRUNCATED = "truncated_image"
    UNREADABLE = "unreadable_image"
    OF_REFUSED_STUDY = "image_of_refused_study"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A study or an image that is not taken; which of the two, its fault says. `detail` holds no report text."""

    item: str
    fault: StudyFault | ImageFault
    detail: str = ""


class RefusedReport(Exception):
    """A report cannot be read; `fault` is what the study is refused for."""

    def __init__(self, fault: StudyFault, detail: str = "") -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault
        self.detail = detail


LOCATION = pl.Schema(
    {
        "path": pl.String,  # of a file below the root, or a member's name in `archive`
        "size": pl.Int64,
        "archive": pl.String,  # zip file below the root; null = a file of its own
        "offset": pl.Int64,
        "packed": pl.Int64,
        "crc": pl.Int64,
        "method": pl.Int64,
        "flags": pl.Int64,
        "text": pl.String,  # a report that stands in a table; null = it must be read
    }
)
"""Where a report lies; a field that does not apply is null."""

REPORTS = pl.Schema(
    {
        "subject_id": pl.String,
        "study_id": pl.String,
        "location": pl.Struct(LOCATION),
        "mark": pl.String,  # changes when the report does
        "fault": pl.String,  # a StudyFault, where the report cannot be taken
    }
)
"""A row per report found; no study twice."""

IMAGES = pl.Schema(
    {
        "subject_id": pl.String,
        "study_id": pl.String,
        "image_id": pl.String,
        "path": pl.String,  # relative to the root, forward slashes
        "view_position": pl.String,
        "rows": pl.Int32,
        "columns": pl.Int32,
        "labels": LABELS_TYPE,
        "official_split": pl.String,
        "mark": pl.String,  # changes when the file or a table's row does
        "item": pl.String,  # what a refusal calls it
        "fault": pl.String,  # an ImageFault, where it cannot be taken
    }
)
"""A row per image that a table names, in the table's order; the ids are null where the study's are malformed."""

LISTED = pl.Schema(
    {name: REPORTS[name] for name in ("subject_id", "study_id", "location")} | {"fingerprint": pl.String}
)
"""A row per study that has a report and an image, sorted by ids; no study id twice."""

LISTED_IMAGES = pl.Schema({name: dtype for name, dtype in IMAGES.items() if name not in ("mark", "item", "fault")})
"""A row per image of those studies, study by study; no image id twice."""


@dataclass(frozen=True, slots=True)
class ReportLocation:
    """Where a report lies: the fields of `LOCATION`."""

    path: str
    size: int
    archive: str | None = None
    offset: int = 0
    packed: int = 0
    crc: int = 0
    method: int = 0
    flags: int = 0
    text: str | None = None


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """A row of `LISTED` as a record."""

    key: StudyKey
    report: ReportLocation
    images: tuple[ImageRecord, ...]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that a source's tables and folders name, each item once."""

    source: str
    studies: pl.DataFrame
    """`LISTED`."""
    images: pl.DataFrame
    """`LISTED_IMAGES`."""
    refusals: list[Refusal]
    image_files: bool = True
    """Whether the images' files exist; a phantom may have been written without."""

    def records(self, studies: pl.DataFrame) -> Iterator[ListedStudy]:
        """Rows of `studies` as records."""
        images: dict[str, list[ImageRecord]] = {}
        fields = [name for name in LISTED_IMAGES if name not in ("subject_id", "study_id")]
        mine = self.images.join(studies.select("study_id"), on="study_id", how="semi", maintain_order="left")
        for study_id, *values in mine.select("study_id", *fields).iter_rows():
            images.setdefault(study_id, []).append(ImageRecord(*values))
        for subject_id, study_id, location, fingerprint in studies.select(LISTED.names()).iter_rows():
            key = StudyKey(self.source, subject_id, study_id)
            yield ListedStudy(key, ReportLocation(**location), tuple(images[study_id]), fingerprint)


class Source(Protocol):
    """A kind of folder that holds studies."""

    @property
    def name(self) -> str:
        """What `--source` and the tables' `source` column call it."""
        ...

    @property
    def credentialed(self) -> bool:
        """Whether a data-use agreement covers its text."""
        ...

    def list_studies(self, root: Path, complete: bool = False) -> Listing:
        """List what is below `root` (resolved); `complete` claims a full copy and checks it against the manifest.

        Raises:
            SourceError: a folder or table is missing, damaged, or not what the manifest says.
        """
        ...


def as_location(columns: Collection[str]) -> pl.Expr:
    """A struct of `LOCATION` from a frame with these columns, null where it has none of that name."""
    fields = [name if name in columns else pl.lit(None, dtype).alias(name) for name, dtype in LOCATION.items()]
    return pl.struct(fields)


def printable(item: str) -> str:
    """An id or path from outside as it may stand in tables and logs: control characters escaped, at most 200 long."""
    text = item if item.isprintable() else item.encode("unicode_escape", "replace").decode()
    return text if len(text) <= 200 else f"{text[:199]}…"
