"""The job behind `unix export reports`: every study's text before and after cleaning, as one CSV or Parquet table."""

from collections import Counter

import polars as pl

from unix.config import Config
from unix.data.approved import pin_cleaning, report_outcomes
from unix.data.text_table import write_table
from unix.records import CHEXPERT_14, Split, Status
from unix.store import Store

_STUDY = ("source", "study_id")
_ANSWER = (*_STUDY, "report_sha256")


class ExportReportsConfig(Config):
    """Which studies to write; a filter that is None lets everything pass."""

    store: str
    out: str
    """CSV or Parquet, by its suffix."""
    prompt_version: str | None = None
    """Together with `model`, whose cleaned reports to show; None: the only ones in the store."""
    model: str | None = None
    source: str | None = None
    status: Status | None = None
    flag: str | None = None
    """Only reports that carry this flag."""
    split: Split | None = None


class ExportReportsSummary(Config):
    """What was written: studies = rows + filtered_out."""

    out: str
    prompt_version: str
    model: str
    studies: int
    """In the store, withdrawn ones left out."""
    filtered_out: int
    rows: int
    statuses: dict[str, int]
    """Rows by status; `not_cleaned` where there is no cleaned report."""


def export_reports(config: ExportReportsConfig) -> ExportReportsSummary:
    """Write one row per study, ordered by source and study.

    Columns: source, subject_id, study_id, report_sha256, report_raw, findings, impression (as cleaned, whatever the
    status), status, flags, outcome (as `approved.report_outcomes`), prompt_version, model, split, and the source's
    CheXpert-14 labels, one column each, null where the source gives none.

    Raises:
        ConfigError: the cleaning to use is not clear, or the file cannot be written.
    """
    store = Store(config.store)
    cleaning = pin_cleaning(store, config.prompt_version, config.model)
    rows = _all_rows(store, cleaning.prompt_version, cleaning.model)
    chosen = rows.filter(_passes(config))
    write_table(chosen, config.out)
    statuses = Counter(status or "not_cleaned" for status in chosen["status"].to_list())
    return ExportReportsSummary(
        out=config.out,
        prompt_version=cleaning.prompt_version,
        model=cleaning.model,
        studies=rows.height,
        filtered_out=rows.height - chosen.height,
        rows=chosen.height,
        statuses=dict(sorted(statuses.items())),
    )


def _all_rows(store: Store, prompt_version: str, model: str) -> pl.DataFrame:
    studies = store.scan("studies").select(*_ANSWER, "subject_id", "report_raw")
    outcomes = report_outcomes(store, prompt_version, model).select(*_ANSWER, "outcome")
    pair = (pl.col("prompt_version") == prompt_version) & (pl.col("model") == model)
    cleaned = (
        store.scan("cleaned_reports")
        .filter(pair)
        .sort(pl.col("status") != Status.FAILED, "created_at", "parameters_digest")
        .unique(subset=_ANSWER, keep="last", maintain_order=True)
        .select(*_ANSWER, "findings", "impression", "status", "flags")
    )
    splits = store.scan("splits").unique(subset=_STUDY, keep="first", maintain_order=True).select(*_STUDY, "split")
    labels = (
        store.scan("images")
        .filter(pl.col("labels").is_not_null())
        .sort("image_id")
        .unique(subset=_STUDY, keep="first", maintain_order=True)
        .select(*_STUDY, "labels")
    )
    return (
        outcomes.join(studies, on=_ANSWER, how="left")
        .join(cleaned, on=_ANSWER, how="left")
        .join(splits, on=_STUDY, how="left")
        .join(labels, on=_STUDY, how="left")
        .sort(*_STUDY)
        .select(
            *("source", "subject_id", "study_id", "report_sha256", "report_raw", "findings", "impression"),
            *("status", "flags", "outcome"),
            pl.lit(prompt_version).alias("prompt_version"),
            pl.lit(model).alias("model"),
            "split",
            *(pl.col("labels").struct.field(name) for name in CHEXPERT_14),
        )
        .collect()
    )


def _passes(config: ExportReportsConfig) -> pl.Expr:
    condition = pl.lit(True)
    if config.source is not None:
        condition &= pl.col("source") == config.source
    if config.status is not None:
        condition &= pl.col("status") == config.status
    if config.flag is not None:
        condition &= pl.col("flags").list.contains(config.flag).fill_null(False)
    if config.split is not None:
        condition &= pl.col("split") == config.split
    return condition
