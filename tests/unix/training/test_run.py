"""Whole runs: resume bit for bit, what stays frozen, what is refused."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unix.data.tokenizer import Tokenizer
from unix.errors import ConfigError, Interrupted, ResumeError, WeightsError
from unix.model.dual_branch import is_generation
from unix.model.weights.native import load_model
from unix.records import Task
from unix.runs import MACHINE_COLUMNS
from unix.training.checkpoint import newest_checkpoint, read_meta
from unix.training.metrics import read_metrics
from unix.training.optim import Optimizer
from unix.training.run import TrainSummary, train


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in MACHINE_COLUMNS} for row in read_metrics(run_dir)]


def weights_of(checkpoint: str) -> dict[str, torch.Tensor]:
    return load_file(Path(checkpoint) / "model.safetensors")


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch):
    """Call something just before one optimizer step is applied."""

    def arrange(wanted: int, action: Any) -> None:
        apply = Optimizer.step

        def step(self: Optimizer, step: int, loss: float) -> tuple[float, float]:
            if step == wanted:
                monkeypatch.setattr(Optimizer, "step", apply)
                action()
            return apply(self, step, loss)

        monkeypatch.setattr(Optimizer, "step", step)

    return arrange


def crash() -> None:
    raise MemoryError


@pytest.mark.parametrize("stage", ["stage1", "stage2", "stage3"])
def test_a_killed_run_resumes_bit_for_bit(stage, configure, warm, read, tmp_path, at_step):
    start = warm.checkpoint if stage == "stage1" else read.checkpoint
    whole = train(configure(stage, tmp_path / "whole", from_checkpoint=start))

    at_step(4, crash)
    with pytest.raises(MemoryError):
        train(configure(stage, tmp_path / "cut", from_checkpoint=start))
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [1, 2, 3, 4]
    resumed = train(configure(stage, tmp_path / "cut", from_checkpoint=start, resume=True))

    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    ours, theirs = weights_of(resumed.checkpoint), weights_of(whole.checkpoint)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_exits_75(number, configure, warm, tmp_path, at_step):
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, checkpoint_every=100)
    at_step(1, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted) as caught:
        train(config)
    assert caught.value.exit_code == 75
    newest = newest_checkpoint(tmp_path)
    assert newest is not None
    assert read_meta(newest).step == len(rows_of(tmp_path)) < config.steps
    assert train(config.model_copy(update={"resume": True})).checkpoint.endswith("step-6")


def test_stage1_leaves_the_generation_branch_byte_identical(warm, read):
    before, after = weights_of(warm.checkpoint), weights_of(read.checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before if is_generation(name))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("vision."))


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
def test_drawing_stages_leave_the_understanding_branch_byte_identical(stage, configure, read, tmp_path):
    drawn = train(configure(stage, tmp_path, from_checkpoint=read.checkpoint))
    before, after = weights_of(read.checkpoint), weights_of(drawn.checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before if not is_generation(name))
    assert any(not torch.equal(before[name], after[name]) for name in before if is_generation(name))


def test_a_checkpoint_holds_all_that_a_user_needs(configure, read, tmp_path):
    drawn = train(configure("stage2", tmp_path, from_checkpoint=read.checkpoint))
    folder = Path(drawn.checkpoint)
    model, codec = load_model(folder)
    assert model.config.decoder.num_layers == 2
    assert codec.channels == 1
    assert Tokenizer.load(folder).bos == 0
    assert json.loads((folder / "preprocessing.json").read_text())["prompts"] == ["Report:", "Describe this."]
    meta = read_meta(folder)
    assert (meta.stage, meta.step, meta.seed) == ("stage2", 6, 3)
    assert [parent.split(":")[0] for parent in meta.parents] == ["stage0", "stage1"]
    notes = " ".join(meta.notes)
    assert "stands in for pretrained weights" in notes
    assert "vision tower" in notes
    assert not list(tmp_path.glob(".*.partial"))


def test_stage0_says_what_it_is_and_logs_every_part(warm: TrainSummary):
    assert "stands in for pretrained weights" in warm.notes[0]
    rows = read_metrics(Path(warm.checkpoint).parent)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["part"] for row in rows] == ["text", "text", "tower", "tower", "autoencoder", "autoencoder"]


def test_accumulating_four_times_two_equals_one_times_eight(configure, read, tmp_path):
    for stage in ("stage1", "stage2"):
        for micro in (2, 8):
            train(configure(stage, tmp_path / f"{stage}-{micro}", from_checkpoint=read.checkpoint, micro_batch=micro))
        for one, other in zip(rows_of(tmp_path / f"{stage}-2"), rows_of(tmp_path / f"{stage}-8"), strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
            assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)


def test_resume_refuses_another_seed_stage_or_architecture(configure, warm, tmp_path):
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint)
    train(config)
    with pytest.raises(ResumeError, match="seed is 3 there and 4 in this configuration"):
        train(config.model_copy(update={"resume": True, "seed": 4}))
    with pytest.raises(ResumeError, match="stage is stage1 there and stage2"):
        train(configure("stage2", tmp_path, from_checkpoint=warm.checkpoint, resume=True))
    other = json.loads(json.dumps(config.model.model_dump()))
    other["decoder"]["num_layers"] = 1
    with pytest.raises(ConfigError, match="another architecture"):
        train(configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, resume=True, model=other))


def test_resume_refuses_other_shards(configure, warm, tmp_path, write_set):
    config = configure("stage1", tmp_path / "run", from_checkpoint=warm.checkpoint)
    train(config)
    write_set(tmp_path / "shards" / "understanding-32", Task.UNDERSTANDING, 32, seed=1)
    with pytest.raises(ResumeError, match="shards_digest"):
        train(config.model_copy(update={"resume": True, "shards": str(tmp_path / "shards")}))


def test_a_damaged_checkpoint_is_named(configure, warm, tmp_path):
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint)
    train(config)
    state = tmp_path / "step-6" / "training_state.pt"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ResumeError, match="damaged"):
        train(config.model_copy(update={"resume": True}))


def test_a_second_run_does_not_overwrite_the_first(configure, warm, tmp_path):
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint)
    train(config)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(config)


def test_resume_without_a_checkpoint_starts_at_step_0(configure, warm, tmp_path):
    summary = train(configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, resume=True))
    assert len(rows_of(tmp_path)) == summary.steps


def test_a_missing_starting_checkpoint_is_refused(configure, tmp_path):
    with pytest.raises(WeightsError, match="no checkpoint in"):
        train(configure("stage1", tmp_path, from_checkpoint=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_processes_do_what_one_does(stage, configure, read, tmp_path):
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        train(configure(stage, folder, from_checkpoint=read.checkpoint, processes=processes))
    for one, other in zip(rows_of(tmp_path / "1"), rows_of(tmp_path / "2"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_a_run_of_two_processes_resumes_on_one(configure, read, tmp_path, at_step):
    def config(folder: str, **changes: Any):
        return configure("stage1", tmp_path / folder, from_checkpoint=read.checkpoint, **changes)

    train(config("whole"))
    at_step(4, crash)
    with pytest.raises(MemoryError):
        train(config("cut", processes=2))
    train(config("cut", processes=1, resume=True))
    losses = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("cut", "whole")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_remembered_captions_change_nothing_but_the_rounding(configure, read, tmp_path):
    losses = []
    for remember in (True, False):
        generation = {"latents": "memory", "remember_captions": remember, "packing": {"caption_dropout": 0.5}}
        config = configure("stage2", tmp_path / str(remember), from_checkpoint=read.checkpoint, generation=generation)
        train(config)
        losses.append([row["loss"] for row in rows_of(tmp_path / str(remember))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_checkpoint_publishes_the_average_and_resumes_from_the_raw_weights(configure, read, tmp_path):
    drawn = train(configure("stage2", tmp_path, from_checkpoint=read.checkpoint))
    state = torch.load(Path(drawn.checkpoint) / "training_state.pt", weights_only=True)
    published = weights_of(drawn.checkpoint)
    name = "latent_out.weight"
    assert torch.equal(published[name], state["average"][name])
    assert not torch.equal(published[name], state["weights"][name])
