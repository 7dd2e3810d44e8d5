"""Manifests: sealed, published atomically, never silently wrong."""

import json
import subprocess
from pathlib import Path

import pytest

from unix import manifest as manifest_module
from unix.errors import ShardError
from unix.manifest import (
    MANIFEST_FILE,
    Manifest,
    Parents,
    ShardEntry,
    code_revision,
    find_manifest,
    publish_manifest,
    read_manifest,
    read_release,
    write_atomically,
)
from unix.records import Split, Task


def make(folder: Path, **changes: object) -> Manifest:
    (folder / "train-000000.tar").write_bytes(b"12345")
    shard = ShardEntry(
        file="train-000000.tar",
        split=Split.TRAIN,
        samples=3,
        bytes=5,
        sha256="a",
        index_sha256="b",
        superseded=("gone",),
    )
    values = Manifest(
        set="generation-32",
        task=Task.GENERATION,
        size=32,
        members=("jpg", "json"),
        parents=Parents(tables={"splits": 4}, code_revision="abc", configuration_digest="d"),
        parent_release=None,
        added_shards=("train-000000.tar",),
        superseded_samples=1,
        considered=4,
        excluded={"withdrawn": 1, "no_caption": 1},
        shards=(shard,),
    )
    return values.model_copy(update=changes)


def test_what_is_published_is_read_back_and_stays_readable_by_release(tmp_path: Path) -> None:
    assert find_manifest(tmp_path) is None
    first = publish_manifest(tmp_path, make(tmp_path))
    second = publish_manifest(tmp_path, make(tmp_path, parent_release=first.release))
    assert first.release != second.release
    assert read_manifest(tmp_path) == find_manifest(tmp_path) == second
    assert read_release(tmp_path, first.release) == first
    assert json.loads((tmp_path / MANIFEST_FILE).read_text())["release"] == second.release
    assert (second.live, second.split_shards("test")) == (2, ())


def test_the_same_content_has_the_same_release_and_bytes(tmp_path: Path) -> None:
    first = publish_manifest(tmp_path, make(tmp_path))
    content = (tmp_path / MANIFEST_FILE).read_bytes()
    assert publish_manifest(tmp_path, make(tmp_path)) == first
    assert (tmp_path / MANIFEST_FILE).read_bytes() == content


def test_a_manifest_edited_by_hand_is_refused(tmp_path: Path) -> None:
    publish_manifest(tmp_path, make(tmp_path))
    path = tmp_path / MANIFEST_FILE
    path.write_text(path.read_text().replace('"samples": 3', '"samples": 4'))
    with pytest.raises(ShardError, match="changed after its publication"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"set": "x"}'])
def test_what_is_no_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(content)
    with pytest.raises(ShardError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_set_without_a_manifest_is_unfinished(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="not a finished shard set"):
        read_manifest(tmp_path)


def test_counts_must_balance(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="5 candidates, but 2 samples"):
        publish_manifest(tmp_path, make(tmp_path, considered=5))
    assert find_manifest(tmp_path) is None


@pytest.mark.parametrize("content", [None, b"1234"])
def test_a_shard_that_is_not_there_is_not_published(tmp_path: Path, content: bytes | None) -> None:
    manifest = make(tmp_path)
    path = tmp_path / "train-000000.tar"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ShardError, match=r"train-000000\.tar"):
        publish_manifest(tmp_path, manifest)
    assert find_manifest(tmp_path) is None


def test_the_fingerprint_follows_what_readers_see(tmp_path: Path) -> None:
    manifest = make(tmp_path)
    (shard,) = manifest.shards
    without = manifest.model_copy(update={"shards": (shard.model_copy(update={"superseded": ()}),)})
    renamed = manifest.model_copy(update={"parent_release": "x"})
    assert manifest.fingerprint("train") == renamed.fingerprint(Split.TRAIN)
    assert manifest.fingerprint("train") != without.fingerprint("train")
    assert manifest.fingerprint("test") != manifest.fingerprint("train")


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(manifest_module.os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"


def test_the_revision_is_the_commit_of_this_checkout(repository: Path) -> None:
    code_revision.cache_clear()
    head = subprocess.run(["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("the tests do not run from a git checkout")
    assert code_revision().startswith((head.stdout.strip(), "unix-cxr "))
