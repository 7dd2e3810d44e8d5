"""Faults around a run end it, and say what to do: shards missing or changed, two runs on one folder."""

import json
import shutil
from pathlib import Path

import pytest

from unix.errors import ConfigError, ShardError, UnixError
from unix.training.checkpoint import claim
from unix.training.run import train


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """Shard sets that a test may damage."""
    return Path(shutil.copytree(shards, tmp_path / "shards"))


def test_a_missing_shard_is_named(copied, configure, warm, tmp_path):
    tar = copied / "understanding-32" / "train-000000.tar"
    tar.unlink()
    with pytest.raises(ShardError, match=r"train-000000\.tar"):
        train(configure("stage1", tmp_path / "run", from_checkpoint=warm.checkpoint, shards=str(copied)))


def test_a_set_that_was_never_finished_is_refused(copied, configure, warm, tmp_path):
    (copied / "understanding-32" / "manifest.json").unlink()
    with pytest.raises(ShardError, match=r"no manifest\.json.*unix shards"):
        train(configure("stage1", tmp_path / "run", from_checkpoint=warm.checkpoint, shards=str(copied)))


def test_a_manifest_that_was_changed_is_refused(copied, configure, warm, tmp_path):
    path = copied / "understanding-32" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "considered": manifest["considered"] + 1}))
    with pytest.raises(ShardError, match="changed after its publication"):
        train(configure("stage1", tmp_path / "run", from_checkpoint=warm.checkpoint, shards=str(copied)))


def test_a_damaged_sample_stops_the_run_or_is_left_out_by_choice(copied, configure, warm, tmp_path):
    tar = copied / "understanding-32" / "train-000000.tar"
    data = bytearray(tar.read_bytes())
    data[600] ^= 0xFF  # in the first member
    tar.write_bytes(data)
    settings = {"from_checkpoint": warm.checkpoint, "shards": str(copied)}
    with pytest.raises(UnixError, match=r"train-000000\.tar"):
        train(configure("stage1", tmp_path / "strict", **settings))
    assert train(configure("stage1", tmp_path / "lenient", loader={"on_corrupt": "skip"}, **settings)).steps == 6


def test_a_second_run_on_a_folder_is_refused_while_the_first_is_there(configure, warm, tmp_path):
    with claim(tmp_path), pytest.raises(ConfigError, match="another process trains in"):
        train(configure("stage1", tmp_path, from_checkpoint=warm.checkpoint))
