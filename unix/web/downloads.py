"""The current filter's studies as CSV or Parquet, in pieces, so that 200,000 reports never lie in memory twice."""

import tempfile
from collections.abc import Iterator

import polars as pl

from unix.data.text_table import in_csv
from unix.web.library import View

COLUMNS = (
    *("source", "subject_id", "study_id", "report_sha256", "report_raw", "findings", "impression", "status", "flags"),
    *("outcome", "decision", "edited_findings", "edited_impression", "reviewer", "note", "reviewed_at", "split"),
)
_ROWS = 5_000
_BYTES = 1 << 20


def as_csv(view: View, rows: pl.Series) -> Iterator[bytes]:
    """CSV with a header; lists are JSON text."""
    for start in range(0, max(1, rows.len()), _ROWS):
        yield in_csv(_columns(view, rows.slice(start, _ROWS))).write_csv(include_header=start == 0).encode()


def as_parquet(view: View, rows: pl.Series) -> Iterator[bytes]:
    """A Parquet file, written to a nameless temporary file first."""
    with tempfile.TemporaryFile() as file:
        _columns(view, rows).write_parquet(file, row_group_size=_ROWS)
        file.seek(0)
        while part := file.read(_BYTES):
            yield part


def _columns(view: View, rows: pl.Series) -> pl.DataFrame:
    cleaning = view.cleaning
    return view.rows[rows, list(COLUMNS)].with_columns(
        prompt_version=pl.lit(cleaning.prompt_version if cleaning else None, pl.String),
        model=pl.lit(cleaning.model if cleaning else None, pl.String),
    )
