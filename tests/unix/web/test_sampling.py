"""Samples repeat, reach every stratum, and their estimate weighs strata as the population does."""

import polars as pl
import pytest

from unix.errors import ConfigError
from unix.web.filters import StudyFilter
from unix.web.library import Cleaning, View
from unix.web.sampling import Sample, select, wilson


def view(statuses: list[str], decisions: dict[int, str] | None = None) -> View:
    size = len(statuses)
    decided = decisions or {}
    return View(
        Cleaning("v1", "m"),
        pl.DataFrame(
            {
                "row": pl.Series(range(size), dtype=pl.UInt32),
                "source": ["s"] * size,
                "study_id": [f"{number:05}" for number in range(size)],
                "status": statuses,
                "split": [None] * size,
                "flags": pl.Series([[]] * size, dtype=pl.List(pl.String)),
                "decision": pl.Series([decided.get(number) for number in range(size)], dtype=pl.String),
            }
        ),
        {},
    )


OPEN = StudyFilter()


def test_the_same_address_gives_the_same_sample_and_another_seed_another() -> None:
    here, there = view(["accepted"] * 500), view(["accepted"] * 500)
    first = Sample.parse("7:40").rows(here, OPEN).to_list()
    assert first == Sample.parse("7:40").rows(there, OPEN).to_list()
    assert len(set(first)) == 40
    assert first != Sample.parse("8:40").rows(here, OPEN).to_list()
    assert first[:10] == Sample.parse("7:10").rows(here, OPEN).to_list()


def test_a_sample_is_no_larger_than_its_population() -> None:
    assert len(Sample.parse("1:50").rows(view(["accepted"] * 9), OPEN)) == 9


def test_strata_get_equal_parts_as_far_as_they_reach() -> None:
    studies = view(["accepted"] * 900 + ["flagged"] * 95 + ["rejected"] * 5)
    rows = Sample.parse("1:40:status").rows(studies, OPEN)
    counts = dict(studies.rows[rows].group_by("status").len().iter_rows())
    assert counts["rejected"] == 5 and counts["accepted"] + counts["flagged"] == 35
    assert abs(counts["accepted"] - counts["flagged"]) <= 1


def test_the_estimate_weighs_strata_by_the_population() -> None:
    statuses = ["accepted"] * 900 + ["flagged"] * 100
    sample = Sample.parse("1:40:status")
    rows = sample.rows(view(statuses), OPEN).to_list()
    decisions = {row: "reject" if statuses[row] == "flagged" else "approve" for row in rows}
    estimate = sample.estimate(view(statuses, decisions), OPEN)
    assert estimate.rate == pytest.approx(0.1)
    assert (estimate.sampled, estimate.reviewed, estimate.errors) == (40, 40, 20)
    assert estimate.low < 0.1 < estimate.high
    assert (estimate.low, estimate.high) == pytest.approx(wilson(0.1, 1 / (0.9**2 / 20 + 0.1**2 / 20)))


def test_edits_are_errors_and_decisions_outside_the_sample_do_not_count() -> None:
    sample = Sample.parse("1:20")
    inside = sample.rows(view(["accepted"] * 200), OPEN).to_list()
    outside = next(number for number in range(200) if number not in inside)
    studies = view(["accepted"] * 200, {inside[0]: "edit", inside[1]: "approve", outside: "reject"})
    estimate = sample.estimate(studies, OPEN)
    assert (estimate.reviewed, estimate.errors, estimate.rate) == (2, 1, 0.5)


def test_nothing_reviewed_is_nothing_known() -> None:
    estimate = Sample.parse("1:20").estimate(view(["accepted"] * 200), OPEN)
    assert (estimate.rate, estimate.low, estimate.high) == (None, 0.0, 1.0)


def test_wilson_agrees_with_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for errors, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert wilson(errors / n, n) == pytest.approx((low, high), abs=5e-5)


def test_a_review_filter_shows_what_is_left_of_the_sample() -> None:
    studies = view(["accepted"] * 50)
    chosen = StudyFilter(sample="1:5", review="none")
    assert len(select(studies, chosen)) == 5
    first = select(studies, chosen)[0]
    assert first not in select(view(["accepted"] * 50, {first: "approve"}), chosen).to_list()


@pytest.mark.parametrize("text", ["", "1", "1:0", "1:2:nothing", "x:y", "1:999999", "-1:5"])
def test_what_names_no_sample_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no sample"):
        Sample.parse(text)
