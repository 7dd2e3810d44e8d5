"""Errors of every kind are caught, and faithful cleanings accepted, on reports that the guards were not written on."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.unix.data.cleaning.injected_errors import (
    KINDS,
    Faithful,
    dictated_reports,
    inject,
    noisier,
    without_headers,
)
from unix.data.cleaning.guards import Pair, judge
from unix.data.phantom.report import write_report
from unix.data.phantom.study import plan_study
from unix.data.sections import parse_sections
from unix.records import CleanedReport, Status

CAUGHT = 0.95
REFUSED = 0.03


def phantom_reports() -> list[Faithful]:
    reports = [write_report(plan_study(5, index, 160, (0.05, 0.15), None)) for index in range(40)]
    return [
        Faithful(report.raw.text, CleanedReport(" ".join(report.clean.findings), " ".join(report.clean.impression)))
        for report in reports
    ]


def real_reports(folder: Path) -> list[Faithful]:
    """Notes with findings, and these as written for a cleaning."""
    notes = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("s*.txt"))]
    findings = [(note, " ".join(parse_sections(note).findings.split())) for note in notes]
    return [Faithful(note, CleanedReport(text, "")) for note, text in findings if text]


def is_accepted(raw: str, cleaned: CleanedReport) -> bool:
    return judge(Pair(raw, cleaned)).status is Status.ACCEPTED


def assert_errors_are_caught(reports: Iterable[Faithful]) -> None:
    total: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for number, report in enumerate(reports):
        if is_accepted(report.raw, report.cleaned):
            for case in inject(report, seed=number):
                total[case.kind] += 1
                accepted[case.kind] += is_accepted(case.raw, case.cleaned)
    assert set(KINDS) - set(total) <= {"number"}  # the phantom measures nothing
    for kind in total:
        assert accepted[kind] <= (1 - CAUGHT) * total[kind], f"{accepted[kind]} of {total[kind]} {kind} errors accepted"


def refused_share(reports: list[Faithful]) -> float:
    return sum(not is_accepted(report.raw, report.cleaned) for report in reports) / len(reports)


def test_errors_in_dictated_reports_are_caught() -> None:
    assert_errors_are_caught(dictated_reports())


def test_errors_in_findings_texts_without_headers_are_caught() -> None:
    assert_errors_are_caught(without_headers(report) for report in dictated_reports())


def test_errors_in_phantom_reports_are_caught() -> None:
    assert_errors_are_caught(phantom_reports())


@pytest.mark.slow
def test_errors_in_real_notes_are_caught(shared_folder: Path) -> None:
    reports = real_reports(shared_folder / "real_cxr")
    assert refused_share(reports) <= REFUSED
    assert_errors_are_caught(reports)


def test_faithful_cleanings_are_accepted() -> None:
    dictated = dictated_reports()
    for reports in (dictated, [without_headers(report) for report in dictated], phantom_reports()):
        assert refused_share(reports) <= REFUSED


def test_noise_of_many_wordings_may_go() -> None:
    assert refused_share(list(noisier(dictated_reports()))) <= REFUSED
