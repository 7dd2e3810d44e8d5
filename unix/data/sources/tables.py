"""A source's CSV tables, plain or gzipped, read strictly: every column as text, no column missing, none unknown."""

import gzip
import zlib
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from unix.data.sources.manifest import SourceManifest, TableManifest
from unix.errors import SourceError

MAX_TABLE_BYTES = 2 << 30
"""Largest table after decompression; MIMIC's largest has 60 MB."""


def read_table(root: Path, manifest: SourceManifest, name: str, complete: bool = False) -> pl.DataFrame:
    """The table that the manifest calls `name`, all columns String, "" where empty; columns in the file's order.

    Raises:
        SourceError: the file is missing, damaged, or lacks or exceeds the manifest's columns; with `complete`, also
            when the number of rows is not the manifest's.
    """
    expected = manifest.tables[name]
    path = _find(root, expected.file)
    try:
        frame = pl.read_csv(_content(path), infer_schema=False)
    except pl.exceptions.NoDataError as error:
        raise SourceError(f"{path} is empty; it needs the columns {', '.join(expected.columns)}") from error
    except pl.exceptions.PolarsError as error:
        # The message of polars may quote the content.
        raise SourceError(f"{path} is not a readable CSV table ({type(error).__name__}); fetch it again") from error
    _check_columns(path, expected, frame.columns)
    if complete and expected.rows is not None and frame.height != expected.rows:
        raise SourceError(f"{path} has {frame.height} rows, a complete copy has {expected.rows}; fetch it again")
    return frame.fill_null("")


def require_known(frame: pl.DataFrame, column: str, allowed: Iterable[str], file: str) -> None:
    """Refuse a table whose `column` holds anything else than `allowed`.

    Raises:
        SourceError: with the first offending value.
    """
    wrong = frame.filter(~pl.col(column).is_in(list(allowed)))
    if wrong.height:
        raise SourceError(
            f"{file}: column {column!r} holds {wrong[column][0]!r:.60} in {wrong.height} rows; "
            f"expected one of {', '.join(repr(value) for value in allowed)}"
        )


def unique_by(frame: pl.DataFrame, key: str, file: str) -> pl.DataFrame:
    """The rows without exact repetitions.

    Raises:
        SourceError: two rows with the same key contradict each other.
    """
    if not frame[key].is_duplicated().any():
        return frame
    rows = frame.unique(maintain_order=True)
    repeated = rows.filter(pl.col(key).is_duplicated())
    if repeated.height:
        raise SourceError(f"{file}: {key} {repeated[key][0]!r:.60} stands in rows that contradict each other")
    return rows


def _find(root: Path, file: str) -> Path:
    for path in (root / file, root / file.removesuffix(".gz")):
        if path.is_file():
            if not path.resolve().is_relative_to(root):
                raise SourceError(f"{path} is a link that leaves {root}; put the file itself there")
            return path
    raise SourceError(f"missing table {root / file}; fetch it into the folder")


def _content(path: Path) -> bytes:
    try:
        if path.suffix != ".gz":
            content = path.read_bytes()
        else:
            with gzip.open(path) as file:
                content = file.read(MAX_TABLE_BYTES + 1)
    except EOFError as error:
        raise SourceError(f"{path} is a truncated gzip file; fetch it again") from error
    except (OSError, zlib.error) as error:
        raise SourceError(f"cannot read {path}: {error}; fetch it again") from error
    if len(content) > MAX_TABLE_BYTES:
        raise SourceError(f"{path} holds more than {MAX_TABLE_BYTES} bytes; it is not the table it should be")
    return content


def _check_columns(path: Path, expected: TableManifest, columns: list[str]) -> None:
    missing = [name for name in expected.columns if name not in columns]
    unknown = [name for name in columns if name not in {*expected.columns, *expected.optional_columns}]
    if missing or unknown:
        raise SourceError(
            f"{path}: missing columns {missing}, unknown columns {unknown}; "
            f"expected {', '.join((*expected.columns, *expected.optional_columns))}"
        )
