"""Section parsing: headers, their spellings, and what happens where the usual ones are missing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.sections import body_sections, normalise_header, parse_sections, split_sections

REPORT = "\n".join(
    (
        "                                 FINAL REPORT",
        " EXAMINATION:  CHEST (PA AND LAT)",
        " ",
        " INDICATION:  Invented cough.",
        " ",
        " FINDINGS: ",
        " ",
        " The lungs are clear.",
        " No effusion.",
        " ",
        " IMPRESSION:",
        " ",
        " Normal chest.",
        "",
    )
)


def test_named_sections_are_found() -> None:
    sections = parse_sections(REPORT)
    assert list(sections.text) == ["preamble", "examination", "indication", "findings", "impression"]
    assert sections.findings == "The lungs are clear.\n No effusion."
    assert sections.impression == "Normal chest."
    assert sections.text["preamble"] == "FINAL REPORT"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("IMPRESSON", "impression"),
        ("IMPRESSION", "impression"),
        ("FINDINGS/IMPRESSION", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("FINIDNGS", "findings"),
        ("CHEST, PA AND LATERAL", "findings"),
        ("PORTABLE AP CHEST RADIOGRAPH", "findings"),
        ("WETREAD", "wet read"),
        ("PFI", "history"),
        ("REASON FOR EXAM", "indication"),
        ("COMPARSION", "comparison"),
        ("ADDENDUM BEGINS", "addendum"),
        ("RECOMMENDATION(S)", "recommendations"),
        ("DOSE", "dose"),
        ("FINDIGNS", "findings"),
        ("IMPRESSSIONN", "impression"),
        ("CONCLSUION", "impression"),
        ("COMPRESSION", "compression"),
        ("INDICATION", "indication"),
    ],
)
def test_headers_are_normalised(header: str, name: str) -> None:
    assert normalise_header(header) == name
    assert name in parse_sections(f" FINAL REPORT\n {header}:  invented text.\n").text


def test_the_last_section_of_a_name_that_is_not_empty_counts() -> None:
    sections = parse_sections(
        " CHEST, TWO VIEWS:\n \n HISTORY: none\n FINDINGS: first\n FINDINGS: second\n FINDINGS:\n"
    )
    assert sections.findings == "second"


def test_without_findings_and_impression_the_paragraphs_after_the_first_are_kept_apart() -> None:
    sections = parse_sections(" FINAL REPORT\n HISTORY: fever.\n \n The heart is large.\n \n No effusion.\n")
    assert sections.text["history"] == "fever."
    assert sections.text["last_paragraph"] == "The heart is large.\n \n No effusion."
    assert sections.findings == "" == sections.impression


def test_a_report_without_headers_is_one_section() -> None:
    assert parse_sections("Clear lungs.").text == {"full report": "Clear lungs."}
    assert parse_sections("A title\n\nClear lungs.").text == {
        "full report": "A title",
        "last_paragraph": "Clear lungs.",
    }


def test_a_wet_read_on_the_first_line_is_a_section() -> None:
    sections = parse_sections("    WET READ: ___ 9:14 PM\n  Early look.\n ____\n   FINAL REPORT\n FINDINGS: Clear.\n")
    assert sections.text["wet read"].startswith("___ 9:14 PM")
    assert sections.findings == "Clear."


def test_lower_case_and_mid_line_colons_are_no_headers() -> None:
    assert parse_sections(" FINDINGS: Lines: a tube. NOTE: stays\n Heart: normal.\n").findings.endswith(
        "Heart: normal."
    )


def test_an_empty_report_has_one_empty_section() -> None:
    assert parse_sections("").text == {"full report": ""}


@given(
    st.lists(st.sampled_from([" FINDINGS: a\n", " IMPRESSON:\n", "\n", " words. \n", "HISTORY: x\n", " 12:30 PM\n"]))
)
def test_spans_cover_the_report_without_gap_or_overlap(parts: list[str]) -> None:
    report = "".join(parts)
    spans = split_sections(report)
    assert spans[0].start == 0
    assert spans[-1].end == len(report)
    assert all(left.end == right.start for left, right in pairwise(spans))


def bodies(report: str) -> list[tuple[str, str]]:
    return [(span.name, report[span.body : span.end].strip()) for span in body_sections(report)]


def test_bodies_are_findings_and_impression_in_order() -> None:
    assert bodies(REPORT) == [("findings", "The lungs are clear.\n No effusion."), ("impression", "Normal chest.")]


def test_organ_headers_belong_to_the_findings() -> None:
    report = " FINDINGS:\n LUNGS: Clear.\n HEART AND MEDIASTINUM: Normal.\n TECHNIQUE: AP.\n IMPRESSION: Normal.\n"
    assert bodies(report) == [
        ("findings", "LUNGS: Clear."),
        ("findings", "HEART AND MEDIASTINUM: Normal."),
        ("impression", "Normal."),
    ]


def test_what_follows_a_bare_header_belongs_to_it_under_an_unknown_header_of_its_own() -> None:
    assert bodies(" FINDINGS:\n\n PC: Fall. Clear lungs.\n") == [("findings", "PC: Fall. Clear lungs.")]
    assert bodies(" FINDINGS:\n\n COMPARISON: None.\n IMPRESSION: Clear.\n") == [("impression", "Clear.")]


@pytest.mark.parametrize("end", [":", ";", ".", " -", ""])
def test_body_headers_count_without_their_colon(end: str) -> None:
    report = f" COMPARISON: None.\n FINDINGS{end}\n Clear lungs.\n\n IMPRESSION{end}\n Normal.\n"
    assert bodies(report) == [("findings", "Clear lungs."), ("impression", "Normal.")]


@pytest.mark.parametrize("findings", ["Findings:", "F I N D I N G S:", "FNIDNIGS:", "OBSERVATIONS:", "RESULT:"])
@pytest.mark.parametrize("impression", ["Impression:", "IMPRSSON:", "IMPPRESION:", "OPINION:", "SUMMARY:"])
def test_body_headers_count_however_they_are_typed(findings: str, impression: str) -> None:
    report = f" TECHNIQUE: PA.\n {findings} Clear lungs.\n\n {impression} Normal.\n\n JOB NUMBER: 12.\n"
    assert bodies(report) == [("findings", "Clear lungs."), ("impression", "Normal.")]


def test_a_header_after_a_sentence_counts() -> None:
    report = " FINDINGS: Clear lungs. IMPRESSION: Normal.\n"
    assert bodies(report) == [("findings", "Clear lungs."), ("impression", "Normal.")]


@pytest.mark.parametrize("header", ["CLINICAL DIAGNOSIS", "SIGNED BY", "DOSE", "REASON FOR THIS EXAM", "COMPARISSON"])
def test_no_other_header_stands_for_a_missing_section(header: str) -> None:
    assert bodies(f" {header}: Fall.\n IMPRESSION: Normal.\n") == [("impression", "Normal.")]


def test_an_unknown_header_stands_for_no_section_that_is_there() -> None:
    report = " FINDINGS: Clear.\n OPINION: Fine.\n IMPRESSION: Normal.\n"
    assert bodies(report) == [("findings", "Clear."), ("impression", "Normal.")]


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ("Clear lungs.\n\n No effusion.", "Clear lungs.\n\n No effusion."),
        (" COMMENT: Sent.\n\n Clear lungs.", "Clear lungs."),
    ],
)
def test_a_report_without_either_gives_what_it_has(report: str, text: str) -> None:
    assert bodies(report) == [("findings", text)]
    assert not bodies(" COMMENT: Sent.\n")
