"""Decisions: appended to `reviews`, one commit for each act of a person, and taken back act by act."""

import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, cast

import polars as pl

from unix.data.cleaning.guards import Pair, Verdict, judge
from unix.data.cleaning.prompt import load_prompt
from unix.errors import ConfigError
from unix.records import CleanedReport, Status
from unix.web.library import ANSWER, Cleaning, Library, View

Decision = Literal["approve", "reject", "edit"]
APPROVABLE = (Status.ACCEPTED.value, Status.FLAGGED.value)
"""Approving makes these usable; a rejected or failed cleaning has no text to approve."""

_ACT = [*ANSWER, "prompt_version", "model", "reviewer", "created_at"]
_clock = threading.Lock()
_latest = datetime.fromtimestamp(0, UTC)


class Act(NamedTuple):
    """What a person did last: the decision and how many studies it was about."""

    decision: str
    studies: int
    at: datetime


def decide(
    library: Library,
    view: View,
    rows: pl.Series,
    decision: Decision,
    reviewer: str,
    note: str = "",
    text: CleanedReport | None = None,
) -> int:
    """Write one decision about the studies in `rows` of the view; how many studies got it.

    Raises:
        ConfigError: there is no cleaning to decide about, or none of the studies can be approved.
    """
    if view.cleaning is None:
        raise ConfigError("nothing has been cleaned yet, so there is nothing to decide: run `unix clean` first")
    chosen = view.rows[rows, [*ANSWER, "status"]]
    if decision == "approve":
        chosen = chosen.filter(pl.col("status").is_in(APPROVABLE))
        if chosen.is_empty():
            raise ConfigError("a cleaning that was rejected or failed cannot be approved: edit it, or clean it again")
    reviews = chosen.select(
        *ANSWER,
        prompt_version=pl.lit(view.cleaning.prompt_version),
        model=pl.lit(view.cleaning.model),
        decision=pl.lit(decision),
        findings=pl.lit(text.findings if text else None, pl.String),
        impression=pl.lit(text.impression if text else None, pl.String),
        reviewer=pl.lit(reviewer),
        note=pl.lit(note),
        created_at=pl.lit(_tick()),
    )
    library.store.append("reviews", reviews)
    library.refresh()
    return reviews.height


def last_act(library: Library, reviewer: str) -> Act | None:
    """The reviewer's latest decision that still stands."""
    mine = library.reviews.filter(pl.col("reviewer") == reviewer)
    latest = mine.filter(pl.col("created_at") == pl.col("created_at").max()).select(
        pl.col("decision").first(), studies=pl.len(), at=pl.col("created_at").first()
    )
    if not latest["studies"].item():
        return None
    return Act(*latest.row(0))


def undo(library: Library, reviewer: str) -> Act | None:
    """Take back the reviewer's latest act, whole; nobody else's decisions change. None where there is none."""
    library.refresh()
    act = last_act(library, reviewer)
    if act is None:
        return None
    mine = library.reviews.filter(pl.col("reviewer") == reviewer, pl.col("created_at") == act.at)
    library.store.remove("reviews", mine.select(_ACT).unique())
    library.refresh()
    return act


def history(library: Library, source: str, study_id: str) -> list[dict[str, object]]:
    """Every decision about a study, the latest first."""
    about = library.reviews.filter(pl.col("study_id") == study_id, pl.col("source") == source)
    return about.reverse().to_dicts()


def pair_of(row: Mapping[str, object], cleaning: Cleaning, text: CleanedReport) -> Pair:
    """A study's raw report and a cleaning of it, as the guards take them."""
    flags = cast(list[str], row["flags"] or [])
    try:
        removes_priors = load_prompt(cleaning.prompt_version).removes_priors
    except ConfigError:  # a prompt of another installation
        removes_priors = False
    return Pair(str(row["report_raw"]), text, repaired="json_repaired" in flags, removes_priors=removes_priors)


def judge_edit(row: Mapping[str, object], cleaning: Cleaning, text: CleanedReport) -> Verdict:
    """What the guards say of a person's text."""
    return judge(pair_of({**row, "flags": []}, cleaning, text))


def _tick() -> datetime:
    """Now, later than every time given before, so that each act has a time of its own."""
    global _latest
    with _clock:
        _latest = max(datetime.now(UTC), _latest + timedelta(microseconds=1))
        return _latest
