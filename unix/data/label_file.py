"""The job behind `unix label`: CheXpert-14 labels of a column of texts."""

import polars as pl
from pydantic import Field

from unix.config import Config
from unix.data.engines import EngineName
from unix.data.label_many import label_reports
from unix.data.labels import POSITIVE
from unix.data.text_table import read_table, write_table
from unix.errors import ConfigError
from unix.records import CHEXPERT_14, no_labels


class LabelFileConfig(Config):
    """What `label_file` reads and writes."""

    file: str
    """CSV or Parquet with the texts."""
    text_column: str
    out: str
    """CSV or Parquet, by its suffix."""
    engine: EngineName = "local"
    workers: int | None = Field(default=None, ge=1)
    """Parts at a time; None: this process alone, or on Ray one per core of the cluster."""


class LabelFileSummary(Config):
    """What `label_file` did."""

    rows: int
    empty: int
    """Rows without text; their labels are all null."""
    positive: dict[str, int]
    """Rows per class that are labelled 1."""


def label_file(config: LabelFileConfig) -> LabelFileSummary:
    """Label a column of texts and write the table with the 14 columns added (1, 0, -1 or null).

    Raises:
        ConfigError: the file cannot be read, has no such column, or has a class's column already.
    """
    frame = read_table(config.file, [config.text_column])
    if taken := [name for name in CHEXPERT_14 if name in frame.columns]:
        raise ConfigError(f"{config.file} has the columns {', '.join(taken)} already; rename them first")
    texts = frame[config.text_column].cast(pl.String).fill_null("").to_list()
    written = [text for text in texts if text.strip()]
    found = iter(label_reports(written, config.engine, config.workers or (1 if config.engine == "local" else None)))
    labels = [next(found) if text.strip() else no_labels() for text in texts]
    columns = [pl.Series(name, [row[name] for row in labels], dtype=pl.Int8) for name in CHEXPERT_14]
    write_table(frame.with_columns(columns), config.out)
    return LabelFileSummary(
        rows=frame.height,
        empty=sum(not text.strip() for text in texts),
        positive={name: sum(row[name] == POSITIVE for row in labels) for name in CHEXPERT_14},
    )
