"""MIMIC-CXR-JPG 2.x: three CSV tables, images below `files/`, reports as text files beside them or in one zip file."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unix.data.sources.archive import ArchivedFile, list_archive
from unix.data.sources.assemble import FoundImage, StudyIds, assemble
from unix.data.sources.base import (
    ImageFault,
    Listing,
    Refusal,
    ReportLocation,
    StudyFault,
    is_outward,
    printable,
)
from unix.data.sources.files import FoundFile, Walk, walk
from unix.data.sources.manifest import SourceManifest, load_manifest
from unix.data.sources.tables import read_table, require_known, unique_by
from unix.errors import SourceError
from unix.records import CHEXPERT_14, ImageRecord, Labels, Split

FILES = "files"
REPORTS_ARCHIVE = "mimic-cxr-reports.zip"

_IMAGE_SUFFIXES = (".jpg", ".dcm")  # the first that exists is taken
_REPORT = re.compile(r"(?:[\w.-]+/)?files/p(\d\d)/p(\1\d{1,18})/s(\d{1,20})\.txt", re.ASCII)
_LABEL_VALUES = {"1.0": 1, "1": 1, "0.0": 0, "0": 0, "-1.0": -1, "-1": -1, "": None}


class MimicCxr:
    """Source `mimic-cxr`."""

    name = "mimic-cxr"
    credentialed = True

    def list_studies(self, root: Path, complete: bool = False) -> Listing:
        """As `Source.list_studies`."""
        return list_mimic_layout(self.name, "mimic-cxr-jpg-2.0.0", root, complete)


def list_mimic_layout(source: str, manifest_name: str, root: Path, complete: bool, image_files: bool = True) -> Listing:
    """List a folder in MIMIC-CXR-JPG's layout; without `image_files` the metadata's word is taken for every image.

    A report's text file wins over the same report in the archive.

    Raises:
        SourceError: as `Source.list_studies`.
    """
    tables = _read_tables(root, load_manifest(manifest_name), complete)
    archived = list_archive(root, REPORTS_ARCHIVE)
    if archived and not image_files and not (root / FILES).exists():
        found = Walk()
    else:
        found = walk(root, FILES, (*_IMAGE_SUFFIXES, ".txt"))
    refusals: list[Refusal] = []
    reports = _place_reports(archived, refusals)
    reports |= _place_reports((file for file in found.files if file.path.endswith(".txt")), refusals)
    images = _place_images(tables, found, image_files, refusals)
    for link in found.outside:
        if match := _REPORT.fullmatch(link):
            reports[match[2], match[3]] = StudyFault.OUTSIDE_ROOT
    for subject, study in images.keys() - reports.keys():
        if found.leads_outside(f"{_study_folder(subject, study)}.txt"):
            reports[subject, study] = StudyFault.OUTSIDE_ROOT
    if complete:
        _require_complete(root, load_manifest(manifest_name), tables, found, len(reports))
    return assemble(source, root, reports, images, refusals, image_files)


@dataclass(frozen=True, slots=True)
class _Tables:
    metadata: pl.DataFrame
    """image_id, subject_id, study_id, view, rows, columns, split, ids_ok, image_ok: a row per metadata row."""
    labels: dict[str, Labels]
    """By study id."""
    split_counts: dict[str, int]


def _read_tables(root: Path, manifest: SourceManifest, complete: bool) -> _Tables:
    metadata = read_table(root, manifest, "metadata", complete)
    split = read_table(root, manifest, "split", complete)
    labels = read_table(root, manifest, "chexpert", complete)
    split_file, label_file = manifest.tables["split"].file, manifest.tables["chexpert"].file
    split = unique_by(split.select("dicom_id", "split"), "dicom_id", split_file)
    require_known(split, "split", list(Split), split_file)
    labels = unique_by(labels.select("study_id", *CHEXPERT_14), "study_id", label_file)
    for name in CHEXPERT_14:
        require_known(labels, name, _LABEL_VALUES, label_file)
    values = labels.with_columns(pl.col(CHEXPERT_14).replace_strict(_LABEL_VALUES, return_dtype=pl.Int8))
    number, image_id = r"^[0-9]{3,20}$", r"^[A-Za-z0-9_-]{1,200}$"
    return _Tables(
        metadata.join(split, on="dicom_id", how="left", maintain_order="left").select(
            image_id="dicom_id",
            subject_id="subject_id",
            study_id="study_id",
            view=pl.col("ViewPosition").str.strip_chars().str.to_uppercase(),
            rows=pl.col("Rows").cast(pl.Int32, strict=False).fill_null(0),
            columns=pl.col("Columns").cast(pl.Int32, strict=False).fill_null(0),
            split="split",
            ids_ok=pl.col("subject_id").str.contains(number) & pl.col("study_id").str.contains(number),
            image_ok=pl.col("dicom_id").str.contains(image_id),
        ),
        {row[0]: dict(zip(CHEXPERT_14, row[1:], strict=True)) for row in values.iter_rows()},
        dict(Counter(split["split"])),
    )


def _place_reports(
    locations: Iterable[FoundFile] | Iterable[ArchivedFile], refusals: list[Refusal]
) -> dict[StudyIds, ReportLocation | StudyFault]:
    """Reports by study; a name that is not a report's, or comes twice, is refused."""
    reports: dict[StudyIds, ReportLocation | StudyFault] = {}
    for location in locations:
        path = location.path
        if not path.endswith(".txt"):
            continue
        match = _REPORT.fullmatch(path)
        if path.startswith("/") or "\\" in path or ".." in path.split("/"):
            refusals.append(Refusal(printable(path), StudyFault.OUTSIDE_ROOT))
        elif match is None:
            refusals.append(Refusal(printable(path), StudyFault.MALFORMED_ID))
        elif (match[2], match[3]) in reports:
            refusals.append(Refusal(printable(path), StudyFault.DUPLICATE))
        else:
            reports[match[2], match[3]] = location
    return reports


def _place_images(
    tables: _Tables, found: Walk, image_files: bool, refusals: list[Refusal]
) -> dict[StudyIds, list[FoundImage]]:
    """Images by study, with a key for every study that the metadata name; what cannot be used is refused."""
    files = {file.path: file for file in found.files if file.path.endswith(_IMAGE_SUFFIXES)}
    links = {link for link in found.outside if link.endswith(_IMAGE_SUFFIXES)}
    images: dict[StudyIds, list[FoundImage]] = {}
    malformed: set[StudyIds] = set()
    times_taken: Counter[str] = Counter()
    for image_id, subject, study, view, rows, columns, split, ids_ok, image_ok in tables.metadata.iter_rows():
        stem = f"{_study_folder(subject, study)}/{image_id}"
        paths = [f"{stem}{suffix}" for suffix in _IMAGE_SUFFIXES]
        matching = [file for path in paths if (file := files.pop(path, None)) is not None]
        item, fault = printable(image_id), None
        if is_outward(image_id) or is_outward(subject) or is_outward(study):
            fault = ImageFault.OUTSIDE_ROOT
        elif not ids_ok:
            fault = ImageFault.OF_REFUSED_STUDY
        elif not image_ok:
            fault = ImageFault.MALFORMED_ID
        elif image_id in times_taken:
            times_taken[image_id] += 1
            item, fault = f"{image_id}#{times_taken[image_id]}", ImageFault.DUPLICATE
        elif image_files and not matching:
            outward = any(found.leads_outside(path) for path in paths)
            links.difference_update(paths)
            fault = ImageFault.OUTSIDE_ROOT if outward else ImageFault.MISSING
        elif rows < 1 or columns < 1:
            fault = ImageFault.MALFORMED_SIZE
        if not ids_ok:
            malformed.add((subject, study))
        else:
            placed = images.setdefault((subject, study), [])
            if fault is None:
                times_taken[image_id] = 1
                path, mark = (matching[0].path, matching[0].fingerprint) if matching else (paths[0], "")
                labels = tables.labels.get(study)
                placed.append(FoundImage(ImageRecord(image_id, path, view, rows, columns, labels, split), mark))
        if fault is not None:
            refusals.append(Refusal(item, fault, f"study {printable(study)}"))
    refusals.extend(
        Refusal(printable(f"{subject}/{study}"), StudyFault.MALFORMED_ID) for subject, study in sorted(malformed)
    )
    refusals.extend(Refusal(printable(path), ImageFault.WITHOUT_METADATA) for path in sorted(files))
    refusals.extend(Refusal(printable(path), ImageFault.OUTSIDE_ROOT) for path in sorted(links))
    return images


def _study_folder(subject: str, study: str) -> str:
    return f"{FILES}/p{subject[:2]}/p{subject}/s{study}"


def _require_complete(root: Path, manifest: SourceManifest, tables: _Tables, found: Walk, num_reports: int) -> None:
    num_images = sum(file.path.endswith(_IMAGE_SUFFIXES) for file in found.files)
    counts = {"image files": (num_images, manifest.images), "reports": (num_reports, manifest.studies)}
    counts |= {f"{name} images": (tables.split_counts.get(name, 0), manifest.split[name]) for name in manifest.split}
    wrong = [f"{have} {what} instead of {want}" for what, (have, want) in counts.items() if want not in (None, have)]
    if wrong:
        raise SourceError(f"{root} is not the complete copy it is said to be: {', '.join(wrong)}")
