"""The store: Delta Lake tables below one URI, read and written with polars.

Every table has a fixed schema (`SCHEMAS`) and a key (`KEYS`); jobs append or upsert whole frames and record the table
versions they read. Nothing else keeps state, so any job can be killed and run again.

Writers of one table take turns by optimistic locking: each commit carries the same Delta application transaction, so
of two commits prepared on one version the second fails and is prepared again on the newer version. A process forked
from one that used a store cannot use it (delta-rs says so); start workers with `spawn`.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

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
    "text_labels": pl.Schema({"text_sha256": pl.String, "labeler": pl.String, "labels": LABELS_TYPE}),
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
            "checkpoint": pl.String,  # the step's folder
            "predecessor": pl.String,  # the champion that it took over from, null for the first
            "reason": pl.String,  # of its present state
            "changed_at": _TIME,
        }
    ),
    "test_sets": pl.Schema(
        {
            "name": pl.String,
            "task": pl.String,
            "data_set": pl.String,
            "release": pl.String,
            "split": pl.String,
            "image_id": pl.String,
            "created_at": _TIME,
        }
    ),
}

KEYS: dict[str, tuple[str, ...]] = {
    "studies": ("source", "study_id"),
    "images": ("source", "image_id"),
    "rejections": ("job", "source", "item", "reason"),
    "cleaned_reports": ("source", "study_id", "report_sha256", "prompt_digest", "model", "parameters_digest"),
    "text_labels": ("text_sha256", "labeler"),
    "splits": ("source", "task", "image_id"),
    "models": ("model_id",),
    "test_sets": ("name", "task", "image_id"),
}
"""What identifies a row; `reviews` has no key: each row is one decision, appended."""

_FILES_BEFORE_COMPACTION = 32
_COMMIT_ATTEMPTS = 20
_WRITER = "unix"  # the application transaction that every commit carries


class Store:
    """Tables below `uri`, a local folder or an object store that delta-rs knows (`s3://...`)."""

    def __init__(self, uri: str | Path) -> None:
        if not str(uri):
            raise StoreError("the store's URI is empty; give --store or set UNIX_STORE")
        self.uri = str(uri).rstrip("/") or "/"

    @classmethod
    def default_uri(cls) -> str:
        """`$UNIX_STORE`, else `./store`."""
        return os.environ.get("UNIX_STORE") or "store"

    def location(self, *parts: str) -> str:
        """URI of something below the store, such as `location("shards", "generation-256")`."""
        return "/".join((self.uri, *parts))

    def version(self, table: str) -> int | None:
        """The table's current version, or None where it does not exist yet."""
        delta = self._open(table)
        return None if delta is None else delta.version()

    def versions(self, *tables: str) -> dict[str, int | None]:
        """The current version of each table: what a job records as its parents."""
        return {table: self.version(table) for table in tables}

    def scan(self, table: str, version: int | None = None) -> pl.LazyFrame:
        """The table's rows, lazily, as of `version` or of now; later commits do not show.

        Where there is no table yet and no version is asked for: an empty frame with the table's schema.

        Raises:
            StoreError: the version does not exist, or the table lacks columns.
        """
        delta = self._open(table, version)
        if delta is None:
            return pl.LazyFrame(schema=SCHEMAS[table])
        return _scan(delta).select(SCHEMAS[table].names())

    def read(self, table: str, columns: Iterable[str] | None = None) -> pl.DataFrame:
        """The table's rows, now, in memory."""
        frame = self.scan(table)
        return (frame if columns is None else frame.select(list(columns))).collect()

    def create(self, *tables: str) -> None:
        """Create those of the tables that do not exist yet, without rows."""
        for table in tables:
            if self._open(table) is None:
                self._commit(table, lambda _: None)

    def append(self, table: str, rows: pl.DataFrame) -> None:
        """Add rows in one commit. An empty frame creates a missing table and commits nothing else."""
        rows = _conform(table, rows)

        def write(delta: DeltaTable) -> None:
            if rows.height:
                write_deltalake(delta, rows, mode="append", commit_properties=_turn(delta))

        self._commit(table, write)

    def upsert(self, table: str, rows: pl.DataFrame) -> None:
        """Insert rows, or replace those with the same key, in one commit. Where a key repeats, the last row counts.

        An empty frame creates a missing table and commits nothing else.
        """
        rows = _keyed(table, rows)
        self._commit(table, lambda delta: _merge(delta, table, rows))

    def update(self, table: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        """Upsert what `change` makes of the table's rows, in one commit on the very version that it was shown.

        Where another writer was faster, `change` is asked again with the newer rows; what it raises ends the update.
        """

        def write(delta: DeltaTable) -> None:
            present = _scan(delta).select(SCHEMAS[table].names()).collect()
            _merge(delta, table, _keyed(table, change(present)))

        self._commit(table, write)

    def replace(self, table: str, rows: pl.DataFrame, where: Mapping[str, str] | None = None) -> None:
        """Make `rows` the table's content in one commit, or its content `where` columns equal the given texts.

        Earlier versions stay readable.
        """
        rows = _conform(table, rows)
        where = where or {}
        if unknown := set(where) - set(SCHEMAS[table]):
            raise StoreError(f"table {table} has no columns {sorted(unknown)}")
        inside = [pl.col(column) == value for column, value in where.items()]
        if strays := rows.filter(~pl.all_horizontal(pl.lit(True), *inside)).height:
            raise StoreError(f"{strays} rows for table {table} lie outside the part to be replaced, {dict(where)}")
        quoted = {column: value.replace("'", "''") for column, value in where.items()}
        predicate = " AND ".join(f"{column} = '{value}'" for column, value in quoted.items())

        def write(delta: DeltaTable) -> None:
            write_deltalake(delta, rows, mode="overwrite", predicate=predicate or None, commit_properties=_turn(delta))

        self._commit(table, write)

    def remove(self, table: str, rows: pl.DataFrame) -> None:
        """Take out the rows that equal one of `rows` in all its columns, in one commit. Earlier versions keep them."""
        if not rows.height:
            return

        def write(delta: DeltaTable) -> None:
            merger = delta.merge(
                rows,
                predicate=" AND ".join(f"old.{column} = gone.{column}" for column in rows.columns),
                source_alias="gone",
                target_alias="old",
                commit_properties=_turn(delta),
            )
            merger.when_matched_delete().execute()

        self._commit(table, write)

    def reject(self, rejections: Iterable[Rejection]) -> None:
        """Write down refused items; the same refusal twice is one row."""
        self.upsert("rejections", _rejection_rows(rejections))

    def replace_rejections(self, job: str, rejections: Iterable[Rejection], source: str | None = None) -> None:
        """Make `rejections` all that `job` refuses (of `source`), forgetting what it no longer does.

        Where they already are, nothing is committed.
        """
        where = {"job": job} if source is None else {"job": job, "source": source}
        content = ["job", "source", "item", "reason", "detail"]
        rows = _rejection_rows(rejections).unique(subset=KEYS["rejections"], keep="last").sort(content)
        mine = pl.all_horizontal(pl.col(column) == value for column, value in where.items())
        self.create("rejections")
        written = self.scan("rejections").filter(mine).select(content).sort(content).collect()
        if not written.equals(rows.select(content)):
            self.replace("rejections", rows, where)

    def _table_uri(self, table: str) -> str:
        if table not in SCHEMAS:
            raise StoreError(f"unknown table {table!r}; known: {', '.join(SCHEMAS)}")
        return self.location("tables", table)

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        uri = self._table_uri(table)
        try:
            delta = DeltaTable(uri, version=version)
        except TableNotFoundError as error:
            if version is None:
                return None
            raise StoreError(f"table {table} at {self.uri} does not exist, so it has no version {version}") from error
        except (DeltaError, OSError, ValueError) as error:
            at = "" if version is None else f" at version {version}"
            raise StoreError(f"cannot open table {table}{at} below {self.uri}: {_first_line(error)}") from error
        if missing := set(SCHEMAS[table]) - {field.name for field in delta.schema().fields}:
            raise StoreError(
                f"table {table} at {self.uri} lacks the columns {sorted(missing)}; it was not written by this version"
            )
        return delta

    def _commit(self, table: str, write: Callable[[DeltaTable], None]) -> None:
        """Run `write` on the table's newest version, again where another writer was faster."""
        for attempt in range(_COMMIT_ATTEMPTS):
            try:
                delta = self._open(table) or self._create(table)
                write(delta)
                break
            except CommitFailedError:
                # Processes that collided wait for different times, so that they do not collide again.
                time.sleep(min(2.0, 0.02 * 2**attempt) * (1 + os.getpid() % 16 / 16))
            except (DeltaError, OSError) as error:
                raise StoreError(f"cannot write table {table} at {self.uri}: {_first_line(error)}") from error
        else:
            raise StoreError(
                f"table {table} at {self.uri}: other writers were faster {_COMMIT_ATTEMPTS} times in a row; try again"
            )
        self._compact_if_fragmented(table)

    def _create(self, table: str) -> DeltaTable:
        return DeltaTable.create(self._table_uri(table), schema=SCHEMAS[table], mode="ignore")

    def _compact_if_fragmented(self, table: str) -> None:
        delta = DeltaTable(self._table_uri(table))
        if len(delta.file_uris()) > _FILES_BEFORE_COMPACTION:
            try:
                delta.optimize.compact(commit_properties=_turn(delta))
            except CommitFailedError:
                return  # another writer is at it; the next commit tries again


def now() -> pl.Expr:
    """The time of writing, as a column."""
    return pl.lit(datetime.now(UTC)).cast(_TIME)


def _scan(delta: DeltaTable) -> pl.LazyFrame:
    # polars opens the percent-encoded names that delta-rs gives for a folder such as `my store`; pyarrow decodes them.
    return pl.scan_delta(delta, use_pyarrow="%" in delta.table_uri)


def _keyed(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows as the table takes them, each with a key, the last of every key."""
    if table not in KEYS:
        raise StoreError(f"table {table} has no key; append to it")
    key = KEYS[table]
    rows = _conform(table, rows)
    if nameless := rows.filter(pl.any_horizontal(pl.col(key).is_null())).height:
        raise StoreError(f"{nameless} rows for table {table} have no value in their key ({', '.join(key)})")
    return rows.unique(subset=key, keep="last", maintain_order=True)


def _merge(delta: DeltaTable, table: str, rows: pl.DataFrame) -> None:
    """Insert rows or replace those with the same key."""
    if not rows.height:
        return
    key = KEYS[table]
    known = _scan(delta).select(key).join(rows.lazy().select(key), on=key, how="semi")
    if known.head(1).collect().is_empty():  # a plain append: many times cheaper than a merge
        write_deltalake(delta, rows, mode="append", commit_properties=_turn(delta))
        return
    merger = delta.merge(
        rows,
        predicate=" AND ".join(f"old.{column} = new.{column}" for column in key),
        source_alias="new",
        target_alias="old",
        commit_properties=_turn(delta),
    )
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def _turn(delta: DeltaTable) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(_WRITER, delta.version() + 1)])


def _rejection_rows(rejections: Iterable[Rejection]) -> pl.DataFrame:
    rows = [(r.job, r.source, r.item, r.reason, r.detail) for r in rejections]
    columns = ["job", "source", "item", "reason", "detail"]
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row").with_columns(created_at=now())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _conform(table: str, rows: pl.DataFrame) -> pl.DataFrame:
    if table not in SCHEMAS:
        raise StoreError(f"unknown table {table!r}; known: {', '.join(SCHEMAS)}")
    schema = SCHEMAS[table]
    missing = set(schema) - set(rows.columns)
    unknown = set(rows.columns) - set(schema)
    if missing or unknown:
        raise StoreError(
            f"rows for table {table}: missing columns {sorted(missing)}, unknown columns {sorted(unknown)}"
        )
    try:
        return rows.select(schema.names()).cast(pl.Schema(schema))
    except pl.exceptions.PolarsError as error:
        # polars quotes the offending values, which may be report text
        types = ", ".join(f"{name} is {rows.schema[name]}" for name in schema if rows.schema[name] != schema[name])
        raise StoreError(f"rows for table {table} cannot take its types: {types}") from error
