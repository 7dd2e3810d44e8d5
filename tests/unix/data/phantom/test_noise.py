"""A raw report is its clean text, its accounted noise, its two headers, and nothing else."""

import re
from collections import Counter

from unix.data.phantom.report import PhantomReport, write_report
from unix.data.phantom.study import plan_study
from unix.data.sections import parse_sections

NUM = 600
CATEGORIES = {
    "header",
    "technique",
    "indication",
    "prior_comparison",
    "notification",
    "dictation",
    "signature",
    "wet_read",
    "addendum",
    "duplicate",
    "filler",
    "blank",
}


def reports() -> list[PhantomReport]:
    return [write_report(plan_study(0, index, 128, (0.05, 0.15))) for index in range(NUM)]


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


def test_every_word_of_the_raw_report_is_accounted_for() -> None:
    for report in reports():
        raw = words(re.sub(r"_{10,}", "", report.raw.text))
        clean = words(" ".join((*report.clean.findings, *report.clean.impression)))
        noise = sum((words(span.text) for span in report.raw.noise), Counter[str]())
        accounted = clean + noise
        assert not accounted - raw
        assert set(raw - accounted) <= {"FINDINGS", "IMPRESSION"}


def test_every_noise_span_stands_in_the_raw_report() -> None:
    for report in reports():
        unwrapped = " ".join(report.raw.text.split())
        assert all(span.text in unwrapped for span in report.raw.noise)


def test_every_clean_sentence_survives_but_for_a_blank_before_its_full_stop() -> None:
    for report in reports():
        unwrapped = " ".join(report.raw.text.split())
        for sentence in (*report.clean.findings, *report.clean.impression):
            assert sentence.removesuffix(".") in unwrapped


def test_every_category_occurs_and_none_is_everywhere_but_the_preamble() -> None:
    counts = Counter(category for report in reports() for category in {span.category for span in report.raw.noise})
    assert set(counts) == CATEGORIES
    for category in CATEGORIES - {"header", "technique", "indication", "prior_comparison"}:
        assert 0.04 < counts[category] / NUM < 0.4, category


def test_the_section_parser_finds_the_sections_that_are_there() -> None:
    for report in reports():
        sections = parse_sections(report.raw.text)
        assert bool(sections.findings) == bool(report.clean.findings)
        assert bool(sections.impression) == bool(report.clean.impression)


def test_lines_are_wrapped_and_indented() -> None:
    for report in reports():
        lines = report.raw.text.splitlines()
        assert all(len(line) <= 80 and (not line or line.startswith(" ")) for line in lines)


def test_about_one_text_in_ten_is_a_duplicate() -> None:
    counts = Counter(report.raw.text for report in reports())
    repeated = sum(count for count in counts.values() if count > 1)
    assert 0.05 < repeated / NUM < 0.16
