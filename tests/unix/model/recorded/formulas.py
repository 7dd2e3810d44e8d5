"""The recorded implementation's mathematics over again: float64, slow, and unlike ours wherever it can be.

All samples are one packed sequence under one dense mask; each row's weights are gathered by branch and its results put
back; weights keep their foreign names; gradients are torch's own. Freezing the understanding branch is the recorded
implementation's way: detached values, so that its weights get zeros.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Packed:
    """Samples one after another: L rows in all."""

    position_L: Tensor
    is_latent_L: Tensor
    attend_LL: Tensor
    """Boolean, [query, key]."""


@dataclass(frozen=True)
class States:
    """What the decoder computed, each [L, H]."""

    after_layer: list[Tensor]
    final: Tensor


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    bias = weights.get(f"{name}.bias")
    out = x @ weights[f"{name}.weight"].T
    return out if bias is None else out + bias


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * x / (x.pow(2).sum(-1, keepdim=True) / x.shape[-1] + epsilon).sqrt()


def attention(query_HLD: Tensor, key_HLD: Tensor, value_HLD: Tensor, attend_LL: Tensor | None) -> Tensor:
    """[H, L, D] each (fewer heads of keys and values are shared by neighbours) -> [L, H * D]."""
    heads = []
    for index, query in enumerate(query_HLD):
        shared = index * len(key_HLD) // len(query_HLD)
        score = query @ key_HLD[shared].T / query.shape[-1] ** 0.5
        if attend_LL is not None:
            score = torch.where(attend_LL, score, -torch.inf)
        heads.append(torch.softmax(score, dim=-1) @ value_HLD[shared])
    return torch.cat(heads, dim=-1)


def rotate(x_LHD: Tensor, position_L: Tensor, theta: float) -> Tensor:
    """Pairs (i, i + D / 2) turned as complex numbers."""
    half = x_LHD.shape[-1] // 2
    angle = position_L[:, None].double() / theta ** (torch.arange(half).double() / half)
    turned = torch.complex(x_LHD[..., :half], x_LHD[..., half:]) * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.cat([turned.real, turned.imag], dim=-1)


class Formulas:
    """The model of a reference `config.json` with float64 `weights`."""

    def __init__(self, config: Mapping[str, Any], weights: Weights) -> None:
        self.config, self.weights = config, weights
        self.decoder, self.tower = config["llm_config"], config["vit_config"]
        self.head_width = self.decoder["hidden_size"] // self.decoder["num_attention_heads"]

    # Reading

    def see(self, images: Tensor) -> Tensor:
        """[N, 3, S, S] -> [N, T, tower width]."""
        w, patch = self.weights, self.tower["patch_size"]
        name = "vit_model.vision_tower."
        patches = functional.unfold(images, patch, stride=patch).transpose(1, 2)
        x = patches @ w[f"{name}patch_embed.proj.weight"].flatten(1).T + w[f"{name}patch_embed.proj.bias"]
        x = x + w[f"{name}pos_embed"]
        for index in range(self.tower["num_hidden_layers"]):
            block = f"{name}blocks.{index}."
            x = torch.stack([self._block(block, image) for image in x])
        return self._layer_norm(f"{name}norm", x)

    def _block(self, name: str, x: Tensor) -> Tensor:
        heads = self.tower["num_attention_heads"]
        qkv = linear(self.weights, f"{name}attn.qkv", self._layer_norm(f"{name}norm1", x))
        query, key, value = qkv.reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)
        x = x + linear(self.weights, f"{name}attn.proj", attention(query, key, value, None))
        inner = linear(self.weights, f"{name}mlp.fc1", self._layer_norm(f"{name}norm2", x))
        inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        return x + linear(self.weights, f"{name}mlp.fc2", inner)

    def _layer_norm(self, name: str, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.pow(2).mean(-1, keepdim=True) + self.tower["layer_norm_eps"]).sqrt()
        return scaled * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def connect(self, seen: Tensor) -> Tensor:
        """Tower tokens -> decoder tokens."""
        first, second = ("fc1", "fc2") if "connector.fc1.weight" in self.weights else ("layers.0", "layers.2")
        inner = linear(self.weights, f"connector.{first}", seen)
        if "tanh" in self.config["connector_act"]:
            inner = inner / 2 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner.pow(3))))
        else:
            inner = inner / 2 * (1 + torch.erf(inner / 2**0.5))
        return linear(self.weights, f"connector.{second}", inner)

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids -> decoder tokens."""
        return (
            functional.one_hot(ids, self.decoder["vocab_size"]).double()
            @ self.weights["language_model.model.embed_tokens.weight"]
        )

    def logits(self, final: Tensor) -> Tensor:
        """Of the next token."""
        return linear(self.weights, "language_model.lm_head", final)

    # Drawing

    def time_embedding(self, time: Tensor) -> Tensor:
        """[n] -> [n, H]."""
        angle = time[:, None] * torch.exp(-torch.log(torch.tensor(1e4).double()) * torch.arange(128).double() / 128)
        inner = linear(self.weights, "time_embedder.mlp.0", torch.cat([torch.cos(angle), torch.sin(angle)], dim=1))
        return linear(self.weights, "time_embedder.mlp.2", inner * torch.sigmoid(inner))

    def latent_input(self, x_t: Tensor, time: Tensor, place: Tensor) -> Tensor:
        """Noised tokens [n, C], each with its time and place in the table -> [n, H]."""
        table = self.weights["latent_pos_embed.pos_embed"]
        return linear(self.weights, "vae2llm", x_t) + self.time_embedding(time) + table[place]

    def velocity(self, final: Tensor) -> Tensor:
        """Of latent tokens."""
        return linear(self.weights, "llm2vae", final)

    # Both

    def decode(self, rows_LH: Tensor, packed: Packed, freeze: bool = False) -> States:
        """Every decoder layer over the packed rows."""
        drawn = packed.is_latent_L.nonzero()[:, 0]
        read = (~packed.is_latent_L).nonzero()[:, 0]

        def each(of: Callable[[Tensor, str], Tensor], x: Tensor) -> Tensor:
            """`of` with each branch's weights on its own rows."""
            parts = [of(x[read], ""), of(x[drawn], "_moe_gen")]
            if freeze:
                parts[0] = parts[0].detach()
            out = torch.zeros(len(x), *parts[0].shape[1:], dtype=x.dtype)
            return out.index_copy(0, read, parts[0]).index_copy(0, drawn, parts[1])

        rows_LH = each(lambda x, _: x, rows_LH)
        epsilon, theta, width = self.decoder["rms_norm_eps"], self.decoder["rope_theta"], self.head_width
        w, states = self.weights, []
        for index in range(self.decoder["num_hidden_layers"]):
            layer = f"language_model.model.layers.{index}."

            def norm(name: str, x: Tensor, suffix: str, layer: str = layer) -> Tensor:
                return rms_norm(x, w[f"{layer}{name}{suffix}.weight"], epsilon)

            def heads(name: str, x: Tensor, suffix: str, layer: str = layer) -> Tensor:
                x = norm("input_layernorm", x, suffix)
                out = linear(w, f"{layer}self_attn.{name}_proj{suffix}", x).unflatten(1, (-1, width))
                return out if name == "v" else norm(f"self_attn.{name}_norm", out, suffix)

            def project(x: Tensor, suffix: str, layer: str = layer) -> Tensor:
                return linear(w, f"{layer}self_attn.o_proj{suffix}", x)

            def mlp(x: Tensor, suffix: str, layer: str = layer) -> Tensor:
                x = norm("post_attention_layernorm", x, suffix)
                gate = linear(w, f"{layer}mlp{suffix}.gate_proj", x)
                inner = gate * torch.sigmoid(gate) * linear(w, f"{layer}mlp{suffix}.up_proj", x)
                return linear(w, f"{layer}mlp{suffix}.down_proj", inner)

            query, key, value = (
                each(lambda x, suffix, name=name: heads(name, x, suffix), rows_LH) for name in ("q", "k", "v")
            )
            query, key = (rotate(x, packed.position_L, theta) for x in (query, key))
            mixed = attention(*(x.transpose(0, 1) for x in (query, key, value)), packed.attend_LL)
            rows_LH = rows_LH + each(project, mixed)
            rows_LH = rows_LH + each(mlp, rows_LH)
            states.append(rows_LH)
        final = each(lambda x, suffix: rms_norm(x, w[f"language_model.model.norm{suffix}.weight"], epsilon), rows_LH)
        return States(states, final)


def alignment(weights: Weights, features_NTH: Tensor, target_NSZ: Tensor) -> Tensor:
    """The recorded REPA loss, its mistakes included; `weights` are of `projector.0.mlp.*`."""
    x = features_NTH
    for index in (0, 2, 4):
        x = linear(weights, f"projector.0.mlp.{index}", x)
        x = x if index == 4 else x * torch.sigmoid(x)
    x = x / x.norm(dim=-1, keepdim=True)
    count, wanted = x.shape[1], target_NSZ.shape[1]
    if count != wanted:
        place = ((torch.arange(wanted).double() + 0.5) * count / wanted - 0.5).clamp(0, count - 1)
        before = place.floor().long()
        share = (place - before)[:, None]
        x = x[:, before] * (1 - share) + x[:, (before + 1).clamp_max(count - 1)] * share
    cosine = (x * target_NSZ / target_NSZ.norm(dim=-1, keepdim=True)).sum(-1)
    return -cosine.mean(1).sum() / len(x) / len(x)


def guided(with_caption: Tensor, without: Tensor | None, values: Mapping[str, Any]) -> Tensor:
    """The sampler's velocity [tokens, C] from its two passes; `without` is None outside the interval."""
    if without is None:
        return with_caption
    floor, kind = values["cfg_renorm_min"], values["cfg_renorm_type"]

    def shrink(velocity: Tensor, whole: bool) -> Tensor:
        sizes = [v.norm() if whole else v.norm(dim=-1, keepdim=True) for v in (with_caption, velocity)]
        return velocity * (sizes[0] / (sizes[1] + 1e-8)).clamp(min=floor, max=1.0)

    velocity = without + values["cfg_text_scale"] * (with_caption - without)
    if kind == "text_channel":
        velocity = shrink(velocity, whole=False)
    if values["cfg_img_scale"] > 1:
        velocity = with_caption + values["cfg_img_scale"] * (velocity - with_caption)
    return velocity if kind == "text_channel" else shrink(velocity, whole=kind == "global")
