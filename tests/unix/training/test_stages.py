"""The presets: they validate, hold the paper's Table 1, and have the sizes they claim."""

from typing import Any

import pytest
import torch

from unix.config import read_yaml
from unix.errors import ConfigError
from unix.model.dual_branch import DualBranch
from unix.resources import resource
from unix.training.stages import load_stage, packing_of

PLACES = ["shards=shards", "run_dir=run", "from_checkpoint=start"]

TABLE_1: dict[str, dict[str, Any]] = {
    "stage1": {"learning_rate": 1e-4, "warmup_steps": 80, "steps": 3_840, "data_set": "understanding-384"},
    "stage2": {"learning_rate": 2e-4, "warmup_steps": 2_000, "steps": 75_000, "data_set": "generation-256"},
    "stage3": {"learning_rate": 1e-4, "warmup_steps": 0, "steps": 5_000, "data_set": "generation-512"},
}


@pytest.mark.parametrize("stage", TABLE_1)
def test_paper_presets_hold_table_1(stage):
    config, row = load_stage(stage, preset="paper", overrides=PLACES), TABLE_1[stage]
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.warmup_steps) == (row["learning_rate"], row["warmup_steps"])
    assert (config.steps, config.data_set, config.global_batch) == (row["steps"], row["data_set"], 256)
    assert (optimizer.betas, optimizer.eps, optimizer.weight_decay, optimizer.gradient_clip) == (
        (0.9, 0.95),
        1e-15,
        0,
        1,
    )
    assert (optimizer.decay_steps, optimizer.average_decay) == (0, None)
    alignment = config.generation.alignment if config.generation else None
    if stage == "stage2":
        assert alignment is not None
        assert (alignment.weight, alignment.layer) == (0.5, 8)
    else:
        assert alignment is None


def test_the_paper_model_has_one_and_a_half_billion_parameters_in_use_per_branch():
    config = load_stage("stage1", preset="paper", overrides=PLACES).model
    with torch.device("meta"):
        model = DualBranch(config)
    reading = sum(value.numel() for _, value in model.understanding_parameters()) / 1e9
    drawing = sum(value.numel() for _, value in model.generation_parameters()) / 1e9
    text_tables = 2 * config.decoder.vocabulary_size * config.decoder.hidden_size / 1e9
    # The papers count the decoder with its text tables: 24 layers and two tables of 0.21 B.
    assert 1.4 < reading - sum(value.numel() for value in model.vision.parameters()) / 1e9 < 1.7
    assert 1.4 < drawing + text_tables < 1.7


@pytest.mark.parametrize(
    "path", sorted(resource("presets").glob("*/[!m]*.yaml")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_every_preset_validates_and_says_how_to_run_it(path):
    config = load_stage(path.stem, preset=path.parent.name, overrides=PLACES)
    assert config.stage == path.stem
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert f"unix train {path.stem}" in first
    assert "model" not in read_yaml(path)


def test_a_preset_without_wordings_gets_the_twenty():
    packing = packing_of(load_stage("stage1", preset="paper", overrides=PLACES))
    assert len(packing.prompts) == len(packing.findings_prompts) == 20


def test_refusals_name_what_is_wrong():
    with pytest.raises(ConfigError, match="no preset tiny/stage9; there are paper/joint, paper/stage1"):
        load_stage("stage9", overrides=PLACES)
    with pytest.raises(ConfigError, match="stage1 needs from_checkpoint"):
        load_stage("stage1", overrides=PLACES[:2])
    with pytest.raises(ConfigError, match="micro_batch 64 is larger than global_batch 8"):
        load_stage("stage1", overrides=[*PLACES, "global_batch=8", "micro_batch=64"])
    with pytest.raises(ConfigError, match=r"on_corrupt skip does not go with engine.sharding full"):
        load_stage("stage1", overrides=[*PLACES, "engine.sharding=full", "loader.on_corrupt=skip"])
    with pytest.raises(ConfigError, match="is not the sum of its parts"):
        load_stage("stage0", overrides=[*PLACES, "steps=7"])
    with pytest.raises(ConfigError, match="configures stage2, not stage1"):
        load_stage("stage1", config=str(resource("presets", "tiny", "stage2.yaml")), overrides=PLACES)
