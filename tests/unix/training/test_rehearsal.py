"""A rehearsal really steps: its figures are of work done on this machine."""

import pytest

from unix.errors import ConfigError
from unix.training.plan import PlanConfig, plan
from unix.training.rehearsal import rehearse
from unix.training.stages import load_stage

SMALL = [
    *("shards=nowhere", "run_dir=nowhere", "from_checkpoint=nowhere"),
    *("global_batch=4", "micro_batch=2", "processes=1", "data_set=generation-64"),
]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_measured_time_and_memory_take_the_place_of_the_assumed(stage: str) -> None:
    config = PlanConfig(train=load_stage(stage, preset="tiny", overrides=SMALL), tokens=8, gpu_memory_gb=0.001)
    assumed = plan(config)
    measured = rehearse(config)
    assert measured.seconds_per_step > assumed.seconds_per_step  # of a GPU
    assert measured.peak_gb > assumed.weights_gb + assumed.gradients_gb + assumed.optimizer_gb
    joined = assumed.with_measured(measured.seconds_per_step, measured.peak_gb)
    assert joined.hours == pytest.approx(measured.seconds_per_step * assumed.steps / 3600)
    assert joined.fits is False
    assert joined.parameters == assumed.parameters


def test_spread_weights_cannot_be_rehearsed_by_one_rank() -> None:
    train = load_stage("stage1", preset="tiny", overrides=[*SMALL, "engine.sharding=full"])
    with pytest.raises(ConfigError, match="smoke-gpu"):
        rehearse(PlanConfig(train=train))
