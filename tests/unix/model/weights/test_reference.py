"""The released layout in and out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from unix.errors import WeightsError
from unix.model.dual_branch import DualBranch, ModelConfig
from unix.model.layers import position_table
from unix.model.weights.reference import ReferenceExtras, export_reference, load_reference, model_config, rules

CONFIG: dict[str, Any] = {
    "max_latent_size": 4,
    "latent_patch_size": 1,
    "connector_act": "gelu_pytorch_tanh",
    "vae_config": {"z_channels": 16, "downsample": 16},
    "llm_config": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 12,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "qk_norm": True,
        "tie_word_embeddings": False,
    },
    "vit_config": {
        "hidden_size": 8,
        "image_size": 32,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "patch_size": 16,
    },
    "special_token_ids": {"bos_token_id": 0, "eos_token_id": 1, "start_of_image": 2, "end_of_image": 3},
}


@pytest.fixture
def released() -> dict[str, Tensor]:
    """A checkpoint in the released layout, unused tensors and the published connector names included."""
    source = DualBranch.build(model_config(CONFIG), 0)
    extras = {
        "vit_pos_embed.pos_embed": torch.ones(4, 16),
        "latent_pos_embed.pos_embed": position_table(4, 4, 16),
        "vit_model.vision_tower.attn_pool.q.weight": torch.ones(8, 8),
    }
    return export_reference(source, ReferenceExtras(extras, connector_layers=True))


def test_the_configuration_is_read() -> None:
    config = model_config(CONFIG)
    assert config.decoder.num_key_value_heads == 1 and config.latent.max_side == 4
    assert config.connector_activation == "tanh" and config.vision.activation == "erf"
    assert config.tokens.eoi == 3


@pytest.mark.parametrize(("key", "value"), [("qk_norm", False), ("tie_word_embeddings", True)])
def test_what_the_model_does_not_do_is_refused(key: str, value: object) -> None:
    values = CONFIG | {"llm_config": CONFIG["llm_config"] | {key: value}}
    with pytest.raises(WeightsError, match=f"llm_config.{key}"):
        model_config(values)
    with pytest.raises(WeightsError, match="interpolate_pos is True"):
        model_config(CONFIG | {"interpolate_pos": True})
    with pytest.raises(WeightsError, match="has no 'vit_config'"):
        model_config({key: value for key, value in CONFIG.items() if key != "vit_config"})


def test_a_round_trip_is_exact(released: dict[str, Tensor]) -> None:
    assert "connector.layers.0.weight" in released
    model = DualBranch.build(model_config(CONFIG), 1)
    back = export_reference(model, load_reference(model, released, "file"))
    assert back.keys() == released.keys()
    assert all(torch.equal(value, released[name]) for name, value in back.items())


def test_recorded_weights_make_the_round_trip(shared_folder: Path) -> None:
    folder = shared_folder / "parity" / "A"
    tensors = load_file(folder / "state_dict.safetensors")
    model = DualBranch(model_config(json.loads((folder / "config.json").read_text())))
    back = export_reference(model, load_reference(model, tensors, "A"))
    assert back.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) and value.dtype == tensors[name].dtype for name, value in back.items())


def test_faulty_checkpoints_are_refused_by_name(released: dict[str, Tensor]) -> None:
    model = DualBranch.build(model_config(CONFIG), 1)
    gone = {name: value for name, value in released.items() if name != "vae2llm.bias"}
    with pytest.raises(WeightsError, match=r"missing vae2llm\.bias"):
        load_reference(model, gone, "file")
    with pytest.raises(WeightsError, match="unexpected mystery"):
        load_reference(model, released | {"mystery": torch.zeros(1)}, "file")
    with pytest.raises(WeightsError, match=r"latent_in\.weight has shape \[16, 8\], not \[16, 16\]"):
        load_reference(model, released | {"vae2llm.weight": torch.zeros(16, 8)}, "file")
    with pytest.raises(WeightsError, match="not the fixed sin-cos table"):
        load_reference(model, released | {"latent_pos_embed.pos_embed": torch.zeros(16, 16)}, "file")


def test_every_tensor_of_the_paper_model_has_one_released_name() -> None:
    config = ModelConfig()
    with torch.device("meta"):
        model = DualBranch(config)
    named = list(rules(config))
    assert {rule.ours for rule in named} == model.state_dict().keys()
    assert len({(rule.theirs, rule.third) for rule in named}) == len(named) == len(model.state_dict())
