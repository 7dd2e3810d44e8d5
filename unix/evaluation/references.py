"""What predictions are compared with: the cleaned report that the shards hold, and the report as it was written."""

import polars as pl

from unix.records import join_report
from unix.store import Store

_STUDY = ("source", "study_id", "report_sha256")


def with_originals(rows: pl.DataFrame, store: str | None) -> pl.DataFrame:
    """`rows` with `original`: findings and impression as written; "" where no store knows the study's report.

    A study counts as known only by the digest of its report, so a report that changed since is not taken for it.
    """
    if store is None:
        return rows.with_columns(original=pl.lit(""))
    columns = (*_STUDY, "findings_raw", "impression_raw")
    studies = Store(store).scan("studies").select(columns)
    written = rows.lazy().select("image_id", *_STUDY).join(studies, on=_STUDY, how="left").collect()
    texts = {
        key: join_report(" ".join((findings or "").split()), " ".join((impression or "").split()))
        for key, findings, impression in written.select("image_id", "findings_raw", "impression_raw").iter_rows()
    }
    return rows.with_columns(pl.Series("original", [texts[key] for key in rows["image_id"]], dtype=pl.String))
