"""Notices what landed in a source's folder: studies that are new, changed or gone, once their files rest.

A look lists the folder and compares it with the store; no report and no picture is opened. Studies that differ between
two looks are still on their way. What landed is told once; where the store has not taken it in after a while, once
more, so that nobody has to trust that a message arrived.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import Field

from unix.config import Config
from unix.data.ingest import JOB, read_stored
from unix.data.mirror import mirror
from unix.data.sources import get_source
from unix.errors import SourceError
from unix.store import Store

logger = logging.getLogger(__name__)

GONE = ""
"""Stands for the fingerprint of a study that is no longer there."""


class WatchConfig(Config):
    """Which folder to watch, and how often."""

    store: str = Field(description="URI of the store")
    source: str = Field(description="mimic-cxr, iu-xray or phantom")
    root: str = Field(description="the source's folder")
    bucket: str | None = Field(default=None, description="object store that the folder mirrors, such as s3://name/path")
    interval: float = Field(default=15.0, gt=0, description="seconds between two looks")
    remind_after: float = Field(
        default=900.0, gt=0, description="seconds after which what the store still lacks is told again"
    )
    looks: int | None = Field(default=None, ge=2, description="end after so many looks; None: when it is stopped")


class Landing(Config):
    """What landed, in numbers."""

    source: str
    root: str
    store: str
    new: int
    changed: int
    withdrawn: int


class WatchSummary(Config):
    """What a watch came to."""

    looks: int
    failed_looks: int
    """Where a table was being written, or the folder was away."""
    landings: int
    new: int
    changed: int
    withdrawn: int


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    open: dict[str, str]
    """Study id -> fingerprint, or `GONE`, of all that the folder has otherwise than the store."""
    known: frozenset[str]
    """Studies that the store has, withdrawn ones included."""
    refused: frozenset[str]
    """Open studies of which ingest has refused something."""


class Watcher:
    """Decides from look to look what has landed; knows neither folder nor store (pure)."""

    def __init__(self, remind_after: float) -> None:
        self._remind_after = remind_after
        self._before: dict[str, str] | None = None
        self._told: dict[str, tuple[str, float]] = {}

    def miss(self) -> None:
        """A look failed: what the next one finds was not seen before."""
        self._before = None

    def see(self, open_studies: dict[str, str], refused: frozenset[str], at: float) -> frozenset[str]:
        """Studies to tell of now.

        Args:
            open_studies: study id -> fingerprint, or `GONE`, of all that the folder has otherwise than the store.
            refused: those of them that ingest could not take; of these nobody is reminded.
            at: seconds, on a clock that does not go back.
        """
        rests = open_studies == self._before
        self._before = dict(open_studies)
        self._told = {study: told for study, told in self._told.items() if study in open_studies}
        if not rests:
            return frozenset()
        news = {study for study, mark in open_studies.items() if self._told.get(study, ("?", at))[0] != mark}
        late = {study for study, (_, when) in self._told.items() if at - when >= self._remind_after} - refused
        for study in news | late:
            self._told[study] = (open_studies[study], at)
        return frozenset(news | late)


def watch(
    config: WatchConfig, tell: Callable[[Landing], object], clock: Callable[[], float] = time.monotonic
) -> WatchSummary:
    """Look, wait, look again, without end or `looks` times; `tell` hears of every landing.

    A look that fails is logged and repeated: tables that are being written look damaged.

    Raises:
        ConfigError: the source's name is unknown.
        SourceError: the very first look finds no such folder, or cannot reach the bucket.
    """
    get_source(config.source)
    if config.bucket is not None:
        mirror(config.bucket, Path(config.root))
    if not Path(config.root).is_dir():
        raise SourceError(f"missing folder {config.root}; --root takes the folder of source {config.source}")
    watcher, landings = Watcher(config.remind_after), list[Landing]()
    looks = failed = 0
    while True:
        looks += 1
        try:
            if config.bucket is not None and looks > 1:
                mirror(config.bucket, Path(config.root))
            seen = look(config)
        except SourceError as error:
            failed += 1
            logger.info("look %d: %s", looks, error)
            watcher.miss()
        else:
            if landed := watcher.see(seen.open, seen.refused, clock()):
                landing = _landing(config, seen, landed)
                logger.info("landed: %d new, %d changed, %d withdrawn", landing.new, landing.changed, landing.withdrawn)
                tell(landing)
                landings.append(landing)
        if looks == config.looks:
            break
        time.sleep(config.interval)
    return WatchSummary(
        looks=looks,
        failed_looks=failed,
        landings=len(landings),
        new=sum(landing.new for landing in landings),
        changed=sum(landing.changed for landing in landings),
        withdrawn=sum(landing.withdrawn for landing in landings),
    )


def look(config: WatchConfig) -> Look:
    """Compare folder and store once.

    Raises:
        SourceError: the folder is missing, or its tables are damaged.
    """
    store = Store(config.store)
    stored = read_stored(store, config.source)
    listing = get_source(config.source).list_studies(Path(config.root).resolve())
    if listing.studies.is_empty() and stored.studies.height:
        raise SourceError(f"{config.root} holds no study, yet the store has {stored.studies.height}: is it mounted?")
    pending = stored.pending(listing)
    found = dict(pending.select("study_id", "fingerprint").iter_rows())
    found |= dict.fromkeys(stored.missing(listing), GONE)
    mine = (pl.col("job") == JOB) & (pl.col("source") == config.source)
    items = store.scan("rejections").filter(mine).select("item").collect()["item"].implode()
    images = listing.images.join(pending, on="study_id", how="semi").filter(pl.col("image_id").is_in(items))
    refused = {*pending.filter(pl.col("study_id").is_in(items))["study_id"], *images["study_id"]}
    return Look(found, frozenset(stored.studies["study_id"]) | stored.withdrawn, frozenset(refused))


def _landing(config: WatchConfig, seen: Look, landed: frozenset[str]) -> Landing:
    gone = sum(seen.open[study] == GONE for study in landed)
    changed = sum(seen.open[study] != GONE and study in seen.known for study in landed)
    return Landing(
        source=config.source,
        root=str(Path(config.root).resolve()),
        store=config.store,
        new=len(landed) - gone - changed,
        changed=changed,
        withdrawn=gone,
    )
