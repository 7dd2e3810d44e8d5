"""What the audit pages read: the store's tables in memory, in columns, one row per study, renewed when a table changes.

Texts stay where polars put them; joins copy references. 200,000 studies take a few hundred megabytes, and every
filter and search is a pass over columns. A request works on one `View`, which never changes under it.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import polars as pl

from unix.data.approved import outcome
from unix.data.sources import is_credentialed
from unix.data.text_labels import cleaned_text_digests, labeler
from unix.errors import ShardError, StoreError
from unix.manifest import Manifest, find_manifest
from unix.records import CHEXPERT_14, Status
from unix.store import SCHEMAS, Store

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

STUDY = ["source", "study_id"]
ANSWER = [*STUDY, "report_sha256"]
RAW_LABEL, CLEAN_LABEL = "raw:", "clean:"
"""Prefixes of the label columns of a view."""

_VIEWS_KEPT = 2
_RESULTS_KEPT = 24
_REVIEW = ("decision", "edited_findings", "edited_impression", "reviewer", "note", "reviewed_at")
_TABLES = ("studies", "images", "cleaned_reports", "splits", "text_labels", "rejections", "reviews")


class Cleaning(NamedTuple):
    """A prompt version and the model that answered."""

    prompt_version: str
    model: str


class Memory:
    """Results by name, the oldest forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: str, compute: Callable[[], Result]) -> Result:
        """What `compute` gave under this key before, or gives now."""
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        result = compute()
        with self._lock:
            self._known[key] = result
            while len(self._known) > _RESULTS_KEPT:
                self._known.popitem(last=False)
        return result


@dataclass(frozen=True)
class View:
    """One cleaning of every study. `rows` is ordered by source and study, and has no hole in its row numbers."""

    cleaning: Cleaning | None
    rows: pl.DataFrame
    versions: dict[str, int | None]
    known: Memory = field(default_factory=Memory)
    """Results that hold until the next decision."""
    steady: Memory = field(default_factory=Memory)
    """Results that no decision changes."""


@dataclass(frozen=True)
class _Base:
    """What does not depend on the cleaning."""

    studies: pl.DataFrame
    images: pl.DataFrame
    cleanings: tuple[Cleaning, ...]
    sources: frozenset[str]


class Library:
    """The tables of one store. `refresh` renews them; everything else reads what is there and may run in any thread."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.RLock()
        self._versions: dict[str, int | None] = {}
        self._base: _Base | None = None
        self._reviews = pl.DataFrame(schema=SCHEMAS["reviews"])
        self._cleaned: OrderedDict[Cleaning | None, tuple[pl.DataFrame, Memory]] = OrderedDict()
        self._views: OrderedDict[Cleaning | None, View] = OrderedDict()

    def refresh(self) -> bool:
        """Read again what has changed in the store since; whether anything had."""
        with self._lock:
            versions = self.store.versions(*_TABLES)
            changed = {table for table in _TABLES if versions[table] != self._versions.get(table, -1)}
            if not changed:
                return False
            self._views.clear()
            if self._base is None or changed & {"studies", "images", "splits"}:
                self._base = None
                self._cleaned.clear()
                self._base = _read_base(self.store)
            elif changed & {"cleaned_reports", "text_labels"}:
                self._cleaned.clear()
                self._base = replace(self._base, cleanings=_cleanings(self.store))
            if "reviews" in changed:
                self._reviews = self.store.read("reviews").sort("created_at", maintain_order=True)
            self._versions = versions
            return True

    @property
    def cleanings(self) -> tuple[Cleaning, ...]:
        """Every prompt version and model in the store, the one with most reports first."""
        return self._loaded().cleanings

    @property
    def images(self) -> pl.DataFrame:
        """source, study_id, image_id, path, view_position, rows, columns; ordered by study."""
        return self._loaded().images

    @property
    def reviews(self) -> pl.DataFrame:
        """Every decision, the latest last."""
        return self._reviews

    @property
    def synthetic(self) -> bool:
        """Whether every study is of the phantom, and there is one."""
        return self._loaded().sources == frozenset({"phantom"})

    @property
    def open_data(self) -> bool:
        """Whether anyone may read every study's report."""
        return not any(map(is_credentialed, self._loaded().sources))

    def view(self, prompt_version: str = "", model: str = "") -> View:
        """The studies under the cleaning that fits, the one with most reports first."""
        with self._lock:
            fitting = [
                one for one in self.cleanings if prompt_version in ("", one.prompt_version) and model in ("", one.model)
            ]
            cleaning = fitting[0] if fitting else None
            if cleaning is None and (prompt_version or model):
                cleaning = Cleaning(prompt_version, model)
            if cleaning in self._views:
                self._views.move_to_end(cleaning)
                return self._views[cleaning]
            if cleaning not in self._cleaned:
                self._cleaned[cleaning] = _with_cleaning(self.store, self._loaded().studies, cleaning), Memory()
            while len(self._cleaned) > _VIEWS_KEPT:
                self._views.pop(self._cleaned.popitem(last=False)[0], None)
            unreviewed, steady = self._cleaned[cleaning]
            rows = _with_reviews(self._reviews, unreviewed, cleaning)
            self._views[cleaning] = View(cleaning, rows, dict(self._versions), steady=steady)
            return self._views[cleaning]

    def shard_sets(self) -> list[Manifest]:
        """The finished shard sets in the store's own folder, by name."""
        folder = Path(self.store.location("shards"))
        found: list[Manifest] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            try:
                manifest = find_manifest(path)
            except ShardError as error:
                logger.warning("%s", error)
                continue
            if manifest is not None:
                found.append(manifest)
        return found

    def _loaded(self) -> _Base:
        with self._lock:
            if self._base is None:
                self.refresh()
            if self._base is None:
                raise StoreError(f"the store {self.store.uri} could not be read")
            return self._base


def _read_base(store: Store) -> _Base:
    present = ~pl.col("withdrawn").fill_null(False)
    images = (
        store.scan("images")
        .filter(present)
        .select(*STUDY, "image_id", "path", "view_position", "rows", "columns")
        .sort(*STUDY, "image_id")
        .collect()
    )
    views = images.lazy().group_by(STUDY).agg(views=pl.col("view_position").drop_nulls(), num_images=pl.len())
    splits = store.scan("splits").group_by(STUDY).agg(split=pl.col("split").first(), tasks=pl.col("task").unique())
    studies = (
        store.scan("studies")
        .filter(present)
        .select(*ANSWER, "subject_id", "report_raw", "ingested_at")
        .join(views, on=STUDY, how="left")
        .join(splits, on=STUDY, how="left")
        .sort(STUDY)
        .with_columns(
            raw_words=pl.col("report_raw").str.count_matches(r"\S+"),
        )
        .collect()
    )
    return _Base(studies, images, _cleanings(store), frozenset(studies["source"].unique()))


def _cleanings(store: Store) -> tuple[Cleaning, ...]:
    pairs = store.scan("cleaned_reports").group_by("prompt_version", "model").agg(pl.len())
    ordered = pairs.sort("len", "prompt_version", "model", descending=[True, False, False]).collect()
    return tuple(Cleaning(version, model) for version, model, _ in ordered.iter_rows())


def _with_cleaning(store: Store, studies: pl.DataFrame, cleaning: Cleaning | None) -> pl.DataFrame:
    """The studies with the columns of their cleaning; null where there is none."""
    text = pl.concat_str("findings", "impression", separator="\n", ignore_nulls=True)
    category = pl.col("removed").list.eval(pl.element().struct.field("category"))
    cleaned = (
        store.scan("cleaned_reports")
        .filter(_of(cleaning))
        .drop("prompt_version", "model", "latency_ms", "attempts")
        .collect()
    )
    if cleaned.select(ANSWER).is_duplicated().any():
        # as in `approved.report_outcomes`: the latest final answer counts, and no failure hides an answer
        cleaned = cleaned.sort(pl.col("status") != Status.FAILED, "created_at", "parameters_digest")
        cleaned = cleaned.unique(subset=ANSWER, keep="last", maintain_order=True)
    cleaned = cleaned.with_columns(cleaned_text_digests(cleaned)).with_columns(
        clean_words=text.str.count_matches(r"\S+"),
        categories=category.list.unique().cast(pl.List(pl.Categorical)),
        **{name: pl.col(name).cast(pl.Categorical) for name in ("prompt_digest", "parameters_digest", "endpoint")},
    )
    rows = studies.join(cleaned, on=ANSWER, how="left", maintain_order="left")
    labels = store.scan("text_labels").filter(pl.col("labeler") == labeler()).select("text_sha256", "labels").collect()
    for column, prefix in (("report_sha256", RAW_LABEL), ("cleaned_text", CLEAN_LABEL)):
        named = labels.select(
            pl.col("text_sha256").alias(column),
            *(pl.col("labels").struct.field(name).alias(f"{prefix}{name}") for name in CHEXPERT_14),
        )
        rows = rows.join(named, on=column, how="left", maintain_order="left")
    return rows.drop("cleaned_text").with_row_index("row")


def _with_reviews(reviews: pl.DataFrame, rows: pl.DataFrame, cleaning: Cleaning | None) -> pl.DataFrame:
    """The rows with each study's latest review under the cleaning, and the outcome of both."""
    latest = (
        reviews.filter(_of(cleaning))
        .rename({"findings": "edited_findings", "impression": "edited_impression", "created_at": "reviewed_at"})
        .unique(subset=ANSWER, keep="last", maintain_order=True)
        .select(*ANSWER, *_REVIEW)
    )
    # only the keys are joined: the other columns need not be gathered again for every decision
    reviewed = rows.select(ANSWER).join(latest, on=ANSWER, how="left", maintain_order="left")
    return rows.hstack(reviewed.select(_REVIEW)).with_columns(outcome=outcome())


def _of(cleaning: Cleaning | None) -> pl.Expr:
    if cleaning is None:
        return pl.lit(False)
    return (pl.col("prompt_version") == cleaning.prompt_version) & (pl.col("model") == cleaning.model)
