"""`unix parity` on folders that nobody has seen: other shapes, written by an independent evaluation in float64.

That evaluation first has to give every quantity of the recorded folder A from its inputs.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.unix.model.recorded.folder import Inputs, Recorder
from tests.unix.model.recorded.random_weights import random_weights
from unix.model.parity import ACTIVATION_TOLERANCE, GRADIENT_TOLERANCE, compare, measure

VARIANT: dict[str, Any] = {
    "cfg_text_scale": 2.0,
    "cfg_img_scale": 1.0,
    "cfg_interval": [0.4, 1.0],
    "cfg_renorm_min": 0.0,
    "cfg_renorm_type": "global",
    "num_timesteps": 6,
    "timestep_shift": 1.0,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "main": VARIANT,
    "shift3": VARIANT | {"timestep_shift": 3.0},
    "channel": VARIANT | {"cfg_renorm_type": "channel"},
    "nocfg": VARIANT | {"cfg_text_scale": 1.0},
    "text_channel_img": VARIANT | {"cfg_renorm_type": "text_channel", "cfg_text_scale": 3.0, "cfg_img_scale": 1.5},
    "imgcfg": VARIANT | {"cfg_text_scale": 3.0, "cfg_img_scale": 1.5, "timestep_shift": 3.0},
    "renorm_min": VARIANT | {"cfg_text_scale": 4.0, "cfg_renorm_min": 0.9, "cfg_interval": [0.0, 0.8]},
}


def configuration(**changes: Any) -> dict[str, Any]:
    """Three samples' shape: grouped key-value heads, latents up to 8 x 8, alignment after the second layer."""
    shape = {
        "width": 32,
        "inner": 48,
        "layers": 3,
        "heads": 4,
        "kv_heads": 2,
        "vocabulary": 60,
        "tower": 24,
        "tower_layers": 1,
        "tower_heads": 3,
        "channels": 16,
        "depth": 1,
        "connector": "gelu_pytorch_tanh",
        "connector_names": ["fc1", "fc2"],
        "shift": 1.0,
    } | changes
    vocabulary = shape["vocabulary"]
    return {
        "model_type": "unix",
        "latent_patch_size": 1,
        "max_latent_size": 8,
        "connector_act": shape["connector"],
        "connector_names": shape["connector_names"],
        "timestep_shift": shape["shift"],
        "llm_config": {
            "hidden_size": shape["width"],
            "intermediate_size": shape["inner"],
            "num_hidden_layers": shape["layers"],
            "num_attention_heads": shape["heads"],
            "num_key_value_heads": shape["kv_heads"],
            "vocab_size": vocabulary,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "hidden_act": "silu",
            "qk_norm": True,
            "tie_word_embeddings": False,
        },
        "vit_config": {
            "hidden_size": shape["tower"],
            "image_size": 32,
            "intermediate_size": 4 * shape["tower"],
            "num_attention_heads": shape["tower_heads"],
            "num_hidden_layers": shape["tower_layers"],
            "patch_size": 16,
            "layer_norm_eps": 1e-6,
        },
        "vae_config": {"downsample": 16, "z_channels": shape["channels"]},
        "special_token_ids": {
            "bos_token_id": vocabulary - 4,
            "eos_token_id": vocabulary - 3,
            "start_of_image": vocabulary - 2,
            "end_of_image": vocabulary - 1,
        },
        "repa": {"intermediate_depth": shape["depth"], "projector_dim": 20, "z_dim": 12},
    }


def drawn_inputs(
    config: Mapping[str, Any], generator: torch.Generator, num_samples: int, grid: tuple[int, int], num_tokens: int
) -> Inputs:
    side, channels = config["vit_config"]["image_size"], config["vae_config"]["z_channels"]
    width, repa = config["llm_config"]["hidden_size"], config["repa"]
    rows, columns = grid

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def text(longest: int) -> list[int]:
        length = int(torch.randint(1, longest + 1, (), generator=generator))
        top = config["llm_config"]["vocab_size"] - 4
        return torch.randint(0, top, (length,), generator=generator).tolist()

    projector: dict[str, Tensor] = {}
    sizes = (width, repa["projector_dim"], repa["projector_dim"], repa["z_dim"])
    for index in range(3):
        projector[f"projector.0.mlp.{2 * index}.weight"] = normal(sizes[index + 1], sizes[index]) / sizes[index] ** 0.5
        projector[f"projector.0.mlp.{2 * index}.bias"] = 0.2 * normal(sizes[index + 1])
    encoded = {"z_equal": rows * columns, "z_unequal": 25}
    return Inputs(
        images=normal(num_samples, 3, side, side),
        prompts=[text(6) for _ in range(num_samples)],
        answers=[text(7) for _ in range(num_samples)],
        captions=[text(9) for _ in range(num_samples)],
        latent=normal(num_samples, channels, rows, columns),
        noise=normal(num_samples * rows * columns, channels),
        timesteps=normal(num_samples).tolist(),
        dropped_timesteps=normal(num_samples).tolist(),
        repa=projector
        | {"features": normal(num_samples, rows * columns, width)}
        | {name: normal(num_samples, count, repa["z_dim"]) for name, count in encoded.items()},
        image=normal(3, side, side),
        prompt=text(5),
        num_tokens=num_tokens,
        caption=text(6),
        init_noise=normal(rows * columns, channels),
        variants=VARIANTS,
    )


def recorded_inputs(files: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any], meta: Any) -> Inputs:
    """What folder A was recorded from."""
    special = config["special_token_ids"]
    bos, eos = special["bos_token_id"], special["eos_token_id"]
    stage1, stage2, repa = files["stage1"], files["stage2"], files["repa"]

    def texts(record: Mapping[str, Tensor]) -> list[list[list[int]]]:
        """Of each sample, the ids between each bos and its eos."""
        found: list[list[list[int]]] = []
        while f"sample{len(found)}.token_ids" in record:
            ids = record[f"sample{len(found)}.token_ids"].tolist()
            starts = [index for index, token in enumerate(ids) if token == bos]
            found.append([ids[start + 1 : ids.index(eos, start)] for start in starts])
        return found

    reports = texts(stage1)
    timesteps = {
        name: files[name]["packed_timesteps"].unflatten(0, (len(reports), -1))[:, 0].tolist()
        for name in ("stage2", "stage2_drop")
    }
    taken = ("projector.", "features", "z_")
    return Inputs(
        images=stage1["images"],
        prompts=[prompt for prompt, _ in reports],
        answers=[answer for _, answer in reports],
        captions=[caption for (caption,) in texts(stage2)],
        latent=stage2["latent"],
        noise=stage2["noise"],
        timesteps=timesteps["stage2"],
        dropped_timesteps=timesteps["stage2_drop"],
        repa={name: value for name, value in repa.items() if name.startswith(taken)},
        image=files["infer_und"]["image"],
        prompt=files["infer_und"]["prompt_ids"].tolist(),
        num_tokens=len(files["infer_und"]["generated"]),
        caption=files["infer_gen"]["caption_ids"].tolist(),
        init_noise=files["infer_gen"]["init_noise"],
        variants=meta["infer_gen"]["variants"],
    )


@pytest.mark.slow
def test_the_evaluation_gives_the_recorded_folder(shared_folder: Path) -> None:
    folder = shared_folder / "parity" / "A"
    recorded = {path.stem: load_file(path) for path in folder.glob("*.safetensors")}
    config, meta = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "meta"))
    inputs = recorded_inputs(recorded, config, meta)
    files, ours = Recorder(config, recorded.pop("state_dict"), inputs).files()
    assert files.keys() == recorded.keys()
    for name, tensors in recorded.items():
        tolerance = GRADIENT_TOLERANCE if "grads" in name else ACTIVATION_TOLERANCE
        assert tensors.keys() <= files[name].keys() if name == "stage2_drop" else tensors.keys() == files[name].keys()
        for key, value in tensors.items():
            found = files[name][key]
            assert found.dtype == value.dtype, (name, key)
            assert measure(key, found, value, tolerance).within, (name, key)
    for part, losses in (("stage2", "grads_of_mse_mean_no_freeze"), ("repa", "grads_of_total_unequal")):
        expected = meta[part][losses]["nonzero"]
        assert ours[part][losses]["nonzero"] == pytest.approx(expected, rel=1e-3)


CASES: dict[str, tuple[dict[str, Any], int, tuple[int, int], int]] = {
    "published names, narrow heads, other channels, exact GELU, shifted times": (
        {
            "width": 40,
            "channels": 4,
            "connector": "gelu",
            "connector_names": ["layers.0", "layers.2"],
            "shift": 3.0,
            "layers": 2,
        },
        2,
        (1, 8),
        5,
    ),
    "three samples, grouped heads, 4 x 6": ({}, 3, (4, 6), 6),
    "one sample, one key-value head, 5 x 2": ({"kv_heads": 1, "layers": 2, "depth": 0}, 1, (5, 2), 4),
    "wide and deep": (
        {
            "width": 96,
            "inner": 160,
            "layers": 5,
            "heads": 6,
            "kv_heads": 3,
            "vocabulary": 512,
            "tower": 64,
            "tower_layers": 3,
            "tower_heads": 4,
            "depth": 3,
        },
        4,
        (8, 3),
        12,
    ),
}


@pytest.mark.parametrize(
    "case", [name if name.startswith("published") else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_unseen_folders_are_met(case: str, tmp_path: Path) -> None:
    changes, num_samples, grid, num_tokens = CASES[case]
    config, generator = configuration(**changes), torch.Generator().manual_seed(len(case))
    inputs = drawn_inputs(config, generator, num_samples, grid, num_tokens)
    Recorder(config, random_weights(config, generator), inputs).write(tmp_path / "recorded")
    found = compare(tmp_path / "recorded")
    assert len(found) > 200
    assert [quantity for quantity in found if not quantity.within] == []
