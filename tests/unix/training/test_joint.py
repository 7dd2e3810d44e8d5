"""The joint stage: what is trained, how two sets share a batch, and that ranks change nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unix.data.stream import index_stream
from unix.errors import ConfigError
from unix.model.dual_branch import is_generation
from unix.records import Split, Task
from unix.training.assembly import open_data
from unix.training.metrics import read_metrics
from unix.training.run import train

UNDERSTANDING_SET = "understanding-32"


def mixed(understanding: float, generation: float) -> dict[str, Any]:
    return {"understanding": understanding, "generation": generation, "understanding_set": UNDERSTANDING_SET}


def changed(before: str, after: str) -> set[str]:
    ours, theirs = (load_file(Path(folder) / "model.safetensors") for folder in (after, before))
    return {name for name, value in ours.items() if not torch.equal(value, theirs[name])}


def losses_of(run_dir: Path) -> list[list[float]]:
    names = ("loss", "cross_entropy", "flow", "alignment", "grad_norm")
    return [[row[name] for name in names] for row in read_metrics(run_dir)]


def test_both_branches_learn_from_both_sets(configure, read, tmp_path):
    joint = train(configure("joint", tmp_path, from_checkpoint=read.checkpoint, mixture=mixed(1, 2)))
    names = changed(read.checkpoint, joint.checkpoint)
    assert any(is_generation(name) for name in names)
    assert {"head.weight", "embedding.weight", "understanding_norm.weight"} < names
    assert any(name.startswith("vision.") for name in names)
    row = read_metrics(tmp_path)[-1]
    assert row["loss"] == pytest.approx(row["cross_entropy"] + row["flow"] + 0.5 * row["alignment"], rel=1e-5)


def test_without_reports_the_understanding_branch_learns_from_drawing_alone(configure, read, tmp_path):
    joint = train(configure("joint", tmp_path, from_checkpoint=read.checkpoint, mixture=mixed(0, 1)))
    names = changed(read.checkpoint, joint.checkpoint)
    assert any(name.startswith("layers.") and ".understanding." in name for name in names)
    assert "embedding.weight" in names
    assert not any(name.startswith(("vision.", "connector.", "head.")) for name in names)
    assert "cross_entropy" not in read_metrics(tmp_path)[-1]


def test_with_the_understanding_branch_frozen_it_is_stage_2(configure, read, tmp_path):
    generation = {"latents": "memory", "copy_understanding": True, "alignment": {"layer": 1, "projector_width": 16}}
    settings = {"from_checkpoint": read.checkpoint, "generation": generation}
    joint = configure("joint", tmp_path / "joint", mixture=mixed(0, 1), **settings)
    train(joint)
    train(configure("stage2", tmp_path / "stage2", optimizer=joint.optimizer.model_dump(), **settings))
    ours, theirs = (read_metrics(tmp_path / name) for name in ("joint", "stage2"))
    assert [row["loss"] for row in ours] == [row["loss"] for row in theirs]


@pytest.mark.parametrize(("understanding", "generation"), [(1, 1), (1, 2), (1, 4)])
def test_batches_are_shared_as_the_mixture_says(understanding, generation, configure, tmp_path):
    config = configure("joint", tmp_path, from_checkpoint="x", mixture=mixed(understanding, generation))
    data = open_data(config, Split.TRAIN)
    stream, reading = index_stream(data.source, 0, 8), data.readers[0].samples
    drawn = [sum(index >= reading for index in next(stream)[0]) for _ in range(6)]
    exact = 8 * generation / (understanding + generation)
    assert all(abs(count - exact) <= 1 for count in drawn)
    assert sum(drawn) == pytest.approx(6 * exact, abs=1)


@pytest.mark.parametrize("engine", [{}, {"sharding": "full"}], ids=["whole", "sharded"])
def test_two_ranks_do_what_one_does(engine, configure, read, tmp_path):
    settings = {"from_checkpoint": read.checkpoint, "mixture": mixed(1, 2), "steps": 20, "checkpoint_every": 20}
    train(configure("joint", tmp_path / "1", **settings))
    train(configure("joint", tmp_path / "2", processes=2, engine=engine, **settings))
    assert len(losses_of(tmp_path / "1")) == 20
    for ours, theirs in zip(losses_of(tmp_path / "2"), losses_of(tmp_path / "1"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)


def test_it_resumes_bit_for_bit_and_is_looked_at(configure, read, tmp_path):
    look = {"every": 3, "samples": 4, "shown": 1, "num_steps": 2}
    settings = {"from_checkpoint": read.checkpoint, "validation": look}
    train(configure("joint", tmp_path / "whole", **settings))
    train(configure("joint", tmp_path / "cut", **{**settings, "steps": 3}))
    train(configure("joint", tmp_path / "cut", resume=True, **settings))
    assert losses_of(tmp_path / "cut") == losses_of(tmp_path / "whole")
    assert {"validation_cross_entropy", "validation_flow"} < read_metrics(tmp_path / "whole")[-1].keys()
    shown = {path.name for path in (tmp_path / "whole" / "samples" / "step-6").iterdir()}
    assert {"reports.jsonl", "captions.jsonl"} < shown


def test_every_rank_makes_as_many_passes(configure, tmp_path):
    config = configure("joint", tmp_path, from_checkpoint="x", mixture=mixed(1, 2))
    data = open_data(config, Split.TRAIN, world=2)
    assert data.micro_batch == {Task.UNDERSTANDING: 2, Task.GENERATION: 3}
    uneven = config.model_copy(update={"global_batch": 4, "micro_batch": 1})
    with pytest.raises(ConfigError, match=r"holds [01] to [12] samples of one set.*raise micro_batch"):
        open_data(uneven, Split.TRAIN, world=2)


def test_contradictions_are_refused(configure, tmp_path):
    with pytest.raises(ConfigError, match=r"mixture.understanding 1 would train the branch"):
        configure("joint", tmp_path, from_checkpoint="x", generation={"freeze_understanding": True})
    unfrozen = {"freeze_understanding": False}
    with pytest.raises(ConfigError, match="freeze_understanding false is for the stage joint, not stage2"):
        configure("stage2", tmp_path, from_checkpoint="x", generation=unfrozen)
    with pytest.raises(ConfigError, match="remember_captions true needs"):
        configure("joint", tmp_path, from_checkpoint="x", generation={**unfrozen, "remember_captions": True})
    with pytest.raises(ConfigError, match="mixture is for the stage joint"):
        configure("stage1", tmp_path, from_checkpoint="x", mixture=mixed(1, 1))
    wrong = {**mixed(1, 1), "understanding_set": "generation-32"}
    with pytest.raises(ConfigError, match="generation-32 is a set for generation"):
        open_data(configure("joint", tmp_path, from_checkpoint="x", mixture=wrong), Split.TRAIN)
