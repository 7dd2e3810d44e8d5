"""The rule cleaner: what goes, what stays, and that it only takes words away."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.cleaning.rules import clean_report

KEPT = [
    "There is a 2.3 cm nodule in the right upper lobe.",
    "The small left pleural effusion is unchanged.",
    "Pneumonia cannot be excluded.",
    "No pneumothorax.",
    "The endotracheal tube ends 4 cm above the carina.",
    "Follow-up CT is recommended.",
    "The patient is intubated.",
    "Heart size is normal; the aorta is tortuous.",
    "Lungs are clear.",
]
NOISE = {
    "technique": [
        "Two views of the chest were obtained.",
        "Single portable AP view.",
        "Exposure was 90 kVp and 3 mAs.",
    ],
    "comparison": ["Comparison is made with the prior study of ___.", "No prior films are available for comparison."],
    "notification": [
        "Findings were discussed with Dr. ___ by phone at 4:05 PM.",
        "Dr. ___ was notified of these results.",
        "The above was relayed to the covering team by ___ at 11:20 p.m.",
    ],
    "dictation": ["Dictated by ___ on ___.", "This report was transcribed at 9:10 AM."],
    "signature": ["Electronically signed by ___, M.D.", "Attending: ___."],
    "filler": ["Thank you for this referral.", "Please see above for details."],
}


def report(findings: str, impression: str = "Normal.") -> str:
    return f" FINAL REPORT\n INDICATION: fever\n \n FINDINGS: {findings}\n \n IMPRESSION:\n \n {impression}\n"


@pytest.mark.parametrize("sentence", KEPT)
def test_what_the_images_show_stays_word_for_word(sentence: str) -> None:
    assert clean_report(report(sentence)).findings == sentence


@pytest.mark.parametrize(("category", "sentence"), [(name, item) for name, items in NOISE.items() for item in items])
def test_noise_goes_and_is_named(category: str, sentence: str) -> None:
    cleaned = clean_report(report(f"Lungs are clear. {sentence} No effusion."))
    assert cleaned.findings == "Lungs are clear. No effusion."
    assert [(span.category, span.text) for span in cleaned.removed] == [(category, sentence)]


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


def test_wet_reads_and_addenda_go_whole() -> None:
    wet_read = " WET READ: ___ 9:00 PM\n  Large effusion.\n ______________________\n"
    raw = f"{wet_read}{report('No effusion.')}\n ADDENDUM: Sent late.\n"
    cleaned = clean_report(raw)
    assert cleaned.findings == "No effusion."
    assert {"wet_read", "addendum"} <= {span.category for span in cleaned.removed}


def test_without_headers_the_text_counts_as_findings() -> None:
    cleaned = clean_report("Small effusion. Thank you.")
    assert (cleaned.findings, cleaned.impression) == ("Small effusion.", "")


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("The small left effusion is unchanged.", "The small left effusion."),
        ("Unchanged moderate cardiomegaly.", "Moderate cardiomegaly."),
        ("The pneumothorax has resolved.", ""),
    ],
)
def test_references_to_priors_go_only_where_asked(raw: str, clean: str) -> None:
    assert clean_report(report(raw)).findings == raw
    assert clean_report(report(raw), remove_priors=True).findings == clean


@given(st.lists(st.sampled_from([*KEPT, *(item for items in NOISE.values() for item in items)]), max_size=8))
def test_nothing_is_ever_added(sentences: list[str]) -> None:
    raw = report(" ".join(sentences))
    cleaned = clean_report(raw)
    words = Counter(re.findall(r"\w+", f"{cleaned.findings} {cleaned.impression}".lower()))
    assert words <= Counter(re.findall(r"\w+", raw.lower()))
    assert all(sentence in cleaned.findings for sentence in sentences if sentence in KEPT)


@given(st.text(max_size=300))
def test_any_text_can_be_cleaned(text: str) -> None:
    clean_report(text)
