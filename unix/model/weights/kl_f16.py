"""CompVis' latent-diffusion autoencoder (kl-f16): its configuration and tensor names, in and out of our `KLF16`."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from unix.errors import WeightsError
from unix.model.latent import KLF16, KLF16Config
from unix.model.weights.mapping import Rule, export_tensors, import_tensors
from unix.model.weights.native import load_tensors

IGNORED_PREFIX = "loss."
"""The training loss' own networks, which some files carry."""

_RESIDUAL = {"norm1": "norm1", "conv1": "conv1", "norm2": "norm2", "conv2": "conv2", "nin_shortcut": "conv_shortcut"}
_ATTENTION = {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
"""CompVis name -> diffusers name; the attention's are 1x1 convolutions there and linear layers here."""


def codec_config(values: Mapping[str, Any]) -> KLF16Config:
    """Our configuration for CompVis' `ddconfig`, `embed_dim` (and UniX's scale and shift, where given).

    Raises:
        WeightsError: a key is missing, or says something that this codec does not do.
    """
    try:
        shape = values["ddconfig"]
        if not shape["double_z"] or values["embed_dim"] != shape["z_channels"]:
            raise WeightsError(
                f"double_z {shape['double_z']}, embed_dim {values['embed_dim']}, z_channels {shape['z_channels']}: "
                "only double_z with embed_dim = z_channels is supported"
            )
        multipliers = tuple(shape["ch_mult"])
        resolutions = [shape["resolution"] // 2**level for level in range(len(multipliers))]
        defaults = KLF16Config()
        return KLF16Config(
            image_channels=shape["in_channels"],
            base_channels=shape["ch"],
            channel_multipliers=multipliers,
            num_blocks=shape["num_res_blocks"],
            attention_levels=tuple(n for n, size in enumerate(resolutions) if size in shape["attn_resolutions"]),
            latent_channels=shape["z_channels"],
            scale=values.get("scale_factor", defaults.scale),
            shift=values.get("shift_factor", defaults.shift),
        )
    except KeyError as error:
        raise WeightsError(f"the autoencoder's configuration has no {error.args[0]!r}") from error


def load_kl_f16(codec: KLF16, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy CompVis tensors into `codec`; those of the training loss are left aside.

    Raises:
        WeightsError: a tensor is missing, misshapen or unknown.
    """
    ours, rest = import_tensors(list(rules(codec)), tensors, origin)
    unknown = [name for name in rest if not name.startswith(IGNORED_PREFIX)]
    if unknown:
        raise WeightsError(f"{origin}: unexpected {', '.join(unknown[:5])} ({len(unknown)} in all)")
    load_tensors(codec, ours, origin)


def foreign_config(config: KLF16Config) -> dict[str, Any]:
    """CompVis' configuration of ours; `codec_config` reads it back as it was."""
    resolution = 256
    return {
        "model_type": "autoencoder_kl",
        "ddconfig": {
            "double_z": True,
            "z_channels": config.latent_channels,
            "resolution": resolution,
            "in_channels": config.image_channels,
            "out_ch": config.image_channels,
            "ch": config.base_channels,
            "ch_mult": list(config.channel_multipliers),
            "num_res_blocks": config.num_blocks,
            "attn_resolutions": [resolution // 2**level for level in config.attention_levels],
            "dropout": 0.0,
        },
        "embed_dim": config.latent_channels,
        "scale_factor": config.scale,
        "shift_factor": config.shift,
    }


def export_kl_f16(codec: KLF16) -> dict[str, Tensor]:
    """The codec under CompVis' names."""
    return dict(export_tensors(list(rules(codec)), codec.state_dict()))


def rules(codec: KLF16) -> Iterator[Rule]:
    """Every tensor of our codec and its CompVis name."""
    config = codec.config
    assert isinstance(config, KLF16Config)
    levels = len(config.channel_multipliers)
    known = codec.state_dict()
    for rule in _candidates(config, levels):
        if rule.ours in known:
            yield rule


def _candidates(config: KLF16Config, levels: int) -> Iterator[Rule]:
    """All rules that any shape may need: shortcuts, samplers and attention exist at some levels only."""
    for name in ("quant_conv", "post_quant_conv"):
        yield from _module(f"network.{name}", name)
    for side in ("encoder", "decoder"):
        for ours, theirs in (("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")):
            yield from _module(f"network.{side}.{ours}", f"{side}.{theirs}")
        for block in (0, 1):
            yield from _residual(f"network.{side}.mid_block.resnets.{block}", f"{side}.mid.block_{block + 1}")
        yield from _attention(f"network.{side}.mid_block.attentions.0", f"{side}.mid.attn_1")
    for level in range(levels):
        down, up = f"network.encoder.down_blocks.{level}", f"network.decoder.up_blocks.{levels - 1 - level}"
        yield from _module(f"{down}.downsamplers.0.conv", f"encoder.down.{level}.downsample.conv")
        yield from _module(f"{up}.upsamplers.0.conv", f"decoder.up.{level}.upsample.conv")
        for block in range(config.num_blocks + 1):
            for ours, theirs in ((down, f"encoder.down.{level}"), (up, f"decoder.up.{level}")):
                yield from _residual(f"{ours}.resnets.{block}", f"{theirs}.block.{block}")
                yield from _attention(f"{ours}.attentions.{block}", f"{theirs}.attn.{block}")


def _residual(ours: str, theirs: str) -> Iterator[Rule]:
    for foreign, name in _RESIDUAL.items():
        yield from _module(f"{ours}.{name}", f"{theirs}.{foreign}")


def _attention(ours: str, theirs: str) -> Iterator[Rule]:
    yield from _module(f"{ours}.group_norm", f"{theirs}.norm")
    for foreign, name in _ATTENTION.items():
        yield Rule(f"{ours}.{name}.weight", f"{theirs}.{foreign}.weight", trailing=2)
        yield Rule(f"{ours}.{name}.bias", f"{theirs}.{foreign}.bias")


def _module(ours: str, theirs: str) -> Iterator[Rule]:
    for kind in ("weight", "bias"):
        yield Rule(f"{ours}.{kind}", f"{theirs}.{kind}")
