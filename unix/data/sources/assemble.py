"""Reports and images that a source found -> studies, with a refusal for everything that does not fit (pure)."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from unix.data.sources.base import (
    IMAGES,
    INGEST_REVISION,
    LISTED,
    LISTED_IMAGES,
    REPORTS,
    ImageFault,
    Listing,
    Refusal,
    StudyFault,
    printable,
)

_IDS = ["subject_id", "study_id"]


def assemble(
    source: str,
    root: Path,
    reports: pl.DataFrame,
    images: pl.DataFrame,
    refusals: list[Refusal],
    image_files: bool = True,
) -> Listing:
    """Pair reports (`REPORTS`) with images (`IMAGES`); `refusals` are those that the source found before.

    Of several usable rows with one image id the first is taken; of several whole studies with one study id, the first.
    """
    images = images.match_to_schema(IMAGES).with_columns(
        fault=pl.when(_is_repeated("image_id")).then(pl.lit(ImageFault.DUPLICATE)).otherwise("fault")
    )
    usable = images.filter(pl.col("fault").is_null())
    marks = usable.group_by(_IDS, maintain_order=True).agg(image_mark=pl.col("mark").str.join("\0"))
    named = images.select(_IDS).drop_nulls().unique()
    studies = (
        pl.concat([reports.select(_IDS), named])
        .unique()
        .join(reports.match_to_schema(REPORTS), on=_IDS, how="left")
        .join(marks, on=_IDS, how="left")
        .join(named.with_columns(named=pl.lit(True)), on=_IDS, how="left")
        .sort(_IDS)
        .with_columns(
            fault=pl.when(pl.col("location").is_null() & pl.col("fault").is_null())
            .then(pl.lit(StudyFault.WITHOUT_REPORT))
            .when(pl.col("fault").is_not_null())
            .then("fault")
            .when(pl.col("image_mark").is_null() & pl.col("named"))
            .then(pl.lit(StudyFault.WITHOUT_USABLE_IMAGE))
            .when(pl.col("image_mark").is_null())
            .then(pl.lit(StudyFault.WITHOUT_IMAGES))
        )
    )
    whole = pl.col("fault").is_null()
    studies = studies.with_columns(
        fault=pl.when(_is_repeated("study_id")).then(pl.lit(StudyFault.DUPLICATE)).otherwise("fault")
    )
    refused = studies.filter(pl.col("fault").is_not_null())
    studies = _with_fingerprint(studies.filter(whole), root).select(LISTED.names())
    kept = studies.select(_IDS).join(usable, on=_IDS, how="inner", maintain_order="left_right")
    lost = usable.join(refused.select(*_IDS, study_fault="fault"), on=_IDS)
    return Listing(
        source,
        studies,
        kept.select(LISTED_IMAGES.names()),
        [
            *refusals,
            *(
                Refusal(printable(item), ImageFault(fault), "" if study is None else f"study {study}")
                for item, fault, study in images.filter(pl.col("fault").is_not_null())
                .select("item", "fault", "study_id")
                .iter_rows()
            ),
            *(_refused_studies(refused)),
            *(
                Refusal(item, ImageFault.OF_REFUSED_STUDY, f"study {study}: {fault}")
                for item, study, fault in lost.select("item", "study_id", "study_fault").iter_rows()
            ),
        ],
        image_files,
    )


def _is_repeated(column: str) -> pl.Expr:
    """Whether an earlier row without fault has the same value in `column`, and this one has no fault either."""
    whole = pl.col("fault").is_null()
    return whole & ~pl.struct(column, whole.alias("whole")).is_first_distinct()


def _refused_studies(refused: pl.DataFrame) -> Iterator[Refusal]:
    for subject, study, fault in refused.select(*_IDS, "fault").iter_rows():
        # Two subjects may claim one study id.
        item = f"{subject}/{study}" if fault == StudyFault.DUPLICATE else study
        yield Refusal(item, StudyFault(fault))


def _with_fingerprint(studies: pl.DataFrame, root: Path) -> pl.DataFrame:
    marks = pl.concat_str(pl.lit(f"{INGEST_REVISION}\0{root}"), "mark", "image_mark", separator="\0")
    digests = [hashlib.blake2b(mark.encode(), digest_size=16).hexdigest() for mark in studies.select(marks).to_series()]
    return studies.with_columns(fingerprint=pl.Series(digests, dtype=pl.String))
