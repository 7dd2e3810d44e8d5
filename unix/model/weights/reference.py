"""The released UniX checkpoint's layout: its configuration and tensor names, in and out.

Tensors that the reference carries but never computes with (the tower's pooling head, an unused position table) and the
fixed sin-cos table of the latents have no counterpart here; they travel beside ours, so that a round trip is exact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unix.errors import WeightsError
from unix.model.alignment import AlignmentProjector
from unix.model.dual_branch import DecoderConfig, DualBranch, LatentConfig, ModelConfig, SpecialTokens
from unix.model.layers import position_table
from unix.model.vision import VisionConfig
from unix.model.weights.mapping import Rule, export_tensors, import_tensors
from unix.model.weights.native import load_tensors

UNUSED = ("vit_pos_embed.", "vit_model.vision_tower.attn_pool.")
"""Prefixes of tensors that the reference builds and never uses."""

LATENT_TABLE = "latent_pos_embed.pos_embed"
PROJECTOR = "language_model.model.repa_loss_fn.projectors.0.mlp."
"""Where the alignment projector stands, in checkpoints written after the first alignment loss."""


@dataclass(frozen=True)
class ReferenceExtras:
    """What a reference checkpoint holds beyond our tensors."""

    tensors: Mapping[str, Tensor]
    """Unused tensors, the fixed latent table, the alignment projector, under the reference's names."""
    connector_layers: bool
    """Whether the connector is called `connector.layers.{0,2}` (the published file) or `connector.fc{1,2}`."""


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """Our configuration for a reference `config.json`.

    Raises:
        WeightsError: a key is missing, or says something that this model does not do.
    """
    try:
        decoder, vision = values["llm_config"], values["vit_config"]
        for key, wanted in (("qk_norm", True), ("tie_word_embeddings", False), ("hidden_act", "silu")):
            if decoder[key] != wanted:
                raise WeightsError(f"llm_config.{key} is {decoder[key]!r}; only {wanted!r} is supported")
        for key, wanted in (("latent_patch_size", 1), ("interpolate_pos", False)):
            if values.get(key, wanted) != wanted:
                raise WeightsError(f"{key} is {values[key]!r}; only {wanted!r} is supported")
        special = values.get("special_token_ids", {})
        return ModelConfig(
            decoder=DecoderConfig(
                vocabulary_size=decoder["vocab_size"],
                hidden_size=decoder["hidden_size"],
                intermediate_size=decoder["intermediate_size"],
                num_layers=decoder["num_hidden_layers"],
                num_heads=decoder["num_attention_heads"],
                num_key_value_heads=decoder["num_key_value_heads"],
                rotary_theta=decoder["rope_theta"],
                norm_epsilon=decoder["rms_norm_eps"],
            ),
            vision=VisionConfig(
                image_size=vision["image_size"],
                patch_size=vision["patch_size"],
                hidden_size=vision["hidden_size"],
                intermediate_size=vision["intermediate_size"],
                num_layers=vision["num_hidden_layers"],
                num_heads=vision["num_attention_heads"],
                layer_norm_epsilon=vision.get("layer_norm_eps", 1e-6),
                activation="erf",
            ),
            latent=LatentConfig(channels=values["vae_config"]["z_channels"], max_side=values["max_latent_size"]),
            tokens=SpecialTokens(
                bos=special.get("bos_token_id", 100_000),
                eos=special.get("eos_token_id", 100_001),
                boi=special.get("start_of_image", 100_003),
                eoi=special.get("end_of_image", 100_580),
            ),
            connector_activation="tanh" if "tanh" in values["connector_act"] else "erf",
        )
    except KeyError as error:
        raise WeightsError(f"the reference configuration has no {error.args[0]!r}") from error


def reference_config(config: ModelConfig) -> dict[str, Any]:
    """A reference `config.json` of our configuration; `model_config` reads it back as it was.

    Raises:
        WeightsError: the reference cannot do what the configuration says.
    """
    decoder, vision, latent = config.decoder, config.vision, config.latent
    if vision.stem_channels or vision.activation != "erf" or latent.positions != "corner":
        raise WeightsError(
            "the reference knows no convolutional stem, no tanh GELU in its tower and no interpolated positions; "
            "this model's configuration has one of them"
        )
    return {
        "model_type": "unix",
        "latent_patch_size": 1,
        "max_latent_size": latent.max_side,
        "vit_max_num_patch_per_side": vision.image_size // vision.patch_size,
        "connector_act": "gelu_pytorch_tanh" if config.connector_activation == "tanh" else "gelu",
        "llm_config": {
            "model_type": "qwen2",
            "hidden_size": decoder.hidden_size,
            "intermediate_size": decoder.intermediate_size,
            "num_hidden_layers": decoder.num_layers,
            "num_attention_heads": decoder.num_heads,
            "num_key_value_heads": decoder.num_key_value_heads,
            "vocab_size": decoder.vocabulary_size,
            "rms_norm_eps": decoder.norm_epsilon,
            "rope_theta": decoder.rotary_theta,
            "hidden_act": "silu",
            "qk_norm": True,
            "tie_word_embeddings": False,
        },
        "vit_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": vision.hidden_size,
            "image_size": vision.image_size,
            "intermediate_size": vision.intermediate_size,
            "num_attention_heads": vision.num_heads,
            "num_hidden_layers": vision.num_layers,
            "patch_size": vision.patch_size,
            "layer_norm_eps": vision.layer_norm_epsilon,
        },
        "vae_config": {"downsample": 16, "z_channels": latent.channels},
        "special_token_ids": {
            "bos_token_id": config.tokens.bos,
            "eos_token_id": config.tokens.eos,
            "start_of_image": config.tokens.boi,
            "end_of_image": config.tokens.eoi,
        },
    }


def load_reference(model: DualBranch, tensors: Mapping[str, Tensor], origin: str) -> ReferenceExtras:
    """Copy a reference checkpoint into `model`; returns what has no place there.

    Raises:
        WeightsError: a tensor is missing, misshapen or unknown, or the latents' position table is not the fixed one.
    """
    ours, extras = import_reference(model.config, tensors, origin)
    load_tensors(model, ours, origin)
    return extras


def import_reference(
    config: ModelConfig, tensors: Mapping[str, Tensor], origin: str
) -> tuple[Mapping[str, Tensor], ReferenceExtras]:
    """A reference checkpoint under our names, read when asked for, and what has no place there.

    Raises:
        WeightsError: a tensor is missing or unknown, or the latents' position table is not the fixed one.
    """
    connector_layers = "connector.layers.0.weight" in tensors
    ours, rest = import_tensors(list(rules(config, connector_layers)), tensors, origin)
    unknown = [name for name in rest if not name.startswith((*UNUSED, LATENT_TABLE, PROJECTOR))]
    if unknown:
        raise WeightsError(f"{origin}: unexpected {', '.join(unknown[:5])} ({len(unknown)} in all)")
    if LATENT_TABLE in rest:
        side = config.latent.max_side
        table = position_table(side, side, config.decoder.hidden_size)
        given = rest[LATENT_TABLE]
        if given.shape != table.shape or (given.float() - table).abs().max() > 1e-2:
            raise WeightsError(
                f"{origin}: {LATENT_TABLE} {list(given.shape)} is not the fixed sin-cos table of {side}^2"
            )
    return ours, ReferenceExtras(rest, connector_layers)


def export_reference(model: DualBranch, extras: ReferenceExtras) -> dict[str, Tensor]:
    """The model under the reference's names, with the extras."""
    return {**to_reference(model.config, model.state_dict(), extras.connector_layers), **extras.tensors}


def to_reference(
    config: ModelConfig, ours: Mapping[str, Tensor], connector_layers: bool = False
) -> Mapping[str, Tensor]:
    """Tensors named and shaped as our parameters (weights or gradients) under the reference's names."""
    return export_tensors(list(rules(config, connector_layers)), ours)


def load_projector(tensors: Mapping[str, Tensor], prefix: str = PROJECTOR) -> AlignmentProjector:
    """The alignment projector out of a reference checkpoint."""
    ours, _ = import_tensors(_projector_rules(prefix), tensors, "alignment projector")
    hidden, width = ours["first.weight"].shape
    projector = AlignmentProjector(width, hidden, len(ours["third.weight"]))
    load_tensors(projector, ours, "alignment projector")
    return projector


def export_projector(ours: Mapping[str, Tensor], prefix: str = PROJECTOR) -> Mapping[str, Tensor]:
    """Tensors named as an `AlignmentProjector`'s parameters under the reference's names."""
    return export_tensors(_projector_rules(prefix), ours)


def _projector_rules(prefix: str) -> list[Rule]:
    layers = (("first", 0), ("second", 2), ("third", 4))
    return [rule for ours, index in layers for rule in _linear(ours, f"{prefix}{index}")]


def rules(config: ModelConfig, connector_layers: bool = False) -> Iterator[Rule]:
    """Every tensor of our model and its reference name."""
    for ours, theirs in (
        ("embedding.weight", "language_model.model.embed_tokens.weight"),
        ("head.weight", "language_model.lm_head.weight"),
        ("understanding_norm.weight", "language_model.model.norm.weight"),
        ("generation_norm.weight", "language_model.model.norm_moe_gen.weight"),
    ):
        yield Rule(ours, theirs)
    for ours, theirs in (
        ("time_embedding.first", "time_embedder.mlp.0"),
        ("time_embedding.second", "time_embedder.mlp.2"),
    ):
        yield from _linear(ours, theirs)
    yield from _linear("latent_in", "vae2llm")
    yield from _linear("latent_out", "llm2vae")
    first, second = ("layers.0", "layers.2") if connector_layers else ("fc1", "fc2")
    yield from _linear("connector.first", f"connector.{first}")
    yield from _linear("connector.second", f"connector.{second}")
    for index in range(config.decoder.num_layers):
        for branch, suffix in (("understanding", ""), ("generation", "_moe_gen")):
            yield from _layer(f"layers.{index}.{branch}.", f"language_model.model.layers.{index}.", suffix)
    yield from tower_rules(config.vision, "vit_model.vision_tower.")


def _layer(ours: str, theirs: str, suffix: str) -> Iterator[Rule]:
    for name, foreign in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        yield from _linear(f"{ours}{name}", f"{theirs}self_attn.{foreign}{suffix}")
    for name, foreign in (
        ("output", f"self_attn.o_proj{suffix}"),
        ("query_norm", f"self_attn.q_norm{suffix}"),
        ("key_norm", f"self_attn.k_norm{suffix}"),
        ("attention_norm", f"input_layernorm{suffix}"),
        ("mlp_norm", f"post_attention_layernorm{suffix}"),
        ("mlp.gate", f"mlp{suffix}.gate_proj"),
        ("mlp.up", f"mlp{suffix}.up_proj"),
        ("mlp.down", f"mlp{suffix}.down_proj"),
    ):
        yield Rule(f"{ours}{name}.weight", f"{theirs}{foreign}.weight")


def tower_rules(config: VisionConfig, theirs: str) -> Iterator[Rule]:
    """The tower's tensors, which timm's names follow after `theirs`."""
    ours = "vision.siglip."
    yield Rule(f"{ours}embeddings.position_embedding.weight", f"{theirs}pos_embed", leading=1)
    yield from _linear(f"{ours}embeddings.patch_embedding", f"{theirs}patch_embed.proj")
    yield from _linear(f"{ours}post_layernorm", f"{theirs}norm")
    for index in range(config.num_layers):
        layer, block = f"{ours}encoder.layers.{index}.", f"{theirs}blocks.{index}."
        for part, name in enumerate(("q_proj", "k_proj", "v_proj")):
            for kind in ("weight", "bias"):
                yield Rule(f"{layer}self_attn.{name}.{kind}", f"{block}attn.qkv.{kind}", third=part)
        for name, foreign in (
            ("self_attn.out_proj", "attn.proj"),
            ("layer_norm1", "norm1"),
            ("layer_norm2", "norm2"),
            ("mlp.fc1", "mlp.fc1"),
            ("mlp.fc2", "mlp.fc2"),
        ):
            yield from _linear(f"{layer}{name}", f"{block}{foreign}")


def _linear(ours: str, theirs: str) -> Iterator[Rule]:
    for kind in ("weight", "bias"):
        yield Rule(f"{ours}.{kind}", f"{theirs}.{kind}")
