"""Reads and writes tables of texts as CSV or Parquet, by the file's suffix."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from unix.errors import ConfigError

_PARQUET = frozenset({".parquet", ".pq"})


def read_table(file: str, columns: Sequence[str] = ()) -> pl.DataFrame:
    """The table in `file`; a CSV's values stay strings.

    Raises:
        ConfigError: the file cannot be read, or lacks one of `columns`.
    """
    path = Path(file)
    try:
        frame = pl.read_parquet(path) if path.suffix in _PARQUET else pl.read_csv(path, infer_schema=False)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror or type(error).__name__}") from error
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"{file} is not a {'Parquet' if path.suffix in _PARQUET else 'CSV'} file") from error
    if missing := [column for column in columns if column not in frame.columns]:
        raise ConfigError(f"{file} has no column {', '.join(missing)}; it has {', '.join(frame.columns)}")
    return frame


def write_table(frame: pl.DataFrame, file: str) -> None:
    """Write `frame`; lists and structs become JSON text in a CSV.

    Raises:
        ConfigError: the folder does not exist or cannot be written.
    """
    path = Path(file)
    try:
        if path.suffix in _PARQUET:
            frame.write_parquet(path)
        else:
            in_csv(frame).write_csv(path)
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror or type(error).__name__}") from error


def in_csv(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame as a CSV can hold it: lists and structs as JSON text."""
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    return frame.with_columns(pl.col(name).map_elements(_as_json, return_dtype=pl.String) for name in nested)


def _as_json(value: object) -> str:
    import json

    plain = value.to_list() if isinstance(value, pl.Series) else value
    return json.dumps(plain, ensure_ascii=False)
