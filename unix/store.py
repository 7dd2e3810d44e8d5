"""The store: Delta Lake tables below one URI, read and written with polars.

Every table has a fixed schema (`SCHEMAS`) and a key (`KEYS`); jobs append or upsert whole frames and record the table
versions they read. Nothing else keeps state, so any job can be killed and run again.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from unix.errors import StoreError
from unix.records import CHEXPERT_14, Rejection

LABELS_TYPE = pl.Struct({name: pl.Int8 for name in CHEXPERT_14})
"""CheXpert-14 labels: 1, 0, -1 or null per class."""

_TIME = pl.Datetime("us", "UTC")

SCHEMAS: dict[str, pl.Schema] = {
    "studies": pl.Schema(
        {
            "source": pl.String,
            "subject_id": pl.String,
            "study_id": pl.String,
            "report_raw": pl.String,
            "report_sha256": pl.String,
            "findings_raw": pl.String,
            "impression_raw": pl.String,
            "sections": pl.String,  # JSON object: section name -> text
            "fingerprint": pl.String,  # of the study's files, to skip unchanged ones
            "ingested_at": _TIME,
            "withdrawn": pl.Boolean,
        }
    ),
    "images": pl.Schema(
        {
            "source": pl.String,
            "subject_id": pl.String,
            "study_id": pl.String,
            "image_id": pl.String,
            "path": pl.String,  # absolute, or a URI
            "view_position": pl.String,
            "rows": pl.Int32,
            "columns": pl.Int32,
            "labels": LABELS_TYPE,
            "official_split": pl.String,
            "withdrawn": pl.Boolean,
        }
    ),
    "rejections": pl.Schema(
        {
            "job": pl.String,
            "source": pl.String,
            "item": pl.String,
            "reason": pl.String,
            "detail": pl.String,
            "created_at": _TIME,
        }
    ),
    "cleaned_reports": pl.Schema(
        {
            "source": pl.String,
            "study_id": pl.String,
            "report_sha256": pl.String,
            "prompt_version": pl.String,
            "prompt_digest": pl.String,
            "model": pl.String,
            "parameters_digest": pl.String,
            "endpoint": pl.String,
            "status": pl.String,
            "findings": pl.String,
            "impression": pl.String,
            "removed": pl.List(pl.Struct({"text": pl.String, "category": pl.String})),
            "flags": pl.List(pl.String),
            "prompt_tokens": pl.Int64,
            "completion_tokens": pl.Int64,
            "cached_tokens": pl.Int64,
            "cost_usd": pl.Float64,
            "latency_ms": pl.Float64,
            "attempts": pl.Int32,
            "created_at": _TIME,
        }
    ),
    "reviews": pl.Schema(
        {
            "source": pl.String,
            "study_id": pl.String,
            "report_sha256": pl.String,
            "prompt_version": pl.String,
            "model": pl.String,
            "decision": pl.String,
            "findings": pl.String,
            "impression": pl.String,
            "reviewer": pl.String,
            "note": pl.String,
            "created_at": _TIME,
        }
    ),
    "splits": pl.Schema(
        {
            "source": pl.String,
            "task": pl.String,
            "image_id": pl.String,
            "study_id": pl.String,
            "subject_id": pl.String,
            "split": pl.String,
        }
    ),
    "models": pl.Schema(
        {
            "model_id": pl.String,
            "run": pl.String,
            "stage": pl.String,
            "parents": pl.String,  # JSON object: what it was made from
            "metrics": pl.String,  # JSON object
            "state": pl.String,
            "created_at": _TIME,
        }
    ),
}

KEYS: dict[str, tuple[str, ...]] = {
    "studies": ("source", "study_id"),
    "images": ("source", "image_id"),
    "rejections": ("job", "source", "item", "reason"),
    "cleaned_reports": ("source", "study_id", "report_sha256", "prompt_digest", "model", "parameters_digest"),
    "splits": ("source", "task", "image_id"),
    "models": ("model_id",),
}
"""What identifies a row; `reviews` has no key: each row is one decision, appended."""

_FILES_BEFORE_COMPACTION = 32


class Store:
    """Tables below `uri`, a local folder or an object store that delta-rs knows (`s3://...`)."""

    def __init__(self, uri: str | Path) -> None:
        self.uri = str(uri).rstrip("/") or "/"

    @classmethod
    def default_uri(cls) -> str:
        """`$UNIX_STORE`, else `./store`."""
        return os.environ.get("UNIX_STORE", "store")

    def location(self, *parts: str) -> str:
        """URI of something below the store, such as `location("shards", "generation-256")`."""
        return "/".join((self.uri, *parts))

    def version(self, table: str) -> int | None:
        """The table's current version, or None where it does not exist yet."""
        try:
            return DeltaTable(self._table_uri(table)).version()
        except TableNotFoundError:
            return None

    def versions(self, *tables: str) -> dict[str, int | None]:
        """The current version of each table: what a job records as its parents."""
        return {table: self.version(table) for table in tables}

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """The table's rows, lazily, at `version` or now; an empty frame with the schema where there is none yet."""
        if self.version(table) is None:
            return pl.LazyFrame(schema=SCHEMAS[table])
        return pl.scan_delta(self._table_uri(table), version=version)

    def read(self, table: str, columns: Iterable[str] | None = None) -> pl.DataFrame:
        """The table's rows, now, in memory."""
        frame = self.scan(table)
        return (frame if columns is None else frame.select(list(columns))).collect()

    def append(self, table: str, rows: pl.DataFrame) -> None:
        """Add rows in one commit. An empty frame commits nothing."""
        rows = _conform(table, rows)
        if rows.height:
            rows.write_delta(self._table_uri(table), mode="append")
            self._compact_if_fragmented(table)

    def upsert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert rows, or replace those with the same key, in one commit. Where a key repeats, the last row counts."""
        key = KEYS[table]
        rows = _conform(table, rows).unique(subset=key, keep="last", maintain_order=True)
        if not rows.height:
            return
        if self.version(table) is None:
            self.append(table, rows)
            return
        predicate = " AND ".join(f"old.{column} = new.{column}" for column in key)
        merger = rows.write_delta(
            self._table_uri(table),
            mode="merge",
            delta_merge_options={"predicate": predicate, "source_alias": "new", "target_alias": "old"},
        )
        if merger is None:
            raise StoreError(f"table {table} at {self.uri}: the merge was not started")
        merger.when_matched_update_all().when_not_matched_insert_all().execute()
        self._compact_if_fragmented(table)

    def replace(self, table: str, rows: pl.DataFrame) -> None:
        """Make `rows` the table's whole content, in one commit; earlier versions stay readable."""
        _conform(table, rows).write_delta(self._table_uri(table), mode="overwrite")

    def reject(self, rejections: Iterable[Rejection]) -> None:
        """Write down refused items; the same refusal twice is one row."""
        rows = [(r.job, r.source, r.item, r.reason, r.detail) for r in rejections]
        columns = ["job", "source", "item", "reason", "detail"]
        frame = pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
        self.upsert("rejections", frame.with_columns(created_at=now()))

    def _table_uri(self, table: str) -> str:
        if table not in SCHEMAS:
            raise StoreError(f"unknown table {table!r}; known: {', '.join(SCHEMAS)}")
        return self.location("tables", table)

    def _compact_if_fragmented(self, table: str) -> None:
        delta = DeltaTable(self._table_uri(table))
        if len(delta.file_uris()) > _FILES_BEFORE_COMPACTION:
            delta.optimize.compact()


def now() -> pl.Expr:
    """The time of writing, as a column."""
    from datetime import UTC, datetime

    return pl.lit(datetime.now(UTC)).cast(_TIME)


def _conform(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    schema = SCHEMAS[table]
    missing = set(schema) - set(rows.columns)
    unknown = set(rows.columns) - set(schema)
    if missing or unknown:
        raise StoreError(
            f"rows for table {table}: missing columns {sorted(missing)}, unknown columns {sorted(unknown)}"
        )
    return rows.select(schema.names()).cast(dict(schema))
