"""The job behind `unix guard`: the guards over any table of raw and cleaned texts."""

import re
from collections import Counter

import polars as pl

from unix.config import Config
from unix.data.cleaning.guards import Pair, judge
from unix.data.text_table import read_table, write_table
from unix.errors import ConfigError
from unix.records import CleanedReport, Status


class GuardFileConfig(Config):
    """What `guard_file` reads and writes."""

    file: str
    """CSV or Parquet with the pairs."""
    raw_column: str
    clean_column: str
    out: str
    """CSV or Parquet, by its suffix; gets the columns `verdict` and `flags`."""
    removes_priors: bool = False
    """Whether references to earlier studies were to be removed."""


class GuardFileSummary(Config):
    """What the guards found; `rows = accepted + flagged + rejected`."""

    rows: int
    accepted: int
    flagged: int
    rejected: int
    reasons: dict[str, int]
    """Rows per flag."""


def guard_file(config: GuardFileConfig) -> GuardFileSummary:
    """Judge every pair of a file and write the table with `verdict` and `flags` added.

    A cleaned text may hold `FINDINGS:` and `IMPRESSION:`; without them it counts as findings.

    Raises:
        ConfigError: the file cannot be read, lacks a column, or has the new ones already.
    """
    frame = read_table(config.file, [config.raw_column, config.clean_column])
    if taken := [name for name in ("verdict", "flags") if name in frame.columns]:
        raise ConfigError(f"{config.file} has the columns {', '.join(taken)} already; rename them first")
    texts = frame.select(pl.col(config.raw_column, config.clean_column).cast(pl.String).fill_null(""))
    verdicts = [
        judge(Pair(raw, _report(clean), removes_priors=config.removes_priors)) for raw, clean in texts.iter_rows()
    ]
    write_table(
        frame.with_columns(
            pl.Series("verdict", [verdict.status.value for verdict in verdicts], dtype=pl.String),
            pl.Series("flags", [list(verdict.flags) for verdict in verdicts], dtype=pl.List(pl.String)),
        ),
        config.out,
    )
    counts = Counter(verdict.status for verdict in verdicts)
    return GuardFileSummary(
        rows=frame.height,
        accepted=counts[Status.ACCEPTED],
        flagged=counts[Status.FLAGGED],
        rejected=counts[Status.REJECTED],
        reasons=dict(Counter(flag for verdict in verdicts for flag in verdict.flags).most_common()),
    )


_SECTIONS = re.compile(
    r"\s*(?:FINDINGS:\s*(?P<findings>.*?))?\s*(?:\bIMPRESSION:\s*(?P<impression>.*))?", re.DOTALL | re.IGNORECASE
)


def _report(text: str) -> CleanedReport:
    """A cleaned text as `join_report` writes it, or any other as findings."""
    match = _SECTIONS.fullmatch(text)
    if match is None or not (match["findings"] or match["impression"]):
        return CleanedReport(text, "")
    return CleanedReport(match["findings"] or "", match["impression"] or "")
