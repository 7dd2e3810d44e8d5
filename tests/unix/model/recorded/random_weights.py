"""Weights of any shape under the recorded implementation's names."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def random_weights(config: Mapping[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
    """Every tensor that the recorded implementation saves, random; its position tables are the fixed ones."""
    text, tower = config["llm_config"], config["vit_config"]
    width, inner, head = text["hidden_size"], text["intermediate_size"], text["hidden_size"]
    head //= text["num_attention_heads"]
    narrow, seen = head * text["num_key_value_heads"], tower["hidden_size"]
    channels, patch = config["vae_config"]["z_channels"], tower["patch_size"]
    grid = tower["image_size"] // patch
    out: dict[str, Tensor] = {}

    def matrix(name: str, rows: int, columns: int, bias: bool = True) -> None:
        out[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) / columns**0.5
        if bias:
            out[f"{name}.bias"] = 0.2 * torch.randn(rows, generator=generator)

    def scale(name: str, size: int, bias: bool = False) -> None:
        out[f"{name}.weight"] = 1 + 0.3 * torch.randn(size, generator=generator)
        if bias:
            out[f"{name}.bias"] = 0.2 * torch.randn(size, generator=generator)

    model = "language_model.model."
    out[f"{model}embed_tokens.weight"] = torch.randn(text["vocab_size"], width, generator=generator)
    matrix("language_model.lm_head", text["vocab_size"], width, bias=False)
    out["language_model.lm_head.weight"] *= 2
    for suffix in ("", "_moe_gen"):
        scale(f"{model}norm{suffix}", width)
        for index in range(text["num_hidden_layers"]):
            layer = f"{model}layers.{index}."
            for name, rows in (("q", width), ("k", narrow), ("v", narrow)):
                matrix(f"{layer}self_attn.{name}_proj{suffix}", rows, width)
            matrix(f"{layer}self_attn.o_proj{suffix}", width, width, bias=False)
            for name in ("gate", "up"):
                matrix(f"{layer}mlp{suffix}.{name}_proj", inner, width, bias=False)
            matrix(f"{layer}mlp{suffix}.down_proj", width, inner, bias=False)
            for name in ("q", "k"):
                scale(f"{layer}self_attn.{name}_norm{suffix}", head)
            for name in ("input", "post_attention"):
                scale(f"{layer}{name}_layernorm{suffix}", width)
    matrix("time_embedder.mlp.0", width, 256)
    matrix("time_embedder.mlp.2", width, width)
    matrix("vae2llm", width, channels)
    matrix("llm2vae", channels, width)
    first, second = config.get("connector_names", ("fc1", "fc2"))
    matrix(f"connector.{first}", width, seen)
    matrix(f"connector.{second}", width, width)
    eye = "vit_model.vision_tower."
    matrix(f"{eye}patch_embed.proj", seen, 3 * patch**2)
    out[f"{eye}patch_embed.proj.weight"] = out[f"{eye}patch_embed.proj.weight"].reshape(seen, 3, patch, patch)
    out[f"{eye}pos_embed"] = 0.1 * torch.randn(1, grid**2, seen, generator=generator)
    scale(f"{eye}norm", seen, bias=True)
    for index in range(tower["num_hidden_layers"]):
        block = f"{eye}blocks.{index}."
        scale(f"{block}norm1", seen, bias=True)
        scale(f"{block}norm2", seen, bias=True)
        matrix(f"{block}attn.qkv", 3 * seen, seen)
        matrix(f"{block}attn.proj", seen, seen)
        matrix(f"{block}mlp.fc1", tower["intermediate_size"], seen)
        matrix(f"{block}mlp.fc2", seen, tower["intermediate_size"])
    matrix(f"{eye}attn_pool.q", seen, seen)
    for name, side in (("latent_pos_embed", config["max_latent_size"]), ("vit_pos_embed", grid)):
        out[f"{name}.pos_embed"] = _table(side, width)
    return out


def _table(side: int, width: int) -> Tensor:
    """Of each place, row-major: sines and cosines of its column, then of its row."""
    frequency = torch.exp(-torch.arange(width // 4).double() * (4 / width) * torch.log(torch.tensor(1e4).double()))
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double()
    waves = [wave(place[:, None] * frequency) for place in places.T.flip(0) for wave in (torch.sin, torch.cos)]
    return torch.cat(waves, dim=1).float()
