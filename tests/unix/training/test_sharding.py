"""FSDP2 on gloo processes: the same training as one process, and checkpoints that change their number of ranks."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unix.model.dual_branch import is_generation
from unix.training.metrics import read_metrics
from unix.training.run import train

SHARDED = {"sharding": "full"}


def losses_of(run_dir: Path) -> list[list[float]]:
    return [[row["loss"], row["grad_norm"]] for row in read_metrics(run_dir)]


def same(one: Path, other: Path) -> None:
    for ours, theirs in zip(losses_of(one), losses_of(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_twenty_sharded_steps_are_those_of_one_process(stage, configure, read, tmp_path):
    settings: dict[str, Any] = {"from_checkpoint": read.checkpoint, "steps": 20, "checkpoint_every": 20}
    whole = train(configure(stage, tmp_path / "whole", **settings))
    sharded = train(configure(stage, tmp_path / "sharded", processes=2, engine=SHARDED, **settings))
    assert len(losses_of(tmp_path / "whole")) == 20
    same(tmp_path / "sharded", tmp_path / "whole")
    ours, theirs = (load_file(Path(run.checkpoint) / "model.safetensors") for run in (sharded, whole))
    assert {name: value.shape for name, value in ours.items()} == {name: value.shape for name, value in theirs.items()}
    # Not the weights one by one: AdamW turns the rounding of a gradient that is zero into a whole step.
    frozen = [name for name in theirs if is_generation(name) is (stage == "stage1")]
    assert all(torch.equal(ours[name], theirs[name]) for name in frozen)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_sharded_run_resumes_on_another_number_of_ranks(before, after, configure, read, tmp_path):
    def config(folder: str, **changes: Any):
        settings = {"from_checkpoint": read.checkpoint, "engine": SHARDED, "steps": 6, **changes}
        return configure("stage2", tmp_path / folder, **settings)

    train(config("whole", processes=1))
    train(config("cut", processes=before, steps=3))
    train(config("cut", processes=after, resume=True))
    same(tmp_path / "cut", tmp_path / "whole")


def test_bfloat16_trains_close_to_float32(configure, read, tmp_path):
    for name, precision in (("half", "bfloat16"), ("whole", "float32")):
        train(configure("stage1", tmp_path / name, from_checkpoint=read.checkpoint, engine={"precision": precision}))
    half, whole = losses_of(tmp_path / "half"), losses_of(tmp_path / "whole")
    assert half != whole
    assert [loss for loss, _ in half] == pytest.approx([loss for loss, _ in whole], rel=2e-2)
    weights = load_file(tmp_path / "half" / "step-6" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_recomputed_layers_change_nothing(stage, configure, read, tmp_path):
    settings: dict[str, Any] = {"from_checkpoint": read.checkpoint, "steps": 4, "checkpoint_every": 4}
    train(configure(stage, tmp_path / "kept", **settings))
    engine = {**SHARDED, "recompute_layers": True}
    train(configure(stage, tmp_path / "recomputed", processes=2, engine=engine, **settings))
    same(tmp_path / "recomputed", tmp_path / "kept")
