"""MIMIC-CXR-JPG 2.x: three CSV tables, images below `files/`, reports as text files beside them or in one zip file."""

from pathlib import Path

import polars as pl

from unix.data.sources.archive import list_archive
from unix.data.sources.assemble import assemble
from unix.data.sources.base import (
    IMAGES,
    ImageFault,
    Listing,
    Refusal,
    StudyFault,
    as_location,
    printable,
)
from unix.data.sources.files import Walk, file_mark, no_files, walk
from unix.data.sources.manifest import SourceManifest, load_manifest
from unix.data.sources.tables import read_table, require_known, unique_by
from unix.errors import SourceError
from unix.records import CHEXPERT_14, Split

FOLDER = "files"
REPORTS_ARCHIVE = "mimic-cxr-reports.zip"

_IMAGE_SUFFIXES = (".jpg", ".dcm")
_REPORT_PATH = (
    r"^(?:[A-Za-z0-9_.-]+/)?files/p(?<prefix>[0-9]{2})/p(?<subject_id>[0-9]{3,20})/s(?<study_id>[0-9]{1,20})\.txt$"
)
_OUTWARD_PATH = r"^/|\\|(?:^|/)\.\.(?:/|$)"
_OUTWARD_NAME = r"[/\\\x00]|^\.\.?$"
_SUBJECT_ID, _STUDY_ID, _IMAGE_ID = r"^[0-9]{3,20}$", r"^[0-9]{1,20}$", r"^[A-Za-z0-9_-]{1,200}$"
_LABELS = {"1.0": 1, "1": 1, "0.0": 0, "0": 0, "-1.0": -1, "-1": -1, "": None}
_STUDY_FOLDER = pl.format(
    FOLDER + "/p{}/p{}/s{}", pl.col("subject_id").str.head(2), pl.col("subject_id"), pl.col("study_id")
)


class MimicCxr:
    """Source `mimic-cxr`."""

    name = "mimic-cxr"
    credentialed = True

    def list_studies(self, root: Path, complete: bool = False) -> Listing:
        """As `Source.list_studies`."""
        return list_mimic_layout(self.name, "mimic-cxr-jpg-2.0.0", root, complete)


def list_mimic_layout(source: str, manifest_name: str, root: Path, complete: bool, image_files: bool = True) -> Listing:
    """List a folder in MIMIC-CXR-JPG's layout; without `image_files` the metadata's word is taken for every image.

    A report's text file wins over the same report in the archive, an image's `.jpg` over its `.dcm`.

    Raises:
        SourceError: as `Source.list_studies`.
    """
    manifest = load_manifest(manifest_name)
    metadata = _read_metadata(root, manifest, complete)
    archived = list_archive(root, REPORTS_ARCHIVE)
    if archived.height and not image_files and not (root / FOLDER).exists():
        found = no_files()
    else:
        found = walk(root, FOLDER, (*_IMAGE_SUFFIXES, ".txt"))
    refusals: list[Refusal] = []
    reports = _place_reports(archived, found, metadata, refusals)
    images = _place_images(metadata, found, image_files, refusals)
    if complete:
        _require_complete(root, manifest, metadata, found, reports.height)
    return assemble(source, root, reports, images, refusals, image_files)


def _read_metadata(root: Path, manifest: SourceManifest, complete: bool) -> pl.DataFrame:
    """A row per metadata row, in its order: ids as written, view, size, split, labels, and a mark of all these."""
    metadata = read_table(root, manifest, "metadata", complete)
    split_file, label_file = manifest.tables["split"].file, manifest.tables["chexpert"].file
    split = read_table(root, manifest, "split", complete).select("dicom_id", official_split="split")
    require_known(split, "official_split", list(Split), split_file)
    labels = read_table(root, manifest, "chexpert", complete).select("study_id", *CHEXPERT_14)
    for name in CHEXPERT_14:
        require_known(labels, name, _LABELS, label_file)
    values = (pl.col(name).replace_strict(_LABELS, return_dtype=pl.Int8) for name in CHEXPERT_14)
    labels = unique_by(labels, "study_id", label_file).select(
        "study_id", labels=pl.struct(values), label_mark=pl.concat_str(CHEXPERT_14, separator=",")
    )
    return (
        metadata.join(unique_by(split, "dicom_id", split_file), on="dicom_id", how="left", maintain_order="left")
        .join(labels, on="study_id", how="left", maintain_order="left")
        .select(
            "subject_id",
            "study_id",
            "labels",
            "official_split",
            image_id="dicom_id",
            view_position=pl.col("ViewPosition").str.strip_chars().str.to_uppercase(),
            rows=pl.col("Rows").cast(pl.Int32, strict=False),
            columns=pl.col("Columns").cast(pl.Int32, strict=False),
            row_mark=pl.concat_str(
                "dicom_id",
                "ViewPosition",
                "Rows",
                "Columns",
                "official_split",
                "label_mark",
                separator=":",
                ignore_nulls=True,
            ),
        )
    )


def _place_reports(
    archived: pl.DataFrame, found: Walk, metadata: pl.DataFrame, refusals: list[Refusal]
) -> pl.DataFrame:
    """`REPORTS`; a name that is not a report's, or comes twice in the archive, is refused."""
    texts = found.files.filter(pl.col("path").str.ends_with(".txt")).with_columns(mark=file_mark())
    archived = archived.filter(pl.col("path").str.ends_with(".txt")).with_columns(
        mark=pl.format("{}!{}:{}:{}", "archive", "path", "size", "crc")
    )
    placed = [_by_study(texts, refusals), _by_study(archived, refusals)]
    outside = [path for path in found.outside if path.endswith(".txt")]
    if found.outside:
        named = metadata.filter(_well_formed()).select(
            "subject_id", "study_id", path=pl.format("{}.txt", _STUDY_FOLDER)
        )
        outside += [path for path in named["path"].unique() if found.leads_outside(path)]
    links = pl.DataFrame({"path": sorted(set(outside))}, schema={"path": pl.String})
    placed.append(_by_study(links, refusals).with_columns(fault=pl.lit(StudyFault.OUTSIDE_ROOT.value)))
    return pl.concat(placed).unique(["subject_id", "study_id"], keep="first", maintain_order=True)


def _by_study(locations: pl.DataFrame, refusals: list[Refusal]) -> pl.DataFrame:
    """Locations with the ids that their paths state, in the form of `REPORTS`."""
    path = pl.col("path")
    ids = path.str.extract_groups(_REPORT_PATH)
    rows = locations.with_columns(ids.struct.field("subject_id", "study_id"), prefix=ids.struct.field("prefix"))
    rows = rows.with_columns(
        refused=pl.when(path.str.contains(_OUTWARD_PATH))
        .then(pl.lit(StudyFault.OUTSIDE_ROOT))
        .when(pl.col("prefix").is_null() | (pl.col("subject_id").str.head(2) != pl.col("prefix")))
        .then(pl.lit(StudyFault.MALFORMED_ID))
        .when(pl.struct("subject_id", "study_id").is_first_distinct().not_())
        .then(pl.lit(StudyFault.DUPLICATE))
    )
    for item, fault in rows.filter(pl.col("refused").is_not_null()).select("path", "refused").iter_rows():
        refusals.append(Refusal(printable(item), StudyFault(fault)))
    return rows.filter(pl.col("refused").is_null()).select(
        "subject_id",
        "study_id",
        location=as_location(rows.columns),
        mark="mark" if "mark" in rows.columns else pl.lit("outside"),
        fault=pl.lit(None, pl.String),
    )


def _place_images(metadata: pl.DataFrame, found: Walk, image_files: bool, refusals: list[Refusal]) -> pl.DataFrame:
    """`IMAGES`: every metadata row with its file or its fault. Files without a row are refused."""
    stem = pl.col("path").str.head(-4)
    files = (
        found.files.filter(pl.col("path").str.ends_with(".jpg") | pl.col("path").str.ends_with(".dcm"))
        .with_columns(stem=stem, mark=file_mark())
        .sort(pl.col("path").str.ends_with(".dcm"), maintain_order=True)
    )
    named = metadata.with_columns(stem=pl.format("{}/{}", _STUDY_FOLDER, "image_id")).join(
        files.unique("stem", keep="first", maintain_order=True).select("stem", "path", file_mark="mark"),
        on="stem",
        how="left",
        maintain_order="left",
    )
    without_row = files.join(named, on="stem", how="anti")["path"]
    refusals.extend(Refusal(printable(path), ImageFault.WITHOUT_METADATA) for path in without_row.sort())
    stems = set(named["stem"])
    stray_links = sorted(path for path in found.outside if path.endswith(_IMAGE_SUFFIXES) and path[:-4] not in stems)
    refusals.extend(Refusal(printable(path), ImageFault.OUTSIDE_ROOT) for path in stray_links)
    malformed = named.filter(~_well_formed()).select("subject_id", "study_id").unique().sort("subject_id", "study_id")
    refusals.extend(
        Refusal(printable(f"{subject}/{study}"), StudyFault.MALFORMED_ID) for subject, study in malformed.iter_rows()
    )
    beyond: list[str] = []
    if found.outside:
        missing = named.filter(pl.col("path").is_null())["stem"]
        beyond = [item for item in missing if any(found.leads_outside(item + suffix) for suffix in _IMAGE_SUFFIXES)]
    outward = pl.any_horizontal(pl.col("subject_id", "study_id", "image_id").str.contains(_OUTWARD_NAME))
    is_missing = pl.col("path").is_null() & pl.lit(image_files)
    return named.with_columns(
        subject_id=pl.when(_well_formed()).then("subject_id"),
        study_id=pl.when(_well_formed()).then("study_id"),
        path=pl.col("path").fill_null(pl.format("{}.jpg", "stem")),
        mark=pl.concat_str("row_mark", "file_mark", separator=":", ignore_nulls=True),
        item="image_id",
        fault=pl.when(outward | pl.col("stem").is_in(beyond))
        .then(pl.lit(ImageFault.OUTSIDE_ROOT))
        .when(~_well_formed())
        .then(pl.lit(ImageFault.OF_REFUSED_STUDY))
        .when(~pl.col("image_id").str.contains(_IMAGE_ID))
        .then(pl.lit(ImageFault.MALFORMED_ID))
        .when(is_missing)
        .then(pl.lit(ImageFault.MISSING))
        .when(
            (pl.min_horizontal("rows", "columns").fill_null(0) < 1)
            | pl.any_horizontal(pl.col("rows", "columns").is_null())
        )
        .then(pl.lit(ImageFault.MALFORMED_SIZE)),
    ).select(IMAGES.names())


def _well_formed() -> pl.Expr:
    return pl.col("subject_id").str.contains(_SUBJECT_ID) & pl.col("study_id").str.contains(_STUDY_ID)


def _require_complete(
    root: Path, manifest: SourceManifest, metadata: pl.DataFrame, found: Walk, num_reports: int
) -> None:
    num_images = found.files.filter(~pl.col("path").str.ends_with(".txt")).height
    splits = dict(metadata["official_split"].value_counts().iter_rows())
    counts = {"image files": (num_images, manifest.images), "reports": (num_reports, manifest.studies)}
    counts |= {f"{name} images": (splits.get(name, 0), expected) for name, expected in manifest.split.items()}
    wrong = [f"{have} {what} instead of {want}" for what, (have, want) in counts.items() if want not in (None, have)]
    if wrong:
        raise SourceError(f"{root} is not the complete copy it is said to be: {', '.join(wrong)}")
