"""The nouns: label sets, digests, the joined report."""

import hashlib
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.records import (
    CHEXPERT_5,
    CHEXPERT_14,
    FRONTAL_VIEWS,
    Rejection,
    Sections,
    Status,
    join_report,
    no_labels,
    text_digest,
)


def test_the_five_classes_are_among_the_fourteen() -> None:
    assert len(CHEXPERT_14) == len(set(CHEXPERT_14)) == 14
    assert set(CHEXPERT_5) < set(CHEXPERT_14)


def test_no_labels_is_a_fresh_dictionary_each_time() -> None:
    first = no_labels()
    first["Edema"] = 1
    assert no_labels() == dict.fromkeys(CHEXPERT_14)


def test_lateral_is_no_frontal_view() -> None:
    assert {"AP", "PA"} <= FRONTAL_VIEWS
    assert "LATERAL" not in FRONTAL_VIEWS


def test_sections_give_empty_text_for_what_is_not_there() -> None:
    assert Sections({"findings": "Clear."}).findings == "Clear."
    assert Sections({"findings": "Clear."}).impression == ""


def test_join_report_leaves_absent_parts_out() -> None:
    assert join_report("Clear lungs.", "Normal.") == "FINDINGS: Clear lungs. IMPRESSION: Normal."
    assert join_report("", "Normal.") == "IMPRESSION: Normal."
    assert join_report("Clear lungs.", "") == "FINDINGS: Clear lungs."
    assert join_report("", "") == ""


@given(st.text())
def test_text_digest_is_sha256_of_utf8(text: str) -> None:
    assert text_digest(text) == hashlib.sha256(text.encode()).hexdigest()


def test_text_digest_takes_lone_surrogates() -> None:
    assert text_digest("\ud800") != text_digest("\ud801")


def test_records_are_immutable() -> None:
    rejection = Rejection("ingest", "phantom", "1", "empty_report")
    with pytest.raises(FrozenInstanceError):
        rejection.item = "2"  # pyright: ignore[reportAttributeAccessIssue]


def test_status_values_are_those_of_the_tables() -> None:
    assert [status.value for status in Status] == ["accepted", "flagged", "rejected", "failed"]
