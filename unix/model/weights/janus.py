"""Janus-Pro as the start of stage 1: deepseek-ai's own layout and transformers', read only.

Tower, aligner and language model become vision tower, connector and understanding branch. Janus' own way of drawing
(`gen_*`, `vqmodel`, `generation_*`) is left aside. What UniX has and Janus has not is made here: QK-norm weights of
one, which nevertheless normalise, so logits change; QKV biases of zero; the generation branch as a copy of the
understanding branch, with fresh latent projections.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from unix.errors import WeightsError
from unix.model.dual_branch import DecoderConfig, LatentConfig, ModelConfig, SpecialTokens
from unix.model.initialisation import initialise
from unix.model.layers import TimeEmbedding
from unix.model.vision import VisionConfig
from unix.model.weights.mapping import Computed, Rule, import_tensors
from unix.model.weights.reference import tower_rules
from unix.model.weights.tensors import TensorSource

UNUSED = (
    "vision_model.vision_tower.attn_pool.",
    "gen_vision_model.",
    "gen_aligner.",
    "gen_head.",
    "gen_embed.",
    "model.vqmodel.",
    "model.generation_",
)
"""Prefixes of tensors that have no use here: the tower's pooling head, and Janus' drawing."""

_TOWER_HEADS = {"siglip_large_patch16_384": 16, "siglip_so400m_patch14_384": 16, "siglip_base_patch16_256": 12}
"""Attention heads of the towers that deepseek-ai's configurations know by name alone."""


def is_deepseek(names: Mapping[str, Any]) -> bool:
    """Whether tensors are named as deepseek-ai does, rather than transformers."""
    return "language_model.lm_head.weight" in names


def model_config(values: Mapping[str, Any], source: TensorSource, tokens: SpecialTokens) -> ModelConfig:
    """Our configuration for a Janus `config.json`; sizes are read off the tensors.

    Raises:
        WeightsError: a tensor that tells a size is missing, or the configuration lacks the number of heads.
    """
    deepseek = is_deepseek(source.shapes)
    text = values.get("language_config" if deepseek else "text_config", {})
    tower = values.get("vision_config", {})
    names = _Names(deepseek)
    try:
        vocabulary, width = source.shapes[names.embedding]
        intermediate, _ = source.shapes[f"{names.layer}0.mlp.gate_proj.weight"]
        keys, _ = source.shapes[f"{names.layer}0.self_attn.k_proj.weight"]
        tower_width, _, patch, _ = source.shapes[names.patches]
        positions = source.shapes[names.positions][-2]
        tower_intermediate, _ = source.shapes[names.tower_mlp]
        heads = int(text["num_attention_heads"])
    except KeyError as error:
        raise WeightsError(f"{source.origin}: no {error.args[0]!r}; is this Janus-Pro with its config.json?") from error
    tower_name = tower.get("params", {}).get("model_name")
    theta = text.get("rope_theta", (text.get("rope_parameters") or {}).get("rope_theta", 10_000.0))
    return ModelConfig(
        decoder=DecoderConfig(
            vocabulary_size=vocabulary,
            hidden_size=width,
            intermediate_size=intermediate,
            num_layers=_count(source, names.layer),
            num_heads=heads,
            num_key_value_heads=keys * heads // width,
            rotary_theta=theta,
            norm_epsilon=text.get("rms_norm_eps", 1e-6),
        ),
        vision=VisionConfig(
            image_size=isqrt(positions) * patch,
            patch_size=patch,
            hidden_size=tower_width,
            intermediate_size=tower_intermediate,
            num_layers=_count(source, names.tower_layer),
            num_heads=tower.get("num_attention_heads") or _TOWER_HEADS.get(tower_name, max(1, tower_width // 64)),
        ),
        latent=LatentConfig(),
        tokens=tokens,
    )


def is_tied(values: Mapping[str, Any], names: Mapping[str, Any]) -> bool:
    """Whether the head is the embedding: it is not there, and the configuration says so."""
    there = not {"lm_head.weight", "language_model.lm_head.weight"}.isdisjoint(names)
    return not there and bool(values.get("tie_word_embeddings"))


def import_janus(
    config: ModelConfig, source: TensorSource, seed: int, tied: bool = False
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Our model's tensors, read or made when asked for, and the names of those that Janus does not have.

    Raises:
        WeightsError: a tensor is missing or unknown.
    """
    ours, rest = import_tensors(list(rules(config, is_deepseek(source.shapes), tied)), source, source.origin)
    unknown = [name for name in rest if not name.startswith(UNUSED)]
    if unknown:
        raise WeightsError(f"{source.origin}: unexpected {', '.join(unknown[:5])} ({len(unknown)} in all)")
    dtype = ours["understanding_norm.weight"].dtype
    made = {name: value.to(dtype) for name, value in _new(config, seed).items()}
    functions: dict[str, Callable[[], Tensor]] = {name: partial(ours.__getitem__, name) for name in ours}
    functions |= {name: partial(made.__getitem__, name) for name in made}
    for name in [name for name in functions if ".understanding." in name or name == "understanding_norm.weight"]:
        functions[name.replace("understanding", "generation")] = functions[name]
    new = tuple(name for name in functions if name not in ours)
    return Computed(functions), new


def rules(config: ModelConfig, deepseek: bool, tied: bool = False) -> Iterator[Rule]:
    """Every tensor of ours that Janus has, and its name there; `tied`: the embedding is the head as well."""
    names = _Names(deepseek)
    yield Rule("embedding.weight", names.embedding)
    yield Rule("head.weight", names.embedding if tied else names.head)
    yield Rule("understanding_norm.weight", names.norm)
    for ours, theirs in (("connector.first", names.aligner[0]), ("connector.second", names.aligner[1])):
        for kind in ("weight", "bias"):
            yield Rule(f"{ours}.{kind}", f"{theirs}.{kind}")
    for index in range(config.decoder.num_layers):
        for name, foreign in _LAYER.items():
            yield Rule(f"layers.{index}.understanding.{name}.weight", f"{names.layer}{index}.{foreign}.weight")
    if deepseek:
        yield from tower_rules(config.vision, "vision_model.vision_tower.")
    else:
        yield from _transformers_tower(config.vision)


_LAYER = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}


class _Names:
    """Where the two layouts put things."""

    def __init__(self, deepseek: bool) -> None:
        decoder = "language_model.model." if deepseek else "model.language_model."
        tower = "vision_model.vision_tower." if deepseek else "model.vision_model."
        self.embedding = f"{decoder}embed_tokens.weight"
        self.norm = f"{decoder}norm.weight"
        self.layer = f"{decoder}layers."
        self.head = "language_model.lm_head.weight" if deepseek else "lm_head.weight"
        self.aligner = (
            ("aligner.layers.0", "aligner.layers.2")
            if deepseek
            else ("model.aligner.fc1", "model.aligner.hidden_layers.0")
        )
        self.tower_layer = f"{tower}blocks." if deepseek else f"{tower}encoder.layers."
        self.tower_mlp = f"{self.tower_layer}0.mlp.fc1.weight"
        self.patches = f"{tower}patch_embed.proj.weight" if deepseek else f"{tower}embeddings.patch_embedding.weight"
        self.positions = f"{tower}pos_embed" if deepseek else f"{tower}embeddings.position_embedding.weight"


def _transformers_tower(config: VisionConfig) -> Iterator[Rule]:
    """SigLIP's own names, but for the attention's output projection."""
    ours, theirs = "vision.siglip.", "model.vision_model."
    yield Rule(f"{ours}embeddings.position_embedding.weight", f"{theirs}embeddings.position_embedding.weight")
    modules = [("embeddings.patch_embedding",) * 2, ("post_layernorm",) * 2]
    for index in range(config.num_layers):
        layer = f"encoder.layers.{index}."
        same = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "layer_norm1", "layer_norm2")
        modules += [(layer + name, layer + name) for name in (*same, "mlp.fc1", "mlp.fc2")]
        modules.append((f"{layer}self_attn.out_proj", f"{layer}self_attn.projection_layer"))
    for name, foreign in modules:
        for kind in ("weight", "bias"):
            yield Rule(f"{ours}{name}.{kind}", f"{theirs}{foreign}.{kind}")


def _new(config: ModelConfig, seed: int) -> dict[str, Tensor]:
    """What Janus does not have and no copy can give, the same for the same seed."""
    decoder, width = config.decoder, config.decoder.hidden_size
    head_width = width // decoder.num_heads
    made: dict[str, Tensor] = {}
    for index in range(decoder.num_layers):
        layer = f"layers.{index}.understanding."
        made |= {f"{layer}{name}_norm.weight": torch.ones(head_width) for name in ("query", "key")}
        made[f"{layer}query.bias"] = torch.zeros(width)
        made |= {f"{layer}{name}.bias": torch.zeros(decoder.num_key_value_heads * head_width) for name in _KEY_VALUE}
    fresh = nn.ModuleDict(
        {
            "time_embedding": TimeEmbedding(width),
            "latent_in": nn.Linear(config.latent.channels, width),
            "latent_out": nn.Linear(width, config.latent.channels),
        }
    )
    initialise(fresh, torch.Generator().manual_seed(seed), decoder.initial_deviation)
    nn.init.zeros_(fresh["latent_out"].weight)  # pyright: ignore[reportArgumentType]
    return made | {name: value.detach() for name, value in fresh.state_dict().items()}


_KEY_VALUE = ("key", "value")


def _count(source: TensorSource, prefix: str) -> int:
    """Layers are numbered from 0."""
    numbers = (re.match(rf"{re.escape(prefix)}(\d+)\.", name) for name in source.shapes)
    return 1 + max(int(match[1]) for match in numbers if match)
