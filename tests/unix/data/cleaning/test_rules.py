"""The rule cleaner: what goes, what stays, and that it only takes words away."""

import re
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unix.data.cleaning.rules import clean_report

SENTENCES = yaml.safe_load((Path(__file__).parent / "rule_sentences.yaml").read_text(encoding="utf-8"))
KEPT: list[str] = SENTENCES["kept"]
NOISE: list[tuple[str, str]] = [(category, item) for category, items in SENTENCES["noise"].items() for item in items]


def report(findings: str, impression: str = "Normal.") -> str:
    return f" FINAL REPORT\n INDICATION: fever\n \n FINDINGS: {findings}\n \n IMPRESSION:\n \n {impression}\n"


@pytest.mark.parametrize("sentence", KEPT)
def test_what_the_images_show_stays_word_for_word(sentence: str) -> None:
    assert clean_report(report(sentence)).findings == sentence


@pytest.mark.parametrize(("category", "sentence"), NOISE)
def test_noise_goes_and_is_named(category: str, sentence: str) -> None:
    separate = "\n" if category == "header" else ""  # a separator has a line of its own
    cleaned = clean_report(report(f"Heart is large. {separate}{sentence}{separate} No rib fracture."))
    assert cleaned.findings == "Heart is large. No rib fracture."
    assert category in {span.category for span in cleaned.removed}


@pytest.mark.parametrize(("raw", "clean"), SENTENCES["cut"].items())
def test_noise_is_cut_from_what_the_images_show(raw: str, clean: str) -> None:
    assert clean_report(report(raw)).findings == clean


def test_a_finding_that_was_told_and_stands_elsewhere_is_not_repeated() -> None:
    told = "The pneumothorax was discussed with Dr. ___ at 3 pm."
    assert clean_report(report(f"Small left pneumothorax. {told}")).findings == "Small left pneumothorax."
    assert clean_report(report(told)).findings == "The pneumothorax."


def test_a_discussion_after_labelled_findings_goes_up_to_the_next_label() -> None:
    cleaned = clean_report(
        report(
            "Presentation: Cough. Imaging notes: Opacity in the right base. Discussion: Such consolidation is usually"
            " bacterial. It clears slowly in the elderly. Findings: No effusion."
        )
    )
    assert cleaned.findings == "Opacity in the right base. No effusion."


def test_without_labelled_findings_a_discussion_is_one_sentence() -> None:
    cleaned = clean_report(report("Discussion: Treatment was started. The right base is consolidated."))
    assert cleaned.findings == "The right base is consolidated."


@pytest.mark.parametrize("examination", ["CHEST (PA AND LAT)", ""])
def test_what_tomography_showed_is_not_of_the_radiograph(examination: str) -> None:
    sentence = "CT showed a nodule in the left apex."
    raw = f" EXAMINATION: {examination}\n\n FINDINGS: Clear lungs. {sentence}\n"
    assert clean_report(raw).findings == "Clear lungs."
    assert clean_report(raw.replace(examination or ": ", "CT CHEST" if examination else ": CT CHEST", 1)).findings == (
        f"Clear lungs. {sentence}"
    )


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("Compared to the study of ___, the effusion is larger.", "The effusion is larger."),
        ("The tube placed on ___ is unchanged.", "The tube placed is unchanged."),
        ("Heart size XXXX normal limits.", "Heart size normal limits."),
        ("___ No effusion.", "No effusion."),
        (
            "There is a large effusion, unchanged from the study of ___ at 4:10 PM.",
            "There is a large effusion, unchanged.",
        ),
    ],
)
def test_blanks_go_with_the_words_that_need_them(raw: str, clean: str) -> None:
    assert clean_report(report(raw)).findings == clean


def test_wrapped_lines_are_joined_and_repeated_sentences_kept_once() -> None:
    cleaned = clean_report(report("The heart is\n mildly enlarged.  The heart is mildly enlarged."))
    assert cleaned.findings == "The heart is mildly enlarged."
    assert [span.category for span in cleaned.removed] == ["duplicate"]


def test_list_numbers_stay() -> None:
    cleaned = clean_report(report("Clear.", "1. Small effusion.\n 2. Dictated by ___.\n 3. No edema."))
    assert cleaned.impression == "1. Small effusion. 3. No edema."
    cleaned = clean_report(report("Clear.", "1. Small effusion.\n 2. Thank you. No edema."))
    assert cleaned.impression == "1. Small effusion. 2. No edema."
    cleaned = clean_report(report("Clear.", "1. Small effusion. (___) 2. No edema. ___ Correlate clinically."))
    assert cleaned.impression == "1. Small effusion. 2. No edema."


def test_wet_reads_and_addenda_go_whole() -> None:
    wet_read = " WET READ: ___ 9:00 PM\n  Large effusion.\n ______________________\n"
    raw = f"{wet_read}{report('No effusion.')}\n ADDENDUM: Sent late.\n"
    cleaned = clean_report(raw)
    assert cleaned.findings == "No effusion."
    assert {"wet_read", "addendum"} <= {span.category for span in cleaned.removed}


def test_recommendations_have_no_field_and_are_counted_among_what_went() -> None:
    cleaned = clean_report(" FINDINGS: Clear.\n\n IMPRESSION: Normal.\n\n RECOMMENDATION(S): Chest CT in 3 months.\n")
    assert (cleaned.findings, cleaned.impression) == ("Clear.", "Normal.")
    assert [(span.text, span.category) for span in cleaned.removed] == [
        ("RECOMMENDATION(S): Chest CT in 3 months.", "filler")
    ]


def test_a_sentence_ends_where_the_space_after_its_stop_is_missing() -> None:
    assert clean_report("Cardiac size appears normal.This is a young man.").findings == "Cardiac size appears normal."


def test_without_headers_the_text_counts_as_findings() -> None:
    cleaned = clean_report("Small effusion. Thank you.")
    assert (cleaned.findings, cleaned.impression) == ("Small effusion.", "")


@pytest.mark.parametrize(("raw", "clean"), SENTENCES["without_priors"].items())
def test_references_to_priors_go_only_where_asked(raw: str, clean: str) -> None:
    assert clean_report(report(raw), remove_priors=True).findings == clean


def test_without_that_the_course_of_a_finding_stays() -> None:
    sentence = "The small left effusion is unchanged."
    assert clean_report(report(sentence)).findings == sentence


@pytest.mark.parametrize("header", ["LUNGS", "HEART AND MEDIASTINUM", "BONES/SOFT TISSUES", "LINES AND TUBES"])
def test_a_section_headed_by_organs_is_findings(header: str) -> None:
    raw = f" FINDINGS:\n\n {header}: Nothing acute.\n\n IMPRESSION: Normal.\n"
    assert clean_report(raw).findings == f"{header}: Nothing acute."


@given(st.lists(st.sampled_from([*KEPT, *(item for _, item in NOISE)]), max_size=8))
def test_nothing_is_ever_added(sentences: list[str]) -> None:
    raw = report(" ".join(sentences))
    cleaned = clean_report(raw)
    words = Counter(re.findall(r"\w+", f"{cleaned.findings} {cleaned.impression}".lower()))
    assert words <= Counter(re.findall(r"\w+", raw.lower()))
    assert all(sentence in cleaned.findings for sentence in sentences if sentence in KEPT)


@given(st.text(max_size=300))
def test_any_text_can_be_cleaned(text: str) -> None:
    clean_report(text)
