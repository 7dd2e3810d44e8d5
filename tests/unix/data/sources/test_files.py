"""The walk: what it finds, and where it does not go."""

import os
from pathlib import Path

import pytest

from unix.data.sources.files import walk
from unix.errors import SourceError


def test_only_regular_files_with_the_suffixes_are_found(tmp_path: Path) -> None:
    (tmp_path / "files" / "deep" / "er").mkdir(parents=True)
    for name in ("a.jpg", "b.txt", "c.html", "deep/d.jpg", "deep/er/e.jpg"):
        (tmp_path / "files" / name).write_text("12345")
    (tmp_path / "files" / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "files" / "pipe.jpg")
    (tmp_path / "files" / "broken.jpg").symlink_to(tmp_path / "files" / "nowhere.jpg")
    found = walk(tmp_path, "files", (".jpg", ".txt"))
    assert sorted(found.files["path"]) == ["files/a.jpg", "files/b.txt", "files/deep/d.jpg", "files/deep/er/e.jpg"]
    assert found.files["size"].to_list() == [5] * 4
    assert found.outside == frozenset()


def test_circles_of_links_end(tmp_path: Path) -> None:
    (tmp_path / "files" / "a").mkdir(parents=True)
    (tmp_path / "files" / "a" / "x.jpg").write_text("x")
    (tmp_path / "files" / "a" / "up").symlink_to(tmp_path / "files")
    (tmp_path / "files" / "a" / "self").symlink_to(tmp_path / "files" / "a")
    (tmp_path / "files" / "root").symlink_to(tmp_path)
    paths = walk(tmp_path, "files", (".jpg",)).files["path"].to_list()
    assert "files/a/x.jpg" in paths
    assert len(paths) <= 3


def test_outside_links_cover_what_lies_beyond_them(tmp_path: Path) -> None:
    (tmp_path / "root" / "files").mkdir(parents=True)
    (tmp_path / "root" / "files" / "p10").symlink_to(tmp_path)
    found = walk(tmp_path / "root", "files", (".jpg",))
    assert found.outside == {"files/p10"}
    assert found.leads_outside("files/p10/p1/s1.txt")
    assert found.leads_outside("files/p10")
    assert not found.leads_outside("files/p100/x.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_stops_the_job(tmp_path: Path) -> None:
    (tmp_path / "files" / "closed").mkdir(parents=True)
    (tmp_path / "files" / "closed").chmod(0)
    with pytest.raises(SourceError, match="closed"):
        walk(tmp_path, "files", (".jpg",))
