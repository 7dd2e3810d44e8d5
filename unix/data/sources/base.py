"""What a source is: something that lists studies cheaply, so that only new and changed ones are read.

A listing comes from tables and folder entries alone; no report and no pixel is opened for it. Everything that a source
finds ends up either in `Listing.studies` or as a refusal, so that what goes in can be balanced against what comes out.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from unix.records import ImageRecord, StudyKey

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


class ReportLocation(Protocol):
    """Where a report lies."""

    @property
    def fingerprint(self) -> str:
        """Changes when the report does; costs no reading."""
        ...

    def read(self, root: Path) -> bytes:
        """The report as stored, below `root`.

        Raises:
            RefusedReport: it is gone, damaged or too large.
        """
        ...


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """A study that has a report and at least one image, none of them opened yet."""

    key: StudyKey
    report: ReportLocation
    images: tuple[ImageRecord, ...]
    fingerprint: str
    image_files: bool = True
    """Whether the images' files exist; a phantom may have been written without."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that a source's tables and folders name, each item once."""

    studies: list[ListedStudy]
    refusals: list[Refusal]


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


def fingerprint(parts: Iterable[str]) -> str:
    """32 hex digits over the parts and `INGEST_REVISION`."""
    return hashlib.blake2b("\0".join((INGEST_REVISION, *parts)).encode(), digest_size=16).hexdigest()


def printable(item: str) -> str:
    """An id or path from outside as it may stand in tables and logs: control characters escaped, at most 200 long."""
    text = item if item.isprintable() else item.encode("unicode_escape", "replace").decode()
    return text if len(text) <= 200 else f"{text[:199]}…"


def is_outward(name: str) -> bool:
    """Whether an id or path would climb out of a folder it is joined to."""
    return "/" in name or "\\" in name or "\0" in name or name in (".", "..")
