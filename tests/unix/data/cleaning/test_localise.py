"""Guards' faults are laid at the sentences that have them."""

from unix.data.cleaning.guards import GUARDS, Pair, judge
from unix.data.cleaning.localise import explanation, faults
from unix.records import CleanedReport

RAW = (
    " FINAL REPORT\n\n FINDINGS:  There is a small left pleural\n effusion. The heart is normal.\n\n"
    " IMPRESSION:  Nodule of 4 mm in the right upper lobe.\n"
)
KEPT = CleanedReport(
    "There is a small left pleural effusion. The heart is normal.", "Nodule of 4 mm in the right upper lobe."
)


def places(text: CleanedReport) -> dict[str, tuple[list[str], list[str], list[str]]]:
    return {
        fault.name: (
            [" ".join(RAW[slice(*place)].split()) for place in fault.raw],
            [text.findings[slice(*place)] for place in fault.findings],
            [text.impression[slice(*place)] for place in fault.impression],
        )
        for fault in faults(Pair(RAW, text))
    }


def test_a_faithful_cleaning_has_none() -> None:
    assert faults(Pair(RAW, KEPT)) == []


def test_what_was_changed_is_found_in_the_cleaned_text() -> None:
    text = CleanedReport(KEPT.findings.replace("left", "right"), KEPT.impression + " Discussed with Dr. Who at 10:15.")
    found = places(text)
    assert found["laterality_changed"] == ([], ["There is a small right pleural effusion."], [])
    assert found["date_left"] == ([], [], ["Discussed with Dr. Who at 10:15."])


def test_what_is_missing_is_found_in_the_raw_report_across_its_line_breaks() -> None:
    assert places(CleanedReport("The heart is normal.", KEPT.impression))["finding_lost"] == (
        ["There is a small left pleural effusion."],
        [],
        [],
    )


def test_what_no_sentence_does_alone_is_found_in_the_sentences_that_are_not_the_reports() -> None:
    doubled = "There is a small left pleural effusion, there is. The heart is normal."
    found = places(CleanedReport(doubled, KEPT.impression))
    assert found["added_word"] == ([], ["There is a small left pleural effusion, there is."], [])


def test_an_empty_answer_has_no_place() -> None:
    assert places(CleanedReport("", "")) == {"empty": ([], [], [])}


def test_the_same_guards_speak_as_in_the_verdict() -> None:
    pair = Pair(RAW, CleanedReport("A large mass is new.", "Nodule of 9 mm."))
    assert tuple(fault.name for fault in faults(pair)) == judge(pair).flags


def test_every_flag_has_words() -> None:
    assert all(explanation(guard.name) == guard.explanation for guard in GUARDS)
    assert explanation("content_filter") == "The cleaning stopped with content filter."
