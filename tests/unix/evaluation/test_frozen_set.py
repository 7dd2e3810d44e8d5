"""Frozen test sets: chosen once, never changed, and the very samples of their release."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from unix.cli import run
from unix.data.stream import ShardReader
from unix.errors import ConfigError, ShardError
from unix.evaluation.frozen_set import freeze, freeze_at_first_use, read_frozen, require_frozen
from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding
from unix.manifest import publish_manifest, read_manifest
from unix.records import Split, Task
from unix.store import Store


@pytest.fixture
def shards(shard_sets: Path, tmp_path: Path) -> Path:
    return shutil.copytree(shard_sets, tmp_path / "shards")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def without_tests(folder: Path, *gone: str) -> None:
    """A release in which some test samples no longer count."""
    manifest = read_manifest(folder)
    entries = [
        shard.model_copy(update={"superseded": tuple(sorted(gone))}) if shard.split == Split.TEST else shard
        for shard in manifest.shards
    ]
    changes = {
        "shards": tuple(entries),
        "parent_release": manifest.release,
        "superseded_samples": len(gone),
        "considered": manifest.considered - len(gone),
        "release": "",
        "added_shards": (),
    }
    publish_manifest(folder, manifest.model_copy(update=changes))


def test_the_first_use_freezes_and_later_releases_change_nothing(shards: Path, store: Store) -> None:
    first = freeze_at_first_use(store, "default", str(shards), limit=5)
    assert {task: len(one.image_ids) for task, one in first.tasks.items()} == dict.fromkeys(Task, 5)
    without_tests(shards / "understanding-32", *first.of(Task.UNDERSTANDING).image_ids[:2])
    again = freeze_at_first_use(store, "default", str(shards))
    assert again == first
    assert require_frozen(store, "default").summary() == first.summary()
    reader = ShardReader(shards / "understanding-32", Split.TEST, release=first.of(Task.UNDERSTANDING).release)
    places = first.of(Task.UNDERSTANDING).places(reader)
    assert sorted(reader.keys[place] for place in places) == list(first.of(Task.UNDERSTANDING).image_ids)


def test_a_name_is_taken_once(shards: Path, store: Store) -> None:
    freeze(store, "spring", str(shards))
    with pytest.raises(ConfigError, match="'spring' already"):
        freeze(store, "spring", str(shards))
    with pytest.raises(ConfigError, match="no test set 'autumn', only spring"):
        require_frozen(store, "autumn")
    assert read_frozen(store, "autumn") is None


def test_other_shards_are_refused(shards: Path, store: Store) -> None:
    frozen = freeze(store, "spring", str(shards)).of(Task.UNDERSTANDING)
    without_tests(shards / "understanding-32", frozen.image_ids[0])
    with pytest.raises(ShardError, match="lacks 1 of the 8 samples"):
        frozen.places(ShardReader(shards / "understanding-32", Split.TEST))


def test_what_cannot_be_frozen(shards: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match="serve one task"):
        freeze(store, "x", str(shards), sets=("understanding-32", "understanding-32"))
    shutil.rmtree(shards / "generation-32")
    with pytest.raises(ConfigError, match="no set for generation"):
        freeze(store, "x", str(shards))
    assert read_frozen(store, "x") is None


def test_an_evaluation_on_a_frozen_set_outlives_new_releases(shards: Path, store: Store, checkpoint: Path) -> None:
    frozen = freeze(store, "spring", str(shards), limit=6)
    options: dict[str, Any] = dict(checkpoint=str(checkpoint), shards=str(shards), processes=1, max_new_tokens=4)

    def evaluate(out: str):
        config = {**options, "test_set": frozen.of(Task.UNDERSTANDING), "out": str(shards.parent / out)}
        return evaluate_understanding(EvaluateUnderstandingConfig.build({**config, "resamples": 20}))

    before = evaluate("before")
    without_tests(shards / "understanding-32", *frozen.of(Task.UNDERSTANDING).image_ids[:3])
    after = evaluate("after")
    assert before.n == after.n == 6
    assert before.release == after.release
    assert before.metrics == after.metrics


def test_the_command_line(shards: Path, store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["models", "freeze", "spring", "--shards", str(shards), "--limit", "4", "--store", store.uri]
    assert run(words) == 0
    assert "tasks.generation.samples" in capsys.readouterr().out
    assert run(words) == 2
    unknown = ["evaluate", "generation", "--checkpoint", str(shards), "--test-set", "x", "--store", store.uri]
    assert run(unknown) == 2
    assert "no test set 'x'" in capsys.readouterr().err
