"""Random samples for review, and the error rate that reviewing them shows.

A sample is `(seed, n, stratum column)` over a filter's studies: studies are ranked by a hash of the seed and their key,
so the same address gives the same sample, and studies that come later disturb it little. A study is an error when its
latest review rejects or edits it.
"""

import hashlib
import math
import re
from typing import Literal, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from unix.config import Config
from unix.errors import ConfigError
from unix.web.filters import StudyFilter, matching, review_is
from unix.web.library import View

STRATA = ("status", "source", "split", "flag")
_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Estimate(NamedTuple):
    """An error rate with its 95 % confidence interval; `reviewed` of `sampled` studies have a decision."""

    sampled: int
    reviewed: int
    errors: int
    rate: float | None
    low: float
    high: float
    strata: tuple["StratumResult", ...]


class StratumResult(NamedTuple):
    """One stratum: its share of the population, and what was found in it."""

    name: str
    population: int
    share: float
    sampled: int
    reviewed: int
    errors: int


class Sample(Config):
    """A random sample of `n` studies."""

    seed: int
    n: int
    stratify: Literal["", "status", "source", "split", "flag"] = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `SEED:N` or `SEED:N:COLUMN`.

        Raises:
            ConfigError: it is nothing of the kind.
        """
        match = re.fullmatch(r"(\d{1,9}):(\d{1,5})(?::(status|source|split|flag))?", text)
        if match is None or int(match[2]) == 0:
            raise ConfigError(
                f"the address names no sample: {text!r:.40} is not SEED:N or SEED:N:COLUMN, with N above 0"
            )
        return cls.model_validate({"seed": int(match[1]), "n": int(match[2]), "stratify": match[3] or ""})

    def __str__(self) -> str:
        return f"{self.seed}:{self.n}" + (f":{self.stratify}" if self.stratify else "")

    def rows(self, view: View, population: StudyFilter) -> pl.Series:
        """Row numbers of the sample in random order. With strata, each gets an equal part as far as it reaches."""
        ranked = self._ranked(view, population)
        if not self.stratify:
            return ranked["row"].head(self.n)
        sizes = _allocation(dict(ranked.group_by("stratum").len().iter_rows()), self.n)
        chosen = ranked.with_columns(place=pl.int_range(pl.len()).over("stratum")).filter(
            pl.col("place") < pl.col("stratum").cast(pl.String).replace_strict(sizes, return_dtype=pl.Int64)
        )
        return chosen["row"]

    def estimate(self, view: View, population: StudyFilter) -> Estimate:
        """What the reviews so far say of the population. Strata weigh as they do in it, not as in the sample.

        The interval is Wilson's. With strata its n is the effective sample size 1 / sum(W^2 / n) (Kish), with W the
        share of a stratum and n its reviewed studies; strata without a review are left out of both.
        """
        ranked = self._ranked(view, population)
        sampled = ranked.with_columns(
            chosen=pl.col("row").is_in(self.rows(view, population).implode()),
        ).join(view.rows.select("row", "decision"), on="row", how="left", maintain_order="left")
        error = pl.col("chosen") & pl.col("decision").is_in(["reject", "edit"])
        grouped = (
            sampled.group_by("stratum")
            .agg(
                population=pl.len(),
                sampled=pl.col("chosen").sum(),
                reviewed=(pl.col("chosen") & pl.col("decision").is_not_null()).sum(),
                errors=error.sum(),
            )
            .sort(pl.col("stratum").cast(pl.String))
        )
        total = ranked.height
        strata = tuple(
            StratumResult(str(name), size, size / total, taken, seen, wrong)
            for name, size, taken, seen, wrong in grouped.iter_rows()
        )
        reviewed, errors = sum(one.reviewed for one in strata), sum(one.errors for one in strata)
        taken = sum(one.sampled for one in strata)
        seen = [one for one in strata if one.reviewed]
        if not seen:
            return Estimate(taken, 0, 0, None, 0.0, 1.0, strata)
        weight = sum(one.share for one in seen)
        rate = sum(one.share / weight * one.errors / one.reviewed for one in seen)
        effective = 1 / sum((one.share / weight) ** 2 / one.reviewed for one in seen)
        low, high = wilson(rate, effective)
        return Estimate(taken, reviewed, errors, rate, low, high, strata)

    def _ranked(self, view: View, population: StudyFilter) -> pl.DataFrame:
        """row, stratum of the whole population in the sample's random order."""
        return view.steady.get(
            f"ranked {self.seed} {self.stratify} {population.query()}", lambda: self._rank(view, population)
        )

    def _rank(self, view: View, population: StudyFilter) -> pl.DataFrame:
        rows = matching(view, population.model_copy(update={"sort": "study", "order": "up"}))
        stratum = pl.col("flags").list.first() if self.stratify == "flag" else pl.col(self.stratify or "source")
        named = stratum.fill_null("none") if self.stratify else pl.lit("all")
        order = np.argsort(_mixed(_keys(view), self.seed)[rows.to_numpy()], kind="stable")
        return view.rows.select("row", stratum=named.cast(pl.Categorical))[rows][order]


def _keys(view: View) -> NDArray[np.uint64]:
    """64 random-looking bits of every study's key, the same wherever it stands."""

    def compute() -> NDArray[np.uint64]:
        names = (f"{source}/{study}".encode() for source, study in view.rows.select("source", "study_id").iter_rows())
        return np.frombuffer(b"".join(hashlib.blake2b(name, digest_size=8).digest() for name in names), "<u8")

    return view.steady.get("sample keys", compute)


def _mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """The keys under a seed: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        mixed = keys + np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def select(view: View, chosen: StudyFilter) -> pl.Series:
    """Row numbers of the studies that a page shows, in its order: those that match, or a sample of them.

    Raises:
        ConfigError: the filter holds a value that cannot be.
    """
    if not chosen.sample:
        return matching(view, chosen)
    rows = Sample.parse(chosen.sample).rows(view, chosen.population)
    if not chosen.review:
        return rows
    return view.rows[rows, ["row", "decision"]].filter(review_is(chosen.review))["row"]


def wilson(rate: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a proportion that was seen in n trials."""
    middle = rate + _Z * _Z / (2 * n)
    spread = _Z * math.sqrt(rate * (1 - rate) / n + _Z * _Z / (4 * n * n))
    scale = 1 + _Z * _Z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def _allocation(sizes: dict[str, int], n: int) -> dict[str, int]:
    """Equal parts of n per stratum; what a small stratum cannot use goes to the others, the rest to the first names."""
    given = dict.fromkeys(sizes, 0)
    left = min(n, sum(sizes.values()))
    while left:
        hungry = sorted(name for name in sizes if given[name] < sizes[name])
        part = max(1, left // len(hungry))
        for name in hungry:
            more = min(part, sizes[name] - given[name], left)
            given[name] += more
            left -= more
    return given
