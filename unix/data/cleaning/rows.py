"""Rows of `cleaned_reports` from outcomes, and back: one row per study, one outcome per text."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import polars as pl

from unix.data.cleaning.journal import AnswerKey, Outcome
from unix.data.cleaning.usage import Usage
from unix.records import RemovedSpan, Status
from unix.store import SCHEMAS

_STUDY_COLUMNS = ("source", "study_id", "report_sha256")
_ANSWER = ("report_sha256", "prompt_digest", "model", "parameters_digest")
_SCHEMA = SCHEMAS["cleaned_reports"]


def rows_of(studies: pl.DataFrame, outcomes: Iterable[Outcome]) -> pl.DataFrame:
    """A row for every study whose text has an outcome. What a shared answer used is booked on its first study alone.

    Of several outcomes with one key the last counts.
    """
    latest = {outcome.key: outcome for outcome in outcomes}
    answers = pl.DataFrame(
        [_answer(outcome) for outcome in latest.values()],
        schema={name: dtype for name, dtype in _SCHEMA.items() if name in _ANSWER_COLUMNS},
        orient="row",
    )
    first = pl.int_range(pl.len()).over(_ANSWER) == 0
    used = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "latency_ms", "attempts")
    return (
        studies.select(_STUDY_COLUMNS)
        .join(answers, on="report_sha256", how="inner", maintain_order="left")
        .with_columns(**{name: pl.when(first).then(pl.col(name)).otherwise(pl.lit(0, _SCHEMA[name])) for name in used})
        .select(_SCHEMA.names())
    )


def outcomes_of(rows: pl.DataFrame) -> dict[str, Outcome]:
    """The outcomes that rows were made from, by the report's digest; they have cost what they cost already."""
    return {row["report_sha256"]: _outcome(row) for row in rows.iter_rows(named=True)}


_ANSWER_COLUMNS = tuple(name for name in _SCHEMA if name not in ("source", "study_id"))


def _answer(outcome: Outcome) -> tuple[Any, ...]:
    """One answer's values in the order of `_ANSWER_COLUMNS`."""
    usage = outcome.usage
    key = outcome.key
    return (
        key.report_sha256,
        outcome.prompt_version,
        key.prompt_digest,
        key.model,
        key.parameters_digest,
        outcome.endpoint,
        outcome.status.value,
        outcome.findings,
        outcome.impression,
        [{"text": span.text, "category": span.category} for span in outcome.removed],
        list(outcome.flags),
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens,
        usage.cost_usd,
        usage.latency_ms,
        usage.attempts,
        datetime.fromtimestamp(outcome.created_at, UTC),
    )


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(
        key=AnswerKey(row["report_sha256"], row["prompt_digest"], row["model"], row["parameters_digest"]),
        status=Status(row["status"]),
        flags=tuple(cast(Iterable[str], row["flags"])),
        findings=row["findings"],
        impression=row["impression"],
        removed=tuple(RemovedSpan(**span) for span in cast(Iterable[dict[str, str]], row["removed"])),
        usage=Usage(),
        created_at=cast(datetime, row["created_at"]).timestamp(),
        prompt_version=row["prompt_version"],
        endpoint=row["endpoint"],
    )
