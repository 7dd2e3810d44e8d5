"""Publishing, keeping and refusing checkpoints on disk."""

import errno
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from unix.errors import ConfigError, UnixError
from unix.training import engine
from unix.training.checkpoint import Meta, RetentionConfig, claim, newest_checkpoint, prune, publish
from unix.training.run import train

META = Meta(
    stage="stage1",
    step=0,
    steps=100,
    seed=0,
    loader=None,
    configuration_digest="c",
    architecture_digest="a",
    shards_digest="s",
)


def write(run_dir: Path, *steps: int) -> None:
    for step in steps:
        publish(run_dir, META.model_copy(update={"step": step}), lambda folder: None)


def steps_in(run_dir: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in run_dir.glob("step-*"))


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (RetentionConfig(), [10, 20, 30, 40, 50]),
        (RetentionConfig(newest=2), [40, 50]),
        (RetentionConfig(newest=1, every=20), [20, 40, 50]),
        (RetentionConfig(newest=9), [10, 20, 30, 40, 50]),
    ],
)
def test_retention(retention: RetentionConfig, kept: list[int], tmp_path: Path) -> None:
    write(tmp_path, 10, 20, 30, 40, 50)
    prune(tmp_path, retention)
    assert steps_in(tmp_path) == kept


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_a_full_disk_keeps_the_last_good_checkpoint_and_says_so(fault: Exception, tmp_path: Path) -> None:
    write(tmp_path, 10)

    def fail(folder: Path) -> None:
        (folder / "half").write_bytes(b"\0" * 100)
        raise fault

    with pytest.raises(UnixError, match=r"cannot save .*step-20: .*; the last whole checkpoint is .*step-10.*--resume"):
        publish(tmp_path, META.model_copy(update={"step": 20}), fail)
    assert steps_in(tmp_path) == [10]
    assert not list(tmp_path.glob(".*.partial"))


def test_a_run_on_a_full_disk_goes_on_later_as_if_nothing_had_been(configure, warm, tmp_path, monkeypatch):
    whole = train(configure("stage1", tmp_path / "whole", from_checkpoint=warm.checkpoint))
    save = engine.save_state

    def full(folder: Path, state: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = configure("stage1", tmp_path / "cut", from_checkpoint=warm.checkpoint)
    train(config.model_copy(update={"steps": 3}))
    monkeypatch.setattr(engine, "save_state", full)
    with pytest.raises(UnixError, match="No space left"):
        train(config.model_copy(update={"resume": True}))
    assert newest_checkpoint(tmp_path / "cut") == tmp_path / "cut" / "step-3"
    monkeypatch.setattr(engine, "save_state", save)
    resumed = train(config.model_copy(update={"resume": True}))
    ours, theirs = (Path(run.checkpoint, "model.safetensors").read_bytes() for run in (resumed, whole))
    assert ours == theirs


def _hold(run_dir: str, held: Any, release: Any) -> None:
    with claim(run_dir):
        held.set()
        release.wait(60)


def test_two_runs_on_one_folder_are_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), held, release))
    other.start()
    try:
        assert held.wait(60)
        with pytest.raises(ConfigError, match="another process trains in"), claim(tmp_path):
            pass
        other.kill()
        other.join()
        with claim(tmp_path):
            pass
    finally:
        other.kill()
