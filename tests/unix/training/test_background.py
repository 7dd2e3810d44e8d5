"""Checkpoints written beside the training: what is copied, who waits for whom, and what a failure does."""

import errno
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from unix.errors import Interrupted, UnixError
from unix.training import engine
from unix.training.background import BackgroundWriter, staged
from unix.training.checkpoint import newest_checkpoint
from unix.training.metrics import read_metrics
from unix.training.optim import Optimizer
from unix.training.run import train


def test_a_copy_is_left_alone_by_later_steps_and_holds_shared_memory_once() -> None:
    weight = torch.arange(6.0).view(2, 3)
    state = {"weights": {"w": weight}, "model": {"w": weight.detach(), "row": weight[1]}, "empty": {}}
    copied = staged(state)
    weight.zero_()
    assert copied["weights"]["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert copied["model"]["w"] is copied["weights"]["w"]
    assert copied["model"]["row"].tolist() == [3, 4, 5]
    assert copied["empty"] == {}


def test_a_second_job_waits_for_the_first_and_leaving_waits_for_both() -> None:
    release, done = threading.Event(), []
    with BackgroundWriter() as writer:
        writer.start(lambda: done.append(release.wait(60)))
        writer.check()  # still running: no wait, nothing to raise
        assert done == []
        release.set()
        writer.start(lambda: done.append("second"))
        assert done[0] is True
    assert done == [True, "second"]


def _fail() -> None:
    raise UnixError("disk full")


@pytest.mark.parametrize(
    ("raised", "seen"), [(None, UnixError), (Interrupted("stopped"), UnixError), (KeyError(1), KeyError)]
)
def test_a_failed_write_is_never_taken_for_a_saved_one(
    raised: Exception | None, seen: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(seen) as caught, BackgroundWriter() as writer:
        writer.start(_fail)
        if raised is not None:
            raise raised
    assert "disk full" in str(caught.value) + caplog.text


def test_the_training_goes_on_while_a_checkpoint_is_written(configure, warm, tmp_path, monkeypatch):
    """Step 5 is taken before the checkpoint of step 3 may finish; what it holds is step 3's."""
    plain = train(configure("stage1", tmp_path / "plain", from_checkpoint=warm.checkpoint))
    five_done = threading.Event()
    apply, save = Optimizer.step, engine.save_state

    def step(self: Optimizer, step: int, loss: float) -> tuple[float, float]:
        result = apply(self, step, loss)
        if step == 4:
            five_done.set()
        return result

    def slow(folder: Path, state: dict[str, Any]) -> None:
        assert five_done.wait(120)
        save(folder, state)

    monkeypatch.setattr(Optimizer, "step", step)
    monkeypatch.setattr(engine, "save_state", slow)
    train(configure("stage1", tmp_path / "slow", from_checkpoint=warm.checkpoint))
    assert plain.steps == 6
    for name in ("step-3/model.safetensors", "step-6/model.safetensors", "step-3/training_state.pt"):
        assert (tmp_path / "slow" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_failed_write_stops_the_run_before_the_next_one_is_due(configure, warm, tmp_path, monkeypatch):
    failed = threading.Event()
    save, observe = engine.save_state, Optimizer.step

    def full(folder: Path, state: dict[str, Any]) -> None:
        if folder.name == ".step-4.partial":
            failed.set()
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, state)

    def step(self: Optimizer, step: int, loss: float) -> tuple[float, float]:
        if step >= 4:
            assert failed.wait(120)
        return observe(self, step, loss)

    monkeypatch.setattr(engine, "save_state", full)
    monkeypatch.setattr(Optimizer, "step", step)
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, steps=1000, checkpoint_every=2)
    with pytest.raises(UnixError, match=r"step-4: .*No space left.*last whole checkpoint is .*step-2.*--resume"):
        train(config)
    assert newest_checkpoint(tmp_path) == tmp_path / "step-2"
    assert not list(tmp_path.glob(".*.partial"))
    assert len(read_metrics(tmp_path)) < 8


def test_a_stop_while_writing_waits_for_a_whole_checkpoint(configure, warm, tmp_path, monkeypatch):
    save = engine.save_state

    def stopping(folder: Path, state: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        save(folder, state)

    monkeypatch.setattr(engine, "save_state", stopping)
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, steps=1000, checkpoint_every=2)
    with pytest.raises(Interrupted) as caught:
        train(config)
    assert caught.value.exit_code == 75
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert newest.name == f"step-{len(read_metrics(tmp_path))}"
