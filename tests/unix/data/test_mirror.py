"""A folder that follows an object store: what is fetched, what goes, what is left alone."""

import os
from pathlib import Path

import pytest

from unix.cli import run
from unix.data.landing import Landing, WatchConfig, watch
from unix.data.mirror import mirror
from unix.errors import ConfigError, SourceError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name in ("files/p10/s1.txt", "files/p10/s1/a.jpg", "table.csv.gz"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".mirror-of"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_it_follows_and_a_second_look_fetches_nothing(source: Path, tmp_path: Path) -> None:
    folder, address = tmp_path / "folder", f"file://{source}"
    assert mirror(address, folder) == 3
    assert content(folder) == content(source)
    assert mirror(address, folder) == 0

    (source / "files/p10/s1.txt").write_bytes(b"changed, of the same length"[:16])
    os.utime(source / "files/p10/s1.txt", (1, 1))
    (source / "files/p10/s1/a.jpg").unlink()
    (source / "new.txt").write_bytes(b"new")
    assert mirror(address, folder) == 3
    assert content(folder) == content(source)
    assert not (folder / "files/p10/s1").exists(), "a folder without files is gone, as it is in a bucket"


def test_a_bucket_is_watched_by_way_of_a_folder(bucket: str, tmp_path: Path) -> None:
    phantom = tmp_path / "phantom"
    assert run(["phantom", "--studies", "4", "--out", str(phantom), "--no-images"]) == 0
    client = pytest.importorskip("boto3").client("s3", region_name="us-east-1")
    for path in (path for path in phantom.rglob("*") if path.is_file()):
        client.upload_file(str(path), bucket.removeprefix("s3://"), f"drops/{path.relative_to(phantom).as_posix()}")
    store, root, told = str(tmp_path / "store"), str(tmp_path / "folder"), list[Landing]()
    config = WatchConfig(store=store, source="phantom", root=root, bucket=f"{bucket}/drops", interval=0.01, looks=2)
    watch(config, told.append)
    assert [landing.new for landing in told] == [4]
    assert run(["ingest", "--source", "phantom", "--root", root, "--store", store]) == 0
    assert watch(config, told.append).landings == 0


def test_what_a_killed_look_left_is_cleared(source: Path, tmp_path: Path) -> None:
    folder, address = tmp_path / "folder", f"file://{source}"
    mirror(address, folder)
    (folder / ".table.csv.gz.part").write_bytes(b"half")
    (folder / "table.csv.gz").write_bytes(b"half")
    mirror(address, folder)
    assert content(folder) == content(source)


def test_a_folder_of_anything_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds files that are no mirror"):
        mirror(f"file://{source}", folder)
    assert (folder / "notes.txt").read_text() == "mine"
    mirror(f"file://{source}", tmp_path / "first")
    with pytest.raises(ConfigError, match="give another folder"):
        mirror(f"file://{tmp_path}", tmp_path / "first")


def test_an_object_cannot_take_the_name_of_the_mark(source: Path, tmp_path: Path) -> None:
    (source / ".mirror-of").write_text("file:///elsewhere")
    with pytest.raises(SourceError, match="own mark"):
        mirror(f"file://{source}", tmp_path / "folder")
    assert (tmp_path / "folder" / ".mirror-of").read_text().strip() == f"file://{source}"


def test_an_empty_or_unreachable_store_removes_nothing(source: Path, tmp_path: Path) -> None:
    folder, address = tmp_path / "folder", f"file://{source}"
    mirror(address, folder)
    held = content(folder)
    source.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError):
        mirror(address, folder)
    source.mkdir()
    with pytest.raises(SourceError, match="holds no object"):
        mirror(address, folder)
    assert content(folder) == held
    with pytest.raises(SourceError, match="cannot read nothing://x"):
        mirror("nothing://x", tmp_path / "other")
