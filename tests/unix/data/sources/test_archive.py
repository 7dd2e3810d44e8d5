"""Zip members read in place, also when the archive lies."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.data.sources.archive import DamagedMember, list_archive, read_member
from unix.data.sources.base import LOCATION, RefusedReport, ReportLocation, StudyFault
from unix.data.sources.reports import MAX_REPORT_BYTES, read_report
from unix.errors import SourceError


def write(root: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> list[ReportLocation]:
    with zipfile.ZipFile(root / "reports.zip", "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return locations(root)


def locations(root: Path) -> list[ReportLocation]:
    return [ReportLocation(**row) for row in list_archive(root, "reports.zip").iter_rows(named=True)]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]),
)
def test_members_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, contents: list[bytes], method: int
) -> None:
    root = tmp_path_factory.mktemp("zip")
    members = write(root, *((f"files/{n}.txt", content) for n, content in enumerate(contents)), method=method)
    assert [read_member(root, member, 1000) for member in members] == contents


def test_folders_are_no_members_and_no_archive_has_none(tmp_path: Path) -> None:
    assert list_archive(tmp_path, "reports.zip").is_empty()
    with zipfile.ZipFile(tmp_path / "reports.zip", "w") as archive:
        archive.mkdir("files")
        archive.writestr("files/a.txt", "x")
    assert [member.path for member in locations(tmp_path)] == ["files/a.txt"]
    assert set(list_archive(tmp_path, "reports.zip").columns) <= set(LOCATION)


def test_a_bomb_is_refused_by_its_claim_and_by_its_content(tmp_path: Path) -> None:
    (bomb,) = write(tmp_path, ("a.txt", b"\0" * (20 * MAX_REPORT_BYTES)))
    with pytest.raises(RefusedReport) as caught:
        read_report(tmp_path, bomb)
    assert caught.value.fault is StudyFault.TOO_LARGE
    with pytest.raises(DamagedMember, match="size and CRC"):
        read_member(tmp_path, replace(bomb, size=10), MAX_REPORT_BYTES)


@pytest.mark.parametrize(
    "change",
    [
        {"crc": 1},
        {"size": 3},
        {"offset": 1},
        {"offset": 10_000},
        {"packed": 2},
        {"method": zipfile.ZIP_LZMA},
        {"flags": 1},
    ],
)
def test_a_member_that_is_not_what_the_directory_says_is_unreadable(tmp_path: Path, change: dict[str, int]) -> None:
    (member,) = write(tmp_path, ("a.txt", b"FINDINGS: The lungs are clear, the heart is not enlarged."))
    with pytest.raises(RefusedReport) as caught:
        read_report(tmp_path, replace(member, **change))  # pyright: ignore[reportArgumentType]
    assert caught.value.fault is StudyFault.UNREADABLE


def test_what_is_no_whole_zip_file_stops_the_job(tmp_path: Path) -> None:
    write(tmp_path, ("a.txt", b"x" * 1000))
    path = tmp_path / "reports.zip"
    for content in (path.read_bytes()[:-10], b"", b"PK"):
        path.write_bytes(content)
        with pytest.raises(SourceError, match=r"reports\.zip is not a whole zip file"):
            list_archive(tmp_path, "reports.zip")


def test_an_archive_beyond_the_root_stops_the_job(tmp_path: Path) -> None:
    write(tmp_path, ("a.txt", b"x"))
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "reports.zip").symlink_to(tmp_path / "reports.zip")
    with pytest.raises(SourceError, match="leaves"):
        list_archive(tmp_path / "root", "reports.zip")
