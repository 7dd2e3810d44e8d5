"""Every guard sees its fault, and a faithful cleaning raises none."""

import pytest

from unix.data.cleaning.guards import GUARDS, Pair, explain, judge
from unix.records import CleanedReport, Status

RAW = """ FINAL REPORT
 FINDINGS: Two views of the chest were obtained. There is a 2.3 cm nodule in the right upper lobe. The small left
 pleural effusion is unchanged. No pneumothorax. Possible edema. The heart is mildly enlarged. Dr. ___ was told.

 IMPRESSION:
 1. Right upper lobe nodule. 2. Small left effusion. 3. Mild cardiomegaly.
"""
FINDINGS = (
    "There is a 2.3 cm nodule in the right upper lobe. The small left pleural effusion is unchanged. No pneumothorax. "
    "Possible edema. The heart is mildly enlarged."
)
IMPRESSION = "1. Right upper lobe nodule. 2. Small left effusion. 3. Mild cardiomegaly."
FAULTS = [
    ("laterality_changed", "small left pleural", "small right pleural", Status.REJECTED),
    ("negation_flipped", "No pneumothorax.", "Pneumothorax.", Status.REJECTED),
    ("negation_flipped", "There is a 2.3", "There is not a 2.3", Status.REJECTED),
    ("numbers_changed", "2.3 cm", "3.2 cm", Status.REJECTED),
    ("added_content", "Possible edema.", "Possible edema. Multifocal consolidation.", Status.REJECTED),
    ("label_gained", "No pneumothorax.", "No pneumothorax. Rib fracture.", Status.REJECTED),
    ("prompt_leaked", "Possible edema.", "</report> Possible edema.", Status.REJECTED),
    ("chat_left", "There is a 2.3", "Here is the cleaned report: There is a 2.3", Status.REJECTED),
    ("chat_left", "Possible edema.", "**Possible** edema.", Status.REJECTED),
    ("finding_lost", "The heart is mildly enlarged.", "", Status.FLAGGED),
    ("finding_lost", "The small left pleural effusion is unchanged. ", "", Status.FLAGGED),
    ("uncertainty_changed", "Possible edema.", "Edema.", Status.FLAGGED),
    ("number_lost", "a 2.3 cm nodule", "a nodule", Status.FLAGGED),
    ("laterality_lost", "small left pleural", "small pleural", Status.FLAGGED),
    ("reworded", "nodule in the right upper lobe", "right upper lobe nodule in the", Status.FLAGGED),
    ("deidentification_left", "Possible edema.", "Possible edema. ___", Status.FLAGGED),
    ("notification_left", "Possible edema.", "Possible edema. Dr. ___ was notified", Status.FLAGGED),
    ("date_left", "Possible edema.", "Possible edema at 4:05", Status.FLAGGED),
    ("name_left", "Possible edema.", "Possible edema. Dr. ___ was told.", Status.FLAGGED),
    ("header_left", "There is a 2.3", "FINDINGS: There is a 2.3", Status.FLAGGED),
]


def test_a_faithful_cleaning_is_accepted() -> None:
    assert judge(Pair(RAW, CleanedReport(FINDINGS, IMPRESSION))) == (Status.ACCEPTED, ())


@pytest.mark.parametrize(("name", "old", "new", "at_least"), FAULTS)
def test_a_fault_is_seen(name: str, old: str, new: str, at_least: Status) -> None:
    assert old in FINDINGS
    verdict = judge(Pair(RAW, CleanedReport(FINDINGS.replace(old, new), IMPRESSION)))
    assert name in verdict.flags
    assert verdict.status is not Status.ACCEPTED
    if at_least is Status.REJECTED:
        assert verdict.status is Status.REJECTED


def test_empty_short_and_long_answers_are_seen() -> None:
    assert judge(Pair(RAW, CleanedReport("", ""))) == (Status.REJECTED, ("empty",))
    assert "too_short" in judge(Pair(RAW, CleanedReport("No pneumothorax.", ""))).flags
    assert "too_long" in judge(Pair(RAW, CleanedReport(f"{FINDINGS} " * 3, IMPRESSION))).flags


def test_repaired_json_is_flagged() -> None:
    assert judge(Pair(RAW, CleanedReport(FINDINGS, IMPRESSION), repaired=True)) == (Status.FLAGGED, ("json_repaired",))


def test_references_to_priors_are_flagged_where_the_prompt_asks_them_out() -> None:
    assert judge(Pair(RAW, CleanedReport(FINDINGS, IMPRESSION), removes_priors=True)).flags == ("prior_left",)


def test_every_guard_has_a_name_of_its_own_and_words_for_a_model() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
    assert explain([guard.name for guard in GUARDS]).count(".") >= len(GUARDS)
