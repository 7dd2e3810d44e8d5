"""The job `ingest`: brings the store's `studies` and `images` of one source up to date with its folder.

Studies whose fingerprint the store knows are not opened. Rows go in by parts, images before their studies: a study's
row with its fingerprint says that it is done, so a killed run continues where it stopped. What the folder no longer
holds in a usable form stays as a row marked `withdrawn`. Where files may still be arriving, studies that differ between
two looks are deferred: neither read nor withdrawn, but left to the next run.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import polars as pl
from pydantic import Field, model_validator

from unix.config import Config
from unix.data.sections import parse_sections
from unix.data.sources import get_source
from unix.data.sources.base import ImageFault, ListedStudy, Listing, Refusal, RefusedReport, StudyFault
from unix.data.sources.image_header import read_header
from unix.data.sources.reports import read_report
from unix.errors import ImageError, SourceError
from unix.progress import Progress
from unix.records import ImageRecord, Rejection, Study, text_digest
from unix.store import LABELS_TYPE, Store, now

JOB = "ingest"

_STUDIES_PER_COMMIT = 25_000
_STUDIES_PER_TASK = 250
_READERS = 2  # threads: a file is open, read and shut in 20 us, and one thread parses 30,000 reports a second


class IngestConfig(Config):
    """What to read, and into which store."""

    store: str = Field(description="URI of the store")
    source: str = Field(description="mimic-cxr, iu-xray or phantom")
    root: str = Field(description="the source's folder")
    complete: bool = Field(
        default=False, description="claim a full copy: its counts must be those of the data manifest"
    )
    settle_seconds: float = Field(
        default=0.0, ge=0, description="look twice, so far apart, and defer studies whose files differ; 0 looks once"
    )


class IngestSummary(Config):
    """What became of every study and every image of the folder."""

    source: str
    studies_in: int
    studies_kept: int
    studies_rejected: int
    studies_deferred: int = Field(description="studies whose files were still changing; the next run looks again")
    images_in: int
    images_kept: int
    images_rejected: int
    new: int = Field(description="kept studies that the store did not have")
    changed: int = Field(description="kept studies that the store had otherwise, or had withdrawn")
    unchanged: int = Field(description="kept studies that the store had just so")
    withdrawn: int = Field(description="studies of the store that the folder no longer holds in a usable form")
    rejections: dict[str, int] = Field(description="rejected studies and images by reason")
    seconds: float

    @model_validator(mode="after")
    def _balances(self) -> Self:
        sums = (
            (self.studies_in, self.studies_kept + self.studies_rejected + self.studies_deferred),
            (self.images_in, self.images_kept + self.images_rejected),
            (self.studies_kept, self.new + self.changed + self.unchanged),
            (self.studies_rejected + self.images_rejected, sum(self.rejections.values())),
        )
        if any(total != parts for total, parts in sums):
            raise ValueError(f"counts do not balance: {sums}")
        return self


@dataclass(frozen=True, slots=True)
class Reading:
    """A listed study after its files were opened: the study, or None, and what was refused of it."""

    study: Study | None
    refusals: tuple[Refusal, ...]


def ingest(config: IngestConfig) -> IngestSummary:
    """Read what is new or changed in a source into the store's tables, and mark what is gone.

    Raises:
        ConfigError: the source's name is unknown.
        SourceError: the folder is missing, damaged, or not what it is claimed to be; then nothing was written.
    """
    start = time.monotonic()
    source, root = get_source(config.source), Path(config.root).resolve()
    if not root.is_dir():
        raise SourceError(f"missing folder {root}; --root takes the folder of source {source.name}")
    store = Store(config.store)
    stored = read_stored(store, source.name)
    listing = source.list_studies(root, config.complete)
    moving = frozenset[str]()
    if config.settle_seconds and (stored.pending(listing).height or stored.missing(listing)):
        time.sleep(config.settle_seconds)
        first, listing = listing, source.list_studies(root, config.complete)
        moving = unsettled(first, listing)
        listing = without(listing, moving)
    if not moving and listing.studies.is_empty() and stored.studies.height:
        raise SourceError(
            f"{root} holds no study with a report and an image, yet the store has {stored.studies.height} of "
            f"{source.name}; not withdrawing them all. Is the folder mounted?"
        )
    tally = _Tally(list(listing.refusals))
    pending = stored.pending(listing)
    current = listing.images.join(pending, on="study_id", how="anti")
    tally.keep(current["study_id"], current["image_id"])
    _read_into(store, root, listing, pending, stored, tally)
    withdrawn = _withdraw(store, source.name, stored, tally, moving)
    store.replace_rejections(JOB, _rejections(source.name, tally.refusals), source.name)
    return _summarise(source.name, stored, tally, withdrawn, len(moving), time.monotonic() - start)


def unsettled(first: Listing, second: Listing) -> frozenset[str]:
    """Studies of two looks at one folder that came, went or changed between them."""
    both = first.studies.join(second.studies, on=["study_id", "fingerprint"], how="semi")["study_id"]
    return frozenset({*first.studies["study_id"], *second.studies["study_id"]} - set(both))


def without(listing: Listing, studies: frozenset[str]) -> Listing:
    """The listing without these studies and their images."""
    stays = ~pl.col("study_id").is_in(sorted(studies))
    return replace(listing, studies=listing.studies.filter(stays), images=listing.images.filter(stays))


def read_study(
    root: Path, listed: ListedStudy, taken: frozenset[str] = frozenset(), image_files: bool = True
) -> Reading:
    """Open a listed study's report and, where there are `image_files`, their headers.

    `taken` are image ids that other sources have.
    """
    try:
        report = read_report(root, listed.report)
    except RefusedReport as error:
        study = Refusal(listed.key.study_id, error.fault, error.detail)
        detail = f"study {listed.key.study_id}: {error.fault}"
        images = (Refusal(image.image_id, ImageFault.OF_REFUSED_STUDY, detail) for image in listed.images)
        return Reading(None, (study, *images))
    kept: list[ImageRecord] = []
    refusals: list[Refusal] = []
    for image in listed.images:
        if image.image_id in taken:
            refusals.append(Refusal(image.image_id, ImageFault.TAKEN))
            continue
        try:
            kept.append(_measure(root, image) if image_files else image)
        except ImageError as error:
            refusals.append(Refusal(image.image_id, ImageFault(error.reason), error.detail))
    if not kept:
        refusals.append(Refusal(listed.key.study_id, StudyFault.WITHOUT_USABLE_IMAGE))
        return Reading(None, tuple(refusals))
    return Reading(Study(listed.key, report, tuple(kept), listed.fingerprint), tuple(refusals))


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store knew of the source when the job began."""

    studies: pl.DataFrame
    """study_id, fingerprint of the live studies."""
    withdrawn: frozenset[str]
    """Study ids."""
    images: pl.DataFrame
    """study_id, image_id of the live images."""
    taken: frozenset[str]
    """Image ids of other sources."""

    def pending(self, listing: Listing) -> pl.DataFrame:
        """The listed studies that do not stand in the store as they are, with all their images."""
        stray = listing.images.join(self.images, on="image_id", how="anti").select("study_id")
        current = listing.studies.join(self.studies, on=["study_id", "fingerprint"], how="semi").join(
            stray, on="study_id", how="anti"
        )
        return listing.studies.join(current, on="study_id", how="anti", maintain_order="left")

    def missing(self, listing: Listing) -> frozenset[str]:
        """Live studies of the store that the folder no longer holds in a usable form."""
        return frozenset(self.studies["study_id"]) - frozenset(listing.studies["study_id"])


@dataclass(slots=True)
class _Tally:
    """What the job has decided so far."""

    refusals: list[Refusal]
    studies: set[str] = field(default_factory=set[str])
    """Kept study ids."""
    images: set[str] = field(default_factory=set[str])
    """Kept image ids."""
    written: list[str] = field(default_factory=list[str])
    """Kept study ids that did not stand in the store as they are."""

    def keep(self, studies: Iterable[str], images: Iterable[str]) -> None:
        """Count studies and images as kept."""
        self.studies.update(studies)
        self.images.update(images)


def read_stored(store: Store, source: str) -> Stored:
    """What the store knows of a source."""
    mine, live = pl.col("source") == source, ~pl.col("withdrawn")
    studies = store.scan("studies").filter(mine).select("study_id", "fingerprint", "withdrawn").collect()
    images = store.scan("images").select("source", "study_id", "image_id", "withdrawn").collect()
    return Stored(
        studies.filter(live).select("study_id", "fingerprint"),
        frozenset(studies.filter(~live)["study_id"]),
        images.filter(mine & live).select("study_id", "image_id"),
        frozenset(images.filter(~mine)["image_id"]),
    )


def _read_into(
    store: Store, root: Path, listing: Listing, pending: pl.DataFrame, stored: Stored, tally: _Tally
) -> None:
    """Read the pending studies and write them, part by part."""
    store.create("images", "studies")
    fingerprints, images = dict(stored.studies.iter_rows()), frozenset(stored.images["image_id"])

    def is_current(study: Study) -> bool:
        return fingerprints.get(study.key.study_id) == study.fingerprint and all(
            image.image_id in images for image in study.images
        )

    def read(listed: list[ListedStudy]) -> list[Reading]:
        return [read_study(root, study, stored.taken, listing.image_files) for study in listed]

    with Progress("reading studies", pending.height) as progress, ThreadPoolExecutor(_READERS) as readers:
        for part in pending.iter_slices(_STUDIES_PER_COMMIT):
            changed: list[Study] = []
            listed = list(listing.records(part))
            tasks = (listed[start : start + _STUDIES_PER_TASK] for start in range(0, len(listed), _STUDIES_PER_TASK))
            for readings in readers.map(read, tasks):
                for reading in readings:
                    tally.refusals.extend(reading.refusals)
                    if (study := reading.study) is not None:
                        tally.keep([study.key.study_id], (image.image_id for image in study.images))
                        if not is_current(study):
                            changed.append(study)
                progress.advance(len(readings))
            if changed:
                store.upsert("images", _image_rows(root, changed))
                store.upsert("studies", _study_rows(changed))
                tally.written.extend(study.key.study_id for study in changed)


def _withdraw(store: Store, source: str, stored: Stored, tally: _Tally, moving: frozenset[str]) -> int:
    """Mark what the store has and the folder no longer does, but for studies on the move; the number of studies."""
    gone = set(stored.studies["study_id"]) - tally.studies - moving
    settled = stored.images.filter(~pl.col("study_id").is_in(sorted(moving)))
    gone_images = set(settled["image_id"]) - tally.images
    for table, column, ids in (("images", "image_id", gone_images), ("studies", "study_id", gone)):
        if ids:
            rows = store.scan(table).filter(pl.col("source") == source, pl.col(column).is_in(sorted(ids)))
            store.upsert(table, rows.with_columns(withdrawn=True).collect())
    return len(gone)


def _rejections(source: str, refusals: Iterable[Refusal]) -> Iterator[Rejection]:
    """One row per refusal: an item refused again for the same reason, such as a repeated id, gets a number."""
    times: Counter[tuple[str, str]] = Counter()
    for refusal in refusals:
        times[refusal.item, refusal.fault] += 1
        number = times[refusal.item, refusal.fault]
        item = refusal.item if number == 1 else f"{refusal.item}#{number}"
        yield Rejection(JOB, source, item, refusal.fault, refusal.detail)


def _summarise(
    source: str, stored: Stored, tally: _Tally, withdrawn: int, deferred: int, seconds: float
) -> IngestSummary:
    faults = Counter(refusal.fault for refusal in tally.refusals)
    studies_rejected = sum(count for fault, count in faults.items() if isinstance(fault, StudyFault))
    images_rejected = faults.total() - studies_rejected
    known = {*stored.studies["study_id"], *stored.withdrawn}
    new = sum(study not in known for study in tally.written)
    return IngestSummary(
        source=source,
        studies_in=len(tally.studies) + studies_rejected + deferred,
        studies_kept=len(tally.studies),
        studies_rejected=studies_rejected,
        studies_deferred=deferred,
        images_in=len(tally.images) + images_rejected,
        images_kept=len(tally.images),
        images_rejected=images_rejected,
        new=new,
        changed=len(tally.written) - new,
        unchanged=len(tally.studies) - len(tally.written),
        withdrawn=withdrawn,
        rejections={fault.value: faults[fault] for fault in sorted(faults)},
        seconds=round(seconds, 3),
    )


def _measure(root: Path, image: ImageRecord) -> ImageRecord:
    """The image with the size that its file states, and the file's view where the table has none."""
    header = read_header(root / image.path)
    return replace(
        image, rows=header.rows, columns=header.columns, view_position=image.view_position or header.view_position
    )


def _study_rows(studies: Sequence[Study]) -> pl.DataFrame:
    parsed = [parse_sections(study.report_raw) for study in studies]
    return pl.DataFrame(
        {
            "source": [study.key.source for study in studies],
            "subject_id": [study.key.subject_id for study in studies],
            "study_id": [study.key.study_id for study in studies],
            "report_raw": [study.report_raw for study in studies],
            "report_sha256": [text_digest(study.report_raw) for study in studies],
            "findings_raw": [sections.findings for sections in parsed],
            "impression_raw": [sections.impression for sections in parsed],
            "sections": [json.dumps(sections.text, ensure_ascii=False) for sections in parsed],
            "fingerprint": [study.fingerprint for study in studies],
            "withdrawn": False,
        }
    ).with_columns(ingested_at=now())


def _image_rows(root: Path, studies: Sequence[Study]) -> pl.DataFrame:
    rows = [(study.key, image) for study in studies for image in study.images]
    return pl.DataFrame(
        {
            "source": [key.source for key, _ in rows],
            "subject_id": [key.subject_id for key, _ in rows],
            "study_id": [key.study_id for key, _ in rows],
            "image_id": [image.image_id for _, image in rows],
            "path": [f"{root}/{image.path}" for _, image in rows],
            "view_position": [image.view_position for _, image in rows],
            "rows": [image.rows for _, image in rows],
            "columns": [image.columns for _, image in rows],
            "labels": pl.Series([image.labels for _, image in rows], dtype=LABELS_TYPE),
            "official_split": pl.Series([image.official_split for _, image in rows], dtype=pl.String),
            "withdrawn": False,
        }
    )
