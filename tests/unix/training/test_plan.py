"""What a stage will need, without allocating it: against counts done by hand and against torch's own bookkeeping."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from unix.errors import ConfigError
from unix.training.plan import PlanConfig, plan
from unix.training.stages import TrainConfig, load_stage

NOWHERE = ["shards=nowhere", "run_dir=nowhere", "from_checkpoint=nowhere"]
MIDDLE: dict[str, Any] = {
    "decoder": {
        "vocabulary_size": 8192,
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_layers": 8,
        "num_heads": 8,
        "num_key_value_heads": 8,
    },
    "vision": {
        "image_size": 384,
        "patch_size": 16,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_layers": 6,
        "num_heads": 6,
    },
    "tokens": {"bos": 0, "eos": 1, "boi": 2, "eoi": 3},
}


def middle(stage: str) -> TrainConfig:
    """The configuration whose FLOPs were counted by formula (PARITY section 12): 8 samples a step."""
    changes = ["global_batch=8", "micro_batch=8", "engine.precision=float32", "engine.sharding=none"]
    config = load_stage(stage, preset="paper", overrides=[*NOWHERE, *changes])
    return TrainConfig.build({**config.model_dump(mode="json"), "model": MIDDLE})


@pytest.mark.parametrize(("stage", "tokens", "gflop"), [("stage1", 160, 1424), ("stage2", 96, 395)])
def test_flops_are_those_of_the_formula(stage: str, tokens: int, gflop: float) -> None:
    found = plan(PlanConfig(train=middle(stage), tokens=tokens))
    # The plan has a loss at every text position, and counts what fused attention's backward pass computes again.
    assert found.tflop_per_step * 1e3 == pytest.approx(gflop, rel=0.1)


@pytest.mark.parametrize(("stage", "trained"), [("stage1", 45.7e6), ("stage2", 26.1e6)])
def test_trained_parameters_are_counted(stage: str, trained: float) -> None:
    assert plan(PlanConfig(train=middle(stage))).trained_parameters == pytest.approx(trained, rel=0.01)


def test_the_paper_fits_eight_gpus_of_48_gb() -> None:
    for stage in ("stage1", "stage2", "stage3"):
        config = PlanConfig(train=load_stage(stage, preset="paper", overrides=NOWHERE), gpus=8, gpu_memory_gb=48)
        found = plan(config)
        assert found.fits
        parts = found.weights_gb + found.gradients_gb + found.optimizer_gb + found.activations_gb
        assert found.peak_gb == pytest.approx(parts)
        whole = config.model_copy(update={"train": config.train.model_copy(update={"engine": MIDDLE_ENGINE})})
        assert plan(whole).peak_gb > found.peak_gb


MIDDLE_ENGINE = load_stage("stage1", preset="tiny", overrides=NOWHERE).engine


def test_the_joint_stage_lies_between_its_two_kinds_of_batches() -> None:
    def planned(*settings: str) -> Any:
        config = load_stage("joint", preset="tiny", overrides=[*NOWHERE, *settings])
        return plan(PlanConfig(train=config, tokens=40))

    drawing, half, reading = (planned(f"mixture.understanding={share}").tflop_per_step for share in ("0", "1", "1000"))
    assert half == pytest.approx((drawing + reading) / 2, rel=0.01)
    assert planned().trained_parameters == planned().parameters
    frozen = planned("mixture.understanding=0", "generation.freeze_understanding=true")
    assert frozen.tflop_per_step < drawing
    assert frozen.trained_parameters < frozen.parameters


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match="256 does not divide over 7"):
        plan(PlanConfig(train=load_stage("stage1", preset="paper", overrides=NOWHERE), gpus=7))


_MEASURE = """
import re, sys, threading, torch
from pathlib import Path
from unix.training.host_memory import keep_freed_memory
from unix.training.plan import _draw, _read
from unix.training.objectives import train_only
from unix.training.optim import OptimizerConfig, adamw
from unix.training.stages import TrainConfig
from unix.model.dual_branch import DualBranch
torch.set_num_threads(1)
keep_freed_memory()
most_memory = 0  # in kB, without pages of files: the kernel may take those back at any time
def watch(between=threading.Event()):
    global most_memory
    while not between.wait(0.001):
        now = int(re.search(r"RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
        most_memory = max(most_memory, now)
threading.Thread(target=watch, daemon=True).start()
config = TrainConfig.model_validate_json(sys.argv[1])
def step(count):
    model = DualBranch.build(config.model, 0)
    names = model.understanding_parameters() if config.stage == "stage1" else model.generation_parameters()
    train_only(model, {name for name, _ in names})
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = adamw([trained], OptimizerConfig(learning_rate=1e-4))
    loss = _read(model, count, 160) if config.stage == "stage1" else _draw(model, count, 160, 16)
    loss.backward()
    optimizer.step()
small = TrainConfig.model_validate_json(sys.argv[2])
big, config = config, small
step(1)  # what torch needs once
start = most_memory
config = big
step(config.micro_batch)
print((most_memory - start) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_predicted_memory_is_what_a_process_takes(stage: str, repository: Path) -> None:
    """Within 15 % of the growth of a process's anonymous memory over one real step."""
    config = middle(stage)
    tiny = TrainConfig.build({**config.model_dump(mode="json"), "model": tiny_model()})
    measured = float(
        subprocess.run(
            [sys.executable, "-c", _MEASURE, config.model_dump_json(), tiny.model_dump_json()],
            cwd=repository,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    )
    assert plan(PlanConfig(train=config, tokens=160)).peak_gb == pytest.approx(measured, rel=0.15)


def tiny_model() -> dict[str, Any]:
    return load_stage("stage1", preset="tiny", overrides=NOWHERE).model.model_dump(mode="json")
