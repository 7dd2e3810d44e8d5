"""Which studies a page shows: the query string as a typed filter, and the rows of a view that pass it."""

import re
from collections.abc import Mapping
from typing import Literal, Self
from urllib.parse import urlencode

import polars as pl
from pydantic import Field, ValidationError

from unix.config import Config, describe
from unix.errors import ConfigError
from unix.records import CHEXPERT_14, Status
from unix.web.library import CLEAN_LABEL, RAW_LABEL, View

NOT_CLEANED = "not_cleaned"
SORTS = {
    "study": "row",
    "subject": "subject_id",
    "status": "status",
    "flags": pl.col("flags").list.len(),
    "raw_words": "raw_words",
    "clean_words": "clean_words",
    "kept": pl.col("clean_words") / pl.col("raw_words"),
    "reviewed": "reviewed_at",
}
_TERM = re.compile(r'"([^"]+)"|(\S+)')
LABEL_SIDES = {"raw": "in the raw report", "clean": "in the cleaned one", "lost": "lost", "gained": "gained"}


class StudyFilter(Config):
    """What the query string of every studies page may hold. Empty lets everything pass."""

    q: str = Field(default="", max_length=300)
    """Words that must all occur in the raw or the cleaned report; "several words" in quotes; or an id."""
    prompt: str = ""
    model: str = ""
    source: str = ""
    status: str = ""
    flag: str = ""
    outcome: str = ""
    split: str = ""
    task: str = ""
    view: str = ""
    label: str = ""
    """`raw:Edema`, `clean:Edema`, `lost:Edema` (raw but not clean) or `gained:Edema`; uncertain counts as present."""
    noise: str = ""
    """Category of removed text."""
    review: Literal["", "none", "any", "approve", "reject", "edit"] = ""
    words: str = ""
    """`A-B`: raw words from A up to, not including, B; `clean:A-B` the same of the cleaned report."""
    sample: str = ""
    """`SEED:N` or `SEED:N:COLUMN`, see `unix.web.sampling`; the other fields then name the population."""
    sort: Literal["study", "subject", "status", "flags", "raw_words", "clean_words", "kept", "reviewed"] = "study"
    order: Literal["up", "down"] = "up"
    page: int = Field(default=1, ge=1, le=1_000_000)
    size: int = Field(default=50, ge=1, le=200)

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Self:
        """The filter of a query string; unknown parameters are ignored, so that links survive.

        Raises:
            ConfigError: a parameter has a value that cannot be.
        """
        known = {name: value.strip() for name, value in parameters.items() if name in cls.model_fields and value}
        try:
            return cls.model_validate({name: value for name, value in known.items() if value})
        except ValidationError as error:
            raise ConfigError(f"the address does not name a filter: {describe(error)}") from error

    def query(self, **changes: object) -> str:
        """The query string of this filter with `changes`; what is at its default is left out."""
        values = {**self.model_dump(), **changes}
        defaults = {name: fieldinfo.default for name, fieldinfo in type(self).model_fields.items()}
        return urlencode({name: value for name, value in values.items() if value != defaults[name]})

    @property
    def is_open(self) -> bool:
        """Whether every study of the cleaning passes."""
        narrowing = self.model_dump(exclude={"prompt", "model", "sort", "order", "page", "size"})
        return not any(narrowing.values())

    @property
    def population(self) -> Self:
        """The filter without its sample, and without what a reviewer's own decisions change."""
        return self.model_copy(update={"sample": "", "review": "", "outcome": "", "page": 1})


def matching(view: View, chosen: StudyFilter) -> pl.Series:
    """Row numbers of the studies that pass, in the filter's order; the page and a sample do not count."""
    decided = chosen.review or chosen.outcome or chosen.sort == "reviewed"
    memory = view.known if decided else view.steady
    return memory.get(f"rows {chosen.query(page=1, size=50, sample='')}", lambda: _matching(view, chosen))


def _matching(view: View, chosen: StudyFilter) -> pl.Series:
    rows = view.rows.lazy().filter(_conditions(chosen)).select("row").collect()["row"]
    for term in sorted(_terms(chosen.q), key=len, reverse=True):  # long words are rare: the next see few rows
        rows = _containing(view, rows, term)
    if chosen.sort == "study":
        return rows if chosen.order == "up" else rows.reverse()
    by = SORTS[chosen.sort]
    by = pl.col(by) if isinstance(by, str) else by
    frame = view.rows.lazy().select("row", by=by).filter(pl.col("row").is_in(rows.implode()))
    ordered = frame.sort("by", "row", descending=[chosen.order == "down", False], nulls_last=True)
    return ordered.select("row").collect()["row"]


def page_rows(view: View, rows: pl.Series, chosen: StudyFilter, columns: list[str]) -> pl.DataFrame:
    """The rows of the filter's page."""
    return view.rows[rows.slice((chosen.page - 1) * chosen.size, chosen.size), columns]


def _terms(query: str) -> list[str]:
    return [quoted or word for quoted, word in _TERM.findall(query)]


def _containing(view: View, rows: pl.Series, term: str) -> pl.Series:
    """Those of the rows whose raw or cleaned report has the term, or whose id it is.

    Every word of an accepted report stands in the raw one too, so only other cleanings are looked through.
    """

    def holds(column: str) -> pl.Expr:
        return pl.col(column).str.contains(f"(?i){pl.escape_regex(term)}").fill_null(False)

    everything = view.rows.select("row", "report_raw", "study_id", "subject_id")
    looked = everything if rows.len() == view.rows.height else everything[rows]
    known = (pl.col("study_id") == term.removeprefix("s")) | (pl.col("subject_id") == term.removeprefix("p"))
    found = looked.lazy().filter(holds("report_raw") | known).select("row").collect()["row"]
    doubtful = view.steady.get(
        "not accepted",
        lambda: view.rows.select("row", "status", "findings", "impression").filter(pl.col("status") != Status.ACCEPTED),
    )
    more = doubtful.filter(holds("findings") | holds("impression"))["row"]
    more = more.filter(more.is_in(rows.implode()) & ~more.is_in(found.implode()))
    return found if more.is_empty() else found.append(more).sort()


def _conditions(chosen: StudyFilter) -> list[pl.Expr]:
    found: list[pl.Expr] = [pl.lit(True)]
    for column in ("source", "split", "outcome"):
        if value := getattr(chosen, column):
            found.append(pl.col(column).is_null() if value == "none" else pl.col(column) == value)
    if chosen.status:
        found.append(pl.col("status").is_null() if chosen.status == NOT_CLEANED else pl.col("status") == chosen.status)
    for value, column in (
        (chosen.flag, "flags"),
        (chosen.view, "views"),
        (chosen.noise, "categories"),
        (chosen.task, "tasks"),
    ):
        if value:
            found.append(pl.col(column).list.contains(value).fill_null(False))
    if chosen.label:
        found.append(_label(chosen.label))
    if chosen.review:
        found.append(review_is(chosen.review))
    if chosen.words:
        found.append(_words(chosen.words))
    return found


def review_is(wanted: str) -> pl.Expr:
    """Whether the latest decision is `wanted`, any, or none."""
    match wanted:
        case "none":
            return pl.col("decision").is_null()
        case "any":
            return pl.col("decision").is_not_null()
        case _:
            return pl.col("decision") == wanted


def _label(wanted: str) -> pl.Expr:
    side, _, name = wanted.partition(":")
    if name not in CHEXPERT_14 or side not in ("raw", "clean", "lost", "gained"):
        raise ConfigError(f"the address does not name a filter: label: no such label (got {wanted!r:.60})")
    raw, clean = (present(f"{prefix}{name}") for prefix in (RAW_LABEL, CLEAN_LABEL))
    cleaned = pl.col("status").is_in(["accepted", "flagged"])
    return {"raw": raw, "clean": clean, "lost": cleaned & raw & ~clean, "gained": cleaned & clean & ~raw}[side]


def present(column: str) -> pl.Expr:
    """Whether a label is positive or uncertain."""
    return pl.col(column).is_in([1, -1]).fill_null(False)


def _words(wanted: str) -> pl.Expr:
    match = re.fullmatch(r"(clean:)?(\d{1,6})-(\d{1,6})?", wanted)
    if match is None:
        raise ConfigError(f"the address does not name a filter: words: not of the form A-B (got {wanted!r:.60})")
    column = pl.col("clean_words" if match[1] else "raw_words")
    return (column >= int(match[2])) & (column < int(match[3] or 10**7))
