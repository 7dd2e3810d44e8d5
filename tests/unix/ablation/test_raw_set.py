import json
from pathlib import Path

import pytest

from tests.unix.ablation.conftest import NOISE
from unix.ablation.raw_set import write_raw_set
from unix.data.stream import ShardReader
from unix.errors import StoreError
from unix.records import Split
from unix.store import Store


def test_images_stay_and_reports_are_as_written(training_set: Path, store: Store, tmp_path: Path) -> None:
    cleaned = ShardReader(training_set, Split.TRAIN)
    manifest = write_raw_set(cleaned, store, tmp_path / "understanding-32")
    raw = ShardReader(tmp_path / "understanding-32", Split.TRAIN)
    assert raw.keys == cleaned.keys and manifest.live == cleaned.samples
    for index in range(raw.samples):
        (_, one), (_, other) = raw.read_members(index), cleaned.read_members(index)
        assert one["jpg"] == other["jpg"]
        record = json.loads(one["json"])
        assert record["findings"].startswith(f"{NOISE} There is an effusion (") and record["impression"] == ""
        assert record | {"findings": "", "impression": ""} == json.loads(other["json"]) | {
            "findings": "",
            "impression": "",
        }


def test_the_same_set_again_is_kept_and_a_killed_copy_is_written_anew(
    training_set: Path, store: Store, tmp_path: Path
) -> None:
    cleaned = ShardReader(training_set, Split.TRAIN)
    folder = tmp_path / "understanding-32"
    manifest = write_raw_set(cleaned, store, folder)
    shard = folder / manifest.shards[0].file
    content, written = shard.read_bytes(), shard.stat().st_mtime_ns
    assert write_raw_set(cleaned, store, folder) == manifest and shard.stat().st_mtime_ns == written
    (folder / "manifest.json").unlink()
    shard.unlink()
    assert write_raw_set(cleaned, store, folder).release == manifest.release
    assert shard.read_bytes() == content


def test_a_store_without_a_sample_s_report_is_refused(training_set: Path, tmp_path: Path) -> None:
    cleaned = ShardReader(training_set, Split.TRAIN)
    with pytest.raises(StoreError, match=r"no report for 24 of 24 samples .*such as train-"):
        write_raw_set(cleaned, Store(tmp_path / "empty"), tmp_path / "set")
    assert not (tmp_path / "set" / "manifest.json").exists()
