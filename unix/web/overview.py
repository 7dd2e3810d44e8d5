"""The numbers of the overview, each with the filter that shows the studies behind it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import polars as pl

from unix.data.approved import APPROVED
from unix.evaluation.charts import nice_ticks
from unix.evaluation.diff import UNEXPLAINED
from unix.records import CHEXPERT_14, Split, Status, Task
from unix.web.filters import NOT_CLEANED, StudyFilter, present
from unix.web.library import CLEAN_LABEL, RAW_LABEL, Library, View

_BARS = 24


@dataclass(frozen=True, slots=True)
class Count:
    """A number and the address of what it counts; `share` of the largest or of the whole, 0 to 1."""

    name: str
    count: int
    href: str
    share: float = 0.0
    note: str = ""


class Step(NamedTuple):
    """One step of the funnel: what is left after it, and why the rest went."""

    name: str
    kept: Count
    reasons: tuple[Count, ...]


class Bin(NamedTuple):
    """A bar of a histogram over [low, high) words."""

    low: int
    high: int
    raw: int
    clean: int


class Balance(NamedTuple):
    """A class's studies, raw and cleaned; uncertain counts as present."""

    name: str
    raw: Count
    clean: Count
    lost: Count
    gained: Count


class CleaningLine(NamedTuple):
    """One prompt version and model."""

    prompt_version: str
    model: str
    href: str
    statuses: tuple[Count, ...]
    reports: int
    cost_usd: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class Overview(NamedTuple):
    """Everything on the overview."""

    studies: int
    steps: tuple[Step, ...]
    statuses: tuple[Count, ...]
    flags: tuple[Count, ...]
    noise: tuple[Count, ...]
    lengths: tuple[Bin, ...]
    words: tuple[int, int]
    """Words before and after, over the studies that have both."""
    balance: tuple[Balance, ...]
    labelled: tuple[int, int]
    """Studies whose labels are known, of all."""
    cleanings: tuple[CleaningLine, ...]
    decisions: tuple[Count, ...]


def overview(library: Library, view: View) -> Overview:
    """Count everything under the view's cleaning; its links name the cleaning, so that they stay what they are."""
    base = StudyFilter()
    if view.cleaning is not None:
        base = StudyFilter(prompt=view.cleaning.prompt_version, model=view.cleaning.model)
    return view.known.get("overview", lambda: _overview(library, view, base))


def _overview(library: Library, view: View, base: StudyFilter) -> Overview:
    rows = view.rows
    steady = view.steady.get("overview", lambda: _steady(rows, base))
    return Overview(
        studies=rows.height,
        steps=tuple(_steps(library, view, base)),
        **steady,
        cleanings=tuple(_cleanings(library)),
        decisions=tuple(
            Count(name, count, _link(base, review=name))
            for name, count in rows.drop_nulls("decision").group_by("decision").len().sort("decision").iter_rows()
        ),
    )


def _steady(rows: pl.DataFrame, base: StudyFilter) -> dict[str, Any]:
    """What no decision changes."""
    cleaned = rows.filter(pl.col("status").is_in([Status.ACCEPTED, Status.FLAGGED]))
    removed = _removed_words(rows)
    raw, clean = cleaned.select(pl.col("raw_words").sum(), pl.col("clean_words").sum()).row(0)
    return {
        "statuses": _statuses(rows, base),
        "flags": tuple(_ranked(_exploded(rows, "flags"), "flag", base)),
        "noise": tuple(
            replace(one, note=f"{removed.get(one.name, 0):,} words")
            for one in _ranked(_exploded(rows, "categories"), "noise", base)
            if one.name != UNEXPLAINED
        ),
        "lengths": tuple(_lengths(cleaned)),
        "words": (int(raw or 0), int(clean or 0)),
        "balance": tuple(_balance(rows, base)),
        "labelled": (rows.filter(_any_label()).height, rows.height),
    }


def _removed_words(rows: pl.DataFrame) -> dict[str, int]:
    """Category -> words removed."""
    spans = rows.lazy().select(pl.col("removed").explode(empty_as_null=False, keep_nulls=False).alias("span"))
    words = spans.select(
        category=pl.col("span").struct.field("category"),
        words=pl.col("span").struct.field("text").str.count_matches(r"\S+"),
    )
    return dict(words.group_by("category").agg(pl.col("words").sum()).collect().iter_rows())


def _any_label() -> pl.Expr:
    return pl.any_horizontal(pl.col(f"{RAW_LABEL}{name}").is_not_null() for name in CHEXPERT_14)


def _steps(library: Library, view: View, base: StudyFilter) -> Iterable[Step]:
    rows = view.rows
    refused = library.store.scan("rejections").filter(pl.col("job") == "ingest").group_by("reason").len()
    yield Step(
        "ingested",
        Count("studies", rows.height, _link(base)),
        tuple(
            Count(reason, count, f"/rejections?job=ingest&reason={reason}", note="files or studies refused")
            for reason, count in refused.sort("len", "reason", descending=[True, False]).collect().iter_rows()
        ),
    )
    statuses = {one.name: one for one in _statuses(rows, base)}
    cleaned = rows.filter(pl.col("status").is_not_null()).height
    yield Step(
        "cleaned",
        Count("have an answer", cleaned - statuses["failed"].count, _link(base)),
        tuple(statuses[name] for name in (NOT_CLEANED, "failed") if statuses[name].count),
    )
    outcomes = dict(rows.group_by("outcome").len().iter_rows())
    yield Step(
        "usable for training",
        Count("accepted, approved or edited", outcomes.get(APPROVED, 0), _link(base, outcome=APPROVED)),
        tuple(
            Count(name.replace("_", " "), count, _link(base, outcome=name))
            for name, count in sorted(outcomes.items(), key=lambda item: -item[1])
            if name != APPROVED
        ),
    )
    for task in Task:
        inside = rows.filter(pl.col("tasks").list.contains(task.value).fill_null(False))
        parts = dict(inside.group_by("split").len().iter_rows())
        if inside.height:
            yield Step(
                f"in the {task} split",
                Count("studies", inside.height, _link(base, task=task.value)),
                tuple(
                    Count(split.value, parts.get(split.value, 0), _link(base, task=task.value, split=split.value))
                    for split in Split
                ),
            )
    for manifest in library.shard_sets():
        link = _link(base, task=manifest.task.value)
        yield Step(
            f"in {manifest.set}",
            Count("images", manifest.live, link, note=f"release {manifest.release}"),
            tuple(
                Count(reason.replace("_", " "), count, link, note="images")
                for reason, count in manifest.excluded.items()
            ),
        )


def _statuses(rows: pl.DataFrame, base: StudyFilter) -> tuple[Count, ...]:
    counts = dict(rows.group_by(pl.col("status").fill_null(NOT_CLEANED)).len().iter_rows())
    names = [*(status.value for status in Status), NOT_CLEANED]
    return tuple(
        Count(name, counts.get(name, 0), _link(base, status=name), counts.get(name, 0) / max(1, rows.height))
        for name in names
    )


def _exploded(rows: pl.DataFrame, column: str) -> dict[str, int]:
    values = rows.lazy().select(pl.col(column).explode(empty_as_null=False, keep_nulls=False).alias("value"))
    return dict(values.group_by("value").len().sort("len", "value", descending=[True, False]).collect().iter_rows())


def _ranked(counts: dict[str, int], parameter: str, base: StudyFilter) -> Iterable[Count]:
    largest = max(counts.values(), default=1)
    for name, count in counts.items():
        yield Count(name, count, _link(base, **{parameter: name}), count / largest)


def _lengths(cleaned: pl.DataFrame) -> Iterable[Bin]:
    """Equal bins up to the 99th percentile of the raw reports' words; longer reports fall into the last."""
    if cleaned.is_empty():
        return
    highest = float(cleaned["raw_words"].quantile(0.99) or 1)
    step = max(1, round(nice_ticks(0, highest, _BARS)[1]))
    last = int(highest // step)

    def counted(column: str) -> dict[int, int]:
        bins = cleaned.group_by((pl.col(column) // step).clip(0, last).cast(pl.Int64)).len()
        return dict(bins.iter_rows())

    raw, clean = counted("raw_words"), counted("clean_words")
    for index in range(last + 1):
        yield Bin(index * step, (index + 1) * step, raw.get(index, 0), clean.get(index, 0))


def _balance(rows: pl.DataFrame, base: StudyFilter) -> Iterable[Balance]:
    usable = pl.col("status").is_in([Status.ACCEPTED, Status.FLAGGED])
    for name in CHEXPERT_14:
        raw, clean = present(f"{RAW_LABEL}{name}"), present(f"{CLEAN_LABEL}{name}")
        counts = rows.select(
            raw=raw.sum(), clean=clean.sum(), lost=(usable & raw & ~clean).sum(), gained=(usable & clean & ~raw).sum()
        ).row(0, named=True)
        yield Balance(
            name,
            **{
                side: Count(name, int(count), _link(base, label=f"{side}:{name}"), count / max(1, rows.height))
                for side, count in counts.items()
            },
        )


def _cleanings(library: Library) -> Iterable[CleaningLine]:
    rows = library.store.scan("cleaned_reports")
    spent = ("cost_usd", "prompt_tokens", "cached_tokens", "completion_tokens")
    sums = rows.group_by("prompt_version", "model").agg(pl.len(), *(pl.col(name).sum() for name in spent)).collect()
    by_status = rows.group_by("prompt_version", "model", "status").len().collect()
    for cleaning in library.cleanings:
        mine = sums.filter(prompt_version=cleaning.prompt_version, model=cleaning.model).row(0, named=True)
        statuses = by_status.filter(prompt_version=cleaning.prompt_version, model=cleaning.model)
        counts = dict(statuses.select("status", "len").iter_rows())
        chosen = StudyFilter(prompt=cleaning.prompt_version, model=cleaning.model)
        yield CleaningLine(
            cleaning.prompt_version,
            cleaning.model,
            f"/?{chosen.query()}",
            tuple(Count(name, counts.get(name, 0), _link(chosen, status=name)) for name in map(str, Status)),
            mine["len"],
            *(mine[name] or 0 for name in spent),
        )


def _link(base: StudyFilter, **changes: object) -> str:
    return f"/studies?{base.query(**changes)}".rstrip("?")
