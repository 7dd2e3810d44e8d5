"""The nouns of the pipeline before tensors: typed, immutable, free of torch and of I/O."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

CHEXPERT_14: tuple[str, ...] = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
"""The CheXpert classes in MIMIC-CXR-JPG's column order (Irvin et al. 2019)."""

CHEXPERT_5: tuple[str, ...] = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")

FRONTAL_VIEWS = frozenset({"AP", "PA", "FRONTAL"})
"""View positions of frontal radiographs; FRONTAL comes from sources that do not tell AP from PA."""

Labels = dict[str, int | None]
"""CheXpert class -> 1 positive, 0 negative, -1 uncertain, None not mentioned. Always all 14 keys."""


def no_labels() -> Labels:
    """Labels with nothing mentioned."""
    return dict.fromkeys(CHEXPERT_14)


class Split(StrEnum):
    """The part of a data set that a subject belongs to; never two."""

    TRAIN = "train"
    VALIDATE = "validate"
    TEST = "test"


class Task(StrEnum):
    """What a sample is for; also names the model's branch."""

    UNDERSTANDING = "understanding"
    GENERATION = "generation"


class Status(StrEnum):
    """Where a report stands after cleaning; all but FAILED are final."""

    ACCEPTED = "accepted"
    FLAGGED = "flagged"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Sections:
    """A report taken apart: normalised section name -> text as written, in report order."""

    text: dict[str, str]

    @property
    def findings(self) -> str:
        """The findings section, "" where there is none."""
        return self.text.get("findings", "")

    @property
    def impression(self) -> str:
        """The impression section, "" where there is none."""
        return self.text.get("impression", "")


@dataclass(frozen=True, slots=True)
class StudyKey:
    """The identity of a study. Subject and study ids are strings without MIMIC's `p` and `s`."""

    source: str
    subject_id: str
    study_id: str


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One radiograph of a study; `path` is relative to the source's root, with forward slashes."""

    image_id: str
    path: str
    view_position: str
    rows: int
    columns: int
    labels: Labels | None = None
    official_split: str | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """What a source yields: one report as written and the images that belong to it."""

    key: StudyKey
    report_raw: str
    images: tuple[ImageRecord, ...]
    fingerprint: str = ""
    """Cheap proof that nothing behind the study has changed: its table rows, and its files' sizes and times."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An item a job refused. `item` is an id or relative path and `detail` a short cause; neither holds report text."""

    job: str
    source: str
    item: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RemovedSpan:
    """Text that cleaning took out, and why."""

    text: str
    category: str


@dataclass(frozen=True, slots=True)
class CleanedReport:
    """A cleaned report as it will be trained on."""

    findings: str
    impression: str
    removed: tuple[RemovedSpan, ...] = field(default=())


def text_digest(text: str) -> str:
    """SHA-256 (hex) of a text; `report_sha256` everywhere is this of the raw report."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def join_report(findings: str, impression: str) -> str:
    """The one string a model reads or writes for a report: `FINDINGS: ... IMPRESSION: ...`, absent parts left out."""
    parts: list[str] = []
    if findings:
        parts.append(f"FINDINGS: {findings}")
    if impression:
        parts.append(f"IMPRESSION: {impression}")
    return " ".join(parts)
