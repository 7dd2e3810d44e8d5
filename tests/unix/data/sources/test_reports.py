"""Reports as text: what is read and what is refused for what."""

from pathlib import Path

import pytest

from unix.data.sources.base import RefusedReport, ReportLocation, StudyFault
from unix.data.sources.reports import MAX_REPORT_BYTES, read_report


def read(root: Path, content: bytes) -> str:
    (root / "s1.txt").write_bytes(content)
    return read_report(root, ReportLocation("s1.txt", len(content)))


def test_text_is_read_as_written(tmp_path: Path) -> None:
    assert read(tmp_path, " FINDINGS:\r\n größer als zuvor\n".encode()) == " FINDINGS:\r\n größer als zuvor\n"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", StudyFault.EMPTY),
        (b" \n\t\r\n", StudyFault.EMPTY),
        (b"FINDINGS: caf\xe9", StudyFault.NOT_UTF8),
        ("FINDINGS: x".encode("utf-16"), StudyFault.NOT_UTF8),
        (b"x" * (MAX_REPORT_BYTES + 1), StudyFault.TOO_LARGE),
    ],
)
def test_what_is_no_report_is_refused_without_quoting_it(tmp_path: Path, content: bytes, fault: StudyFault) -> None:
    with pytest.raises(RefusedReport) as caught:
        read(tmp_path, content)
    assert caught.value.fault is fault
    assert "FINDINGS" not in caught.value.detail


def test_a_file_that_is_gone_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(RefusedReport) as caught:
        read_report(tmp_path, ReportLocation("gone.txt", 3))
    assert caught.value.fault is StudyFault.UNREADABLE


def test_a_report_from_a_table_needs_no_file(tmp_path: Path) -> None:
    assert read_report(tmp_path, ReportLocation("table.csv", 0, text="FINDINGS: Clear.")) == "FINDINGS: Clear."


def test_a_file_that_grew_since_it_was_listed_is_not_cut_off(tmp_path: Path) -> None:
    (tmp_path / "s1.txt").write_bytes(b"x" * (MAX_REPORT_BYTES + 1))
    with pytest.raises(RefusedReport) as caught:
        read_report(tmp_path, ReportLocation("s1.txt", 5))
    assert caught.value.fault is StudyFault.TOO_LARGE
