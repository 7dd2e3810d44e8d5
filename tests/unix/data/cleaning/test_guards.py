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
    ("numbers_changed", "2.3 cm", "2.3 mm", Status.REJECTED),
    ("negation_flipped", "No pneumothorax.", "Left pneumothorax.", Status.REJECTED),
    ("label_gained", "Possible edema.", "Possible edema. Pneumonia.", Status.REJECTED),
    ("degree_changed", "The small left", "The large left", Status.REJECTED),
    ("degree_changed", "mildly enlarged", "normal", Status.REJECTED),
    ("degree_changed", "right upper lobe", "right lower lobe", Status.REJECTED),
    ("reworded", "No pneumothorax.", "No nodule.", Status.FLAGGED),
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


def flags(raw: str, findings: str, impression: str = "") -> tuple[str, ...]:
    return judge(Pair(raw, CleanedReport(findings, impression))).flags


def test_a_number_in_words_is_a_number() -> None:
    raw = "There are two nodules. Fracture of the fifth rib. Three old scars."
    assert "numbers_changed" in flags(raw, "There are three nodules. Fracture of the fifth rib. Three old scars.")
    assert "numbers_changed" in flags(raw, "There are two nodules. Fracture of the sixth rib. Three old scars.")


def test_sides_exchanged_between_sentences_are_changed() -> None:
    raw = "Left basilar atelectasis. Small right effusion. The right apex is clear."
    assert flags(raw, raw) == ()
    assert "laterality_changed" in flags(raw, raw.replace("Left b", "Right b").replace("right e", "left e"))


@pytest.mark.parametrize(
    "lost",
    [
        "There is a small hiatal hernia.",
        "Degenerative changes of the spine.",
        "Old granulomatous disease is present.",
        "Surgical clips overlie the right breast shadow.",
    ],
)
def test_what_no_label_names_may_not_go_either(lost: str) -> None:
    assert "content_lost" in flags(f"The lungs are clear. {lost} No effusion.", "The lungs are clear. No effusion.")


@pytest.mark.parametrize(
    "noise",
    [
        "Portable view of the chest after line placement.",
        "Comparison is made to the radiograph of ___.",
        "Left effusion was discussed with Dr. ___ at 4 pm.",
        "Evaluate for pneumonia.",
        "___-year-old man with a history of lung cancer.",
        "Thank you.",
    ],
)
def test_noise_may_go(noise: str) -> None:
    clean = "There is a small left effusion. No pneumothorax."
    assert flags(f"{noise} {clean}", clean) == ()
    assert flags(f" FINDINGS: There is a small left effusion. {noise}\n No pneumothorax.\n", clean) == ()


def test_a_finding_told_to_somebody_stays_where_nothing_else_says_it() -> None:
    raw = "The lungs are clear. Findings of pneumothorax were called to Dr. ___."
    assert "finding_lost" in flags(raw, "The lungs are clear.")


def test_an_earlier_study_is_no_excuse_for_a_lost_finding() -> None:
    raw = "Compared to the prior study there is a new left effusion. The heart is normal."
    assert "finding_lost" in flags(raw, "The heart is normal.")
    raw = "The previously noted hiatal hernia is unchanged. The heart is normal."
    assert "content_lost" in flags(raw, "The heart is normal.")


def test_a_finding_of_both_sections_stays_in_both() -> None:
    raw = " FINDINGS: The heart is normal. Small left effusion.\n IMPRESSION: Small left effusion. No edema.\n"
    assert flags(raw, "The heart is normal. Small left effusion.", "Small left effusion. No edema.") == ()
    assert "finding_lost" in flags(raw, "The heart is normal.", "Small left effusion. No edema.")


def test_a_sentence_that_moved_to_the_other_section_is_seen() -> None:
    raw = " FINDINGS: The heart is normal. Small left effusion.\n IMPRESSION: No edema.\n"
    assert flags(raw, "The heart is normal.", "Small left effusion. No edema.") == ("reworded",)


def test_the_same_sentence_twice_may_stand_once() -> None:
    assert (
        flags(" FINDINGS: Small left effusion. No edema. Small left effusion.\n", "Small left effusion. No edema.")
        == ()
    )


def test_the_numbers_of_a_list_measure_nothing() -> None:
    raw = " IMPRESSION:\n 1. Left effusion\n 2. Edema\n 3. No pneumothorax\n"
    for cleaned in ("1. Left effusion 2. Edema 3. No pneumothorax", "Left effusion. Edema. No pneumothorax."):
        assert flags(raw, "", cleaned) == ()


def test_a_negation_goes_with_what_it_denied() -> None:
    raw = "No prior study is available and the lungs are clear. The heart is normal."
    assert flags(raw, "The lungs are clear. The heart is normal.") == ()
    assert "negation_flipped" in flags("There is no focal consolidation.", "There is consolidation.")


def test_a_time_is_no_measurement() -> None:
    raw = "A 4 mm nodule in the left apex, seen by Dr. ___ at 4:30, is new."
    assert flags(raw, "A 4 mm nodule in the left apex is new.") == ()
    assert "number_lost" in flags(raw, "A nodule in the left apex is new.")


def test_a_reports_own_bullets_are_no_markup() -> None:
    raw = " IMPRESSION:\n - Left effusion.\n - No edema.\n"
    assert flags(raw, "", "- Left effusion.\n- No edema.") == ()
    assert "chat_left" in flags(" IMPRESSION: Left effusion.\n", "", "- Left effusion.")


def test_findings_without_headers_are_judged_alike() -> None:
    text = f"{FINDINGS} {IMPRESSION}"
    assert flags(text, text) == ()
    for name, old, new, _ in FAULTS:
        assert judge(Pair(text, CleanedReport(text.replace(old, new, 1), ""))).status is not Status.ACCEPTED, name
