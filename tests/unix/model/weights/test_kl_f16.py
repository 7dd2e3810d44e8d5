"""CompVis' autoencoder layout in and out."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from unix.errors import WeightsError
from unix.model.latent import KLF16, KLF16Config
from unix.model.weights.kl_f16 import codec_config, export_kl_f16, load_kl_f16, rules

CONFIG = KLF16Config(base_channels=8, norm_groups=4, num_blocks=1, attention_levels=(3, 4))
SHAPE = {
    "double_z": True,
    "z_channels": 16,
    "resolution": 256,
    "in_channels": 3,
    "ch": 128,
    "ch_mult": [1, 1, 2, 2, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [16],
}


def test_the_released_configuration_is_the_default() -> None:
    assert codec_config({"ddconfig": SHAPE, "embed_dim": 16}) == KLF16Config()
    with pytest.raises(WeightsError, match="embed_dim 4, z_channels 16"):
        codec_config({"ddconfig": SHAPE, "embed_dim": 4})
    with pytest.raises(WeightsError, match="has no 'ddconfig'"):
        codec_config({"embed_dim": 4})


def test_every_tensor_has_one_foreign_name() -> None:
    codec = KLF16(CONFIG)
    named = list(rules(codec))
    assert {rule.ours for rule in named} == codec.state_dict().keys()
    assert len({rule.theirs for rule in named}) == len(named)


def test_a_round_trip_is_exact() -> None:
    source, target = KLF16(CONFIG), KLF16(CONFIG)
    foreign = export_kl_f16(source)
    assert foreign["encoder.down.3.attn.0.q.weight"].dim() == 4
    load_kl_f16(target, foreign | {"loss.logvar": torch.zeros(1)}, "file")
    values = target.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in source.state_dict().items())


def test_recorded_weights_make_the_round_trip(shared_folder: Path) -> None:
    folder = shared_folder / "parity" / "vae"
    tensors = load_file(folder / "state_dict.safetensors")
    codec = KLF16(codec_config(json.loads((folder / "config.json").read_text())))
    load_kl_f16(codec, tensors, "vae")
    back = export_kl_f16(codec)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[name]) for name, value in back.items())


def test_faulty_files_are_refused_by_name() -> None:
    codec = KLF16(CONFIG)
    foreign = export_kl_f16(codec)
    with pytest.raises(WeightsError, match="unexpected mystery"):
        load_kl_f16(codec, foreign | {"mystery": torch.zeros(1)}, "file")
    del foreign["decoder.mid.attn_1.k.bias"]
    with pytest.raises(WeightsError, match=r"missing decoder\.mid\.attn_1\.k\.bias"):
        load_kl_f16(codec, foreign, "file")
