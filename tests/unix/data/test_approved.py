"""Which text a study contributes, and which cleaning a release pins."""

from typing import Any

import polars as pl
import pytest

from unix.data.approved import APPROVED, pin_cleaning, report_outcomes
from unix.errors import ConfigError


def texts(curated: Any, version: str = "v1", model: str = "rules") -> dict[str, tuple[str, str]]:
    curated.commit()
    frame = report_outcomes(curated.store, version, model).filter(pl.col("outcome") == APPROVED).collect()
    return {row["study_id"]: (row["findings"], row["impression"]) for row in frame.iter_rows(named=True)}


def outcome(curated: Any) -> str:
    curated.commit()
    (value,) = report_outcomes(curated.store, "v1", "rules").collect()["outcome"]
    return value


@pytest.mark.parametrize(
    ("status", "decisions", "expected"),
    [
        ("accepted", [], "approved"),
        ("accepted", ["approve"], "approved"),
        ("accepted", ["reject"], "review_rejected"),
        ("flagged", [], "flagged_unreviewed"),
        ("flagged", ["approve"], "approved"),
        ("flagged", ["approve", "reject"], "review_rejected"),
        ("flagged", ["reject", "approve"], "approved"),
        ("rejected", [], "cleaning_rejected"),
        ("rejected", ["approve"], "cleaning_rejected"),
        ("rejected", ["edit"], "approved"),
        ("failed", [], "cleaning_failed"),
        (None, [], "not_cleaned"),
        (None, ["edit"], "approved"),
    ],
)
def test_status_and_the_latest_review_decide(
    curated: Any, status: str | None, decisions: list[str], expected: str
) -> None:
    curated.study("1")
    if status:
        curated.cleaned("1", status=status)
    for minutes, decision in enumerate(decisions):
        curated.review("1", decision, minutes=minutes)
    assert outcome(curated) == expected


def test_an_edit_replaces_both_sections(curated: Any) -> None:
    curated.study("1")
    curated.cleaned("1")
    curated.review("1", "edit", findings="  Edited.  ")
    assert texts(curated) == {"1": ("Edited.", "")}


def test_text_of_studies_that_are_not_approved_is_withheld(curated: Any) -> None:
    curated.study("1")
    curated.cleaned("1", status="flagged")
    curated.commit()
    row = report_outcomes(curated.store, "v1", "rules").collect().row(0, named=True)
    assert (row["findings"], row["impression"]) == ("", "")
    assert texts(curated) == {}


def test_a_changed_report_makes_old_answers_and_reviews_void(curated: Any) -> None:
    curated.study("1", report_sha256="new")
    curated.cleaned("1", report_sha256="old")
    curated.review("1", "edit", report_sha256="old", findings="Old.")
    assert outcome(curated) == "not_cleaned"


def test_only_the_pinned_pair_counts(curated: Any) -> None:
    curated.study("1")
    curated.cleaned("1", prompt_version="v1", findings="By v1.", impression="")
    curated.cleaned("1", prompt_version="v2", prompt_digest="other", findings="By v2.", impression="")
    curated.review("1", "reject", prompt_version="v2")
    assert texts(curated, "v1") == {"1": ("By v1.", "")}
    assert texts(curated, "v2") == {}


def test_of_several_parameter_settings_the_latest_final_answer_counts(curated: Any) -> None:
    curated.study("1")
    curated.cleaned("1", parameters_digest="a", minutes=2, findings="Later.", impression="")
    curated.cleaned("1", parameters_digest="b", minutes=1, findings="Earlier.", impression="")
    curated.cleaned("1", parameters_digest="c", minutes=3, status="failed", findings=None, impression=None)
    assert texts(curated) == {"1": ("Later.", "")}


def test_where_nobody_chooses_the_cleaning_of_most_studies_counts(curated: Any) -> None:
    for study in ("1", "2", "3"):
        curated.study(study)
        curated.cleaned(study, model="whole")
    curated.study("4", withdrawn=True)
    curated.cleaned("1", model="trial", minutes=5)
    curated.cleaned("4", model="trial", minutes=6)
    for study, status in (("1", "accepted"), ("2", "rejected"), ("3", "failed")):
        curated.cleaned(study, model="broke off", minutes=7, status=status)
    curated.commit()
    with pytest.raises(ConfigError, match="several cleanings fit"):
        pin_cleaning(curated.store, None, None)
    assert pin_cleaning(curated.store, None, None, unattended=True).model == "whole"
    assert pin_cleaning(curated.store, None, "trial", unattended=True).model == "trial"


def test_of_cleanings_of_the_same_studies_the_latest_counts(curated: Any) -> None:
    curated.study("1")
    curated.cleaned("1", model="rules-3", prompt_digest="new", minutes=2)
    curated.cleaned("1", model="rules-2", minutes=1)
    curated.commit()
    chosen = pin_cleaning(curated.store, None, None, unattended=True)
    assert (chosen.model, chosen.prompt_digests) == ("rules-3", ("new",))


def test_withdrawn_studies_contribute_nothing(curated: Any) -> None:
    curated.study("1", withdrawn=True)
    curated.study("2", withdrawn=None)
    curated.cleaned("1")
    curated.cleaned("2")
    assert set(texts(curated)) == {"2"}


def test_equal_study_ids_of_two_sources_stay_apart(curated: Any) -> None:
    for source in ("phantom", "iu-xray"):
        curated.study("1", source=source, report_sha256="same")
        curated.cleaned("1", source=source, report_sha256="same", findings=f"From {source}.")
    curated.commit()
    frame = report_outcomes(curated.store, "v1", "rules").filter(pl.col("outcome") == APPROVED).collect()
    assert dict(frame.select("source", "findings").rows()) == {
        "phantom": "From phantom.",
        "iu-xray": "From iu-xray.",
    }


def test_the_only_cleaning_is_pinned_with_its_digests(curated: Any) -> None:
    curated.cleaned("1", prompt_digest="b")
    curated.cleaned("2", prompt_digest="a")
    curated.commit()
    pinned = pin_cleaning(curated.store, None, None)
    assert (pinned.prompt_version, pinned.model, pinned.prompt_digests) == ("v1", "rules", ("a", "b"))


def test_several_cleanings_need_a_choice_and_are_listed(curated: Any) -> None:
    curated.cleaned("1")
    curated.cleaned("1", model="large", prompt_version="v2", prompt_digest="other")
    curated.commit()
    with pytest.raises(ConfigError, match="v1 by rules, v2 by large"):
        pin_cleaning(curated.store, None, None)
    assert pin_cleaning(curated.store, "v2", None).model == "large"
    assert pin_cleaning(curated.store, None, "rules").prompt_version == "v1"
    with pytest.raises(ConfigError, match=r"no cleaned report fits prompt_version=v3.*v1 by rules, v2 by large"):
        pin_cleaning(curated.store, "v3", None)


def test_a_store_without_cleaned_reports_says_what_to_run(curated: Any) -> None:
    with pytest.raises(ConfigError, match="unix clean"):
        pin_cleaning(curated.store, None, None)
