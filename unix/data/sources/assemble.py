"""Reports and images that a source found -> studies, with a refusal for everything that does not fit (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unix.data.sources.base import (
    ImageFault,
    ListedStudy,
    Listing,
    Refusal,
    ReportLocation,
    StudyFault,
    fingerprint,
)
from unix.records import ImageRecord, Labels, StudyKey

StudyIds = tuple[str, str]
"""(subject_id, study_id)."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image that its table and its folder agree on."""

    record: ImageRecord
    mark: str
    """Changes when the file does."""


def assemble(
    source: str,
    root: Path,
    reports: Mapping[StudyIds, ReportLocation | StudyFault],
    images: Mapping[StudyIds, Sequence[FoundImage]],
    refusals: Sequence[Refusal] = (),
    image_files: bool = True,
) -> Listing:
    """Pair reports with images; of several studies with one study id, only the first that is whole is taken.

    A fault in place of a report's location refuses the study for it. `images` has a key for every study that a table
    names, also where no image of it can be used. `refusals` are those of the caller, listed first.
    """
    listing = Listing([], list(refusals))
    taken: set[str] = set()
    for ids in sorted(reports.keys() | images.keys()):
        key = StudyKey(source, *ids)
        report, found = reports.get(ids, StudyFault.WITHOUT_REPORT), images.get(ids)
        if isinstance(report, StudyFault):
            fault = report
        elif not found:
            fault = StudyFault.WITHOUT_IMAGES if found is None else StudyFault.WITHOUT_USABLE_IMAGE
        elif key.study_id in taken:
            fault = StudyFault.DUPLICATE
        else:
            taken.add(key.study_id)
            mark = fingerprint((str(root), report.fingerprint, *_marks(found)))
            records = tuple(image.record for image in found)
            listing.studies.append(ListedStudy(key, report, records, mark, image_files))
            continue
        listing.refusals.extend(refuse_study(key, fault, [image.record for image in found or ()]))
    return listing


def refuse_study(
    key: StudyKey, fault: StudyFault, images: Sequence[ImageRecord], detail: str = ""
) -> Iterator[Refusal]:
    """The refusals of a study and of the images that go with it."""
    item = f"{key.subject_id}/{key.study_id}" if fault is StudyFault.DUPLICATE else key.study_id
    yield Refusal(item, fault, detail)
    for image in images:
        yield Refusal(image.image_id, ImageFault.OF_REFUSED_STUDY, f"study {key.study_id}: {fault}")


def _marks(images: Sequence[FoundImage]) -> Iterator[str]:
    labels: Labels | None = None
    for image in images:
        record = image.record
        yield (
            f"{record.image_id}:{record.path}:{record.view_position}:{record.rows}:{record.columns}:"
            f"{record.official_split}:{image.mark}"
        )
        if record.labels is not labels:  # images of a study share one object as a rule
            labels = record.labels
            yield ",".join(str(value) for value in labels.values()) if labels else "unlabelled"
