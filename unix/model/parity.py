"""Comparison with another implementation's recorded activations, gradients and samples (`unix parity DIR`).

A folder holds `config.json`, `state_dict.safetensors`, `meta.json` and recordings; its configuration says whether they
are of the model or of its VAE. What we compute from the recorded inputs is laid out as they are and compared.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unix.batch import GenerationBatch
from unix.errors import WeightsError
from unix.model import flow
from unix.model.alignment import alignment_loss
from unix.model.decoding import decode
from unix.model.dual_branch import DualBranch, text_mask
from unix.model.latent import KLF16, sample_posterior
from unix.model.recordings import Recording, generation_batch, pack, tokens, understanding_batch
from unix.model.sampling import SampledStep, SamplerConfig, integrate
from unix.model.weights import kl_f16, reference
from unix.model.weights.native import read_tensors

ACTIVATION_TOLERANCE = (1e-4, 1e-5)
GRADIENT_TOLERANCE = (1e-3, 1e-6)
DECODED_TOLERANCE = (1e-4, 1e-4)
LOSS_TOLERANCE = (1e-4, 0.0)
"""Relative and absolute: |a - b| <= absolute + relative * |recorded|, elementwise."""

_Gradients = Callable[[], dict[str, Tensor]]
"""Gives the model's gradients under the reference's names."""

ALIGNMENT_WEIGHT = 0.5
"""Weight of the alignment loss in the recorded totals."""


@dataclass(frozen=True)
class Quantity:
    """One recorded quantity and how far ours is from it."""

    name: str
    max_abs: float
    max_rel: float
    """Largest |a - b| / |recorded|, over recorded values that are not tiny (1e-3 of the largest or more)."""
    within: bool


def compare(folder: Path) -> list[Quantity]:
    """Compare everything that `folder` holds.

    Raises:
        WeightsError: a file is missing or damaged, the weights do not fit, or a recording has an unknown layout.
    """
    config = _read_json(folder / "config.json")
    tensors = read_tensors(folder / "state_dict.safetensors")
    kind = config.get("model_type")
    try:
        with torch.random.fork_rng(devices=[]):
            if kind == "autoencoder_kl":
                codec = KLF16(kl_f16.codec_config(config))
                kl_f16.load_kl_f16(codec, tensors, str(folder / "state_dict.safetensors"))
                return list(_compare_codec(codec, read_tensors(folder / "vae.safetensors")))
            if kind == "unix":
                model = DualBranch(reference.model_config(config))
                extras = reference.load_reference(model, tensors, str(folder / "state_dict.safetensors"))
                gradients = partial(_reference_gradients, model, extras.connector_layers)
                return list(_compare_model(model, folder, config, _read_json(folder / "meta.json"), gradients))
    except KeyError as error:
        raise WeightsError(f"{folder}: the recordings lack {error.args[0]!r}") from error
    raise WeightsError(f"{folder / 'config.json'}: model_type is {kind!r}, not 'unix' or 'autoencoder_kl'")


def measure(name: str, ours: Tensor, recorded: Tensor, tolerance: tuple[float, float]) -> Quantity:
    """Elementwise comparison of two tensors of the same shape."""
    if ours.shape != recorded.shape:
        return Quantity(f"{name} {list(ours.shape)} against {list(recorded.shape)}", float("inf"), float("inf"), False)
    relative, absolute = tolerance
    ours, recorded = ours.detach().double(), recorded.double()
    difference, size = (ours - recorded).abs(), recorded.abs()
    notable = size >= max(float(size.max()) * 1e-3, 1e-12)
    return Quantity(
        name,
        float(difference.max()),
        float((difference / size.clamp_min(1e-300))[notable].max()) if bool(notable.any()) else 0.0,
        bool((difference <= absolute + relative * size).all()),
    )


# The codec


@torch.no_grad()
def _compare_codec(codec: KLF16, record: Recording) -> Iterator[Quantity]:
    network = codec.network
    yield measure("encoder_out", network.encoder(record["image"]), record["encoder_out"], ACTIVATION_TOLERANCE)
    mean, logvar = codec.moments(record["image"])
    recorded_mean, recorded_logvar = record["moments"].chunk(2, dim=1)
    recorded = torch.cat([recorded_mean, recorded_logvar.clamp(-30, 20)], dim=1)
    yield measure("moments", torch.cat([mean, logvar], dim=1), recorded, ACTIVATION_TOLERANCE)
    yield measure("latent_mode", codec.scaled(mean), record["latent_mode"], ACTIVATION_TOLERANCE)
    sample = codec.scaled(sample_posterior(mean, logvar, record["eps"]))
    yield measure("latent_sample", sample, record["latent_sample"], ACTIVATION_TOLERANCE)
    yield measure("decoded", codec.decode(record["latent_mode"]), record["decoded"], DECODED_TOLERANCE)


# The model


def _compare_model(
    model: DualBranch, folder: Path, config: Mapping[str, Any], meta: Mapping[str, Any], gradients: _Gradients
) -> Iterator[Quantity]:
    stage1 = read_tensors(folder / "stage1.safetensors")
    grads = read_tensors(folder / "stage1_grads.safetensors")
    yield from _named("stage1", _stage1(model, stage1, grads, gradients))
    stage2 = read_tensors(folder / "stage2.safetensors")
    shift = config.get("timestep_shift", 1.0)
    batch = generation_batch(model, stage2, stage2, shift)
    yield from _named("stage2", _stage2_activations(model, stage2, batch))
    grads = read_tensors(folder / "stage2_grads.safetensors")
    yield from _named("stage2", _stage2_gradients(model, stage2, batch, grads, meta["stage2"], gradients))
    dropped = read_tensors(folder / "stage2_drop.safetensors")
    yield from _named("stage2_drop", _stage2_dropped(model, generation_batch(model, stage2, dropped, shift), dropped))
    repa = read_tensors(folder / "repa.safetensors")
    yield from _named("repa", _repa_alone(repa))
    grads = read_tensors(folder / "stage2_repa_grads.safetensors")
    depth = config["repa"]["intermediate_depth"] + 1
    yield from _named("repa", _repa_through_model(model, batch, repa, grads, meta["repa"], depth, gradients))
    yield from _named("infer_und", _decoding(model, read_tensors(folder / "infer_und.safetensors")))
    samples = read_tensors(folder / "infer_gen.safetensors")
    yield from _named("infer_gen", _sampling(model, samples, meta["infer_gen"]["variants"]))


def _stage1(model: DualBranch, record: Recording, grads: Recording, gradients: _Gradients) -> Iterator[Quantity]:
    batch = understanding_batch(model, record)
    with torch.no_grad():
        yield measure("vit_out", model.vision(batch.pixels_BCSS), record["vit_out"], ACTIVATION_TOLERANCE)
        connected = model.encode_images(batch.pixels_BCSS)
        yield measure("connector_out", connected, record["connector_out"], ACTIVATION_TOLERANCE)
        image = model.embed_image(batch.pixels_BCSS)
        num_image, num_text = image.shape[1], batch.text_ids_BL.shape[1]
        lengths = (batch.text_length_B + num_image).tolist()
        hidden = torch.cat([image, model.embedding(batch.text_ids_BL)], dim=1)
        rotary = model.rotary(torch.arange(1, num_text + 1))
        for index, layer in enumerate(model.layers):
            hidden, _ = layer.read(hidden, num_image, rotary, text_mask(num_text, num_image, hidden.device))
            yield measure(f"hidden.{index}", pack(hidden, lengths), record[f"hidden.{index}"], ACTIVATION_TOLERANCE)
        final = pack(model.understanding_norm(hidden), lengths)
        yield measure("final", final, record["final"], ACTIVATION_TOLERANCE)
    model.zero_grad(set_to_none=True)
    output = model.understanding(batch)
    yield measure("logits", output.logits_NV, record["logits"], ACTIVATION_TOLERANCE)
    loss_N = functional.cross_entropy(output.logits_NV, output.targets_N, reduction="none")
    yield measure("ce", loss_N, record["ce"], ACTIVATION_TOLERANCE)
    yield measure("ce_mean", loss_N.mean(), record["ce_mean"], LOSS_TOLERANCE)
    weights = record["ce_loss_weights"]
    reweighted = (loss_N * weights).sum() / weights.sum()
    yield measure("ce_reweighted", reweighted, record["ce_reweighted"], LOSS_TOLERANCE)
    loss_N.mean().backward()
    yield from _compare_gradients(gradients(), grads)


def _stage2_activations(model: DualBranch, record: Recording, batch: GenerationBatch) -> Iterator[Quantity]:
    noised = flow.interpolate(batch.latent_BChw, batch.noise_BChw, batch.time_B)
    target = flow.velocity_target(batch.latent_BChw, batch.noise_BChw)
    num_latents = noised.shape[2] * noised.shape[3]
    with torch.no_grad():
        yield measure("t", batch.time_B.repeat_interleave(num_latents), record["t"], ACTIVATION_TOLERANCE)
        yield measure("x_t", tokens(noised), record["x_t"], ACTIVATION_TOLERANCE)
        yield measure("target", tokens(target), record["target"], ACTIVATION_TOLERANCE)
        time = model.time_embedding(batch.time_B).repeat_interleave(num_latents, dim=0)
        yield measure("time_embed", time, record["time_embed"], ACTIVATION_TOLERANCE)
        entering = model.embed_latents(noised, batch.time_B)
        yield measure("gen_input", entering.flatten(0, 1), record["gen_input"], ACTIVATION_TOLERANCE)
        prefix = model.caption_prefix(batch.caption_ids_BL, batch.caption_length_B)
        for index in range(len(model.layers)):
            captured = model.velocity(noised, batch.time_B, prefix, capture_layer=index + 1).captured_BTE
            assert captured is not None
            yield measure(f"gen_hidden.{index}", captured, record[f"gen_hidden.{index}"], ACTIVATION_TOLERANCE)
        yield from _stage2_hidden(model, record, batch, entering)


def _stage2_hidden(model: DualBranch, record: Recording, batch: GenerationBatch, latents: Tensor) -> Iterator[Quantity]:
    """Every row after each layer: caption, begin of image, latents, end of image of each sample."""
    special, lengths = model.config.tokens, batch.caption_length_B
    caption = model.embedding(batch.caption_ids_BL)
    edges = model.embedding(torch.tensor([special.boi, special.eoi])).expand(len(latents), -1, -1)
    column = torch.arange(caption.shape[1])
    rotary = model.rotary(column - lengths[:, None])
    mask = functional.pad(column < lengths[:, None], (0, 2 + latents.shape[1]), value=True)[:, None, None]
    norm = model.understanding_norm

    def together(caption: Tensor, edges: Tensor, latents: Tensor) -> Tensor:
        rows = [
            torch.cat([caption[n, :length], edges[n, :1], latents[n], edges[n, 1:]])
            for n, length in enumerate(lengths.tolist())
        ]
        return torch.cat(rows)

    for index, layer in enumerate(model.layers):
        caption, kv = layer.read(caption, 0, rotary, None)
        edges, latents = layer.draw(edges, latents, kv, mask, freeze_understanding=True, last=False)
        recorded = record[f"hidden.{index}"]
        yield measure(f"hidden.{index}", together(caption, edges, latents), recorded, ACTIVATION_TOLERANCE)
    final = together(norm(caption), norm(edges), model.generation_norm(latents))
    yield measure("final", final, record["final"], ACTIVATION_TOLERANCE)


def _stage2_gradients(
    model: DualBranch,
    record: Recording,
    batch: GenerationBatch,
    grads: Recording,
    meta: Mapping[str, Any],
    gradients: _Gradients,
) -> Iterator[Quantity]:
    target = flow.velocity_target(batch.latent_BChw, batch.noise_BChw)
    for freeze in (True, False):
        model.zero_grad(set_to_none=True)
        velocity = model.generation(batch, freeze_understanding=freeze).velocity_BChw
        error = (velocity - target).square()
        error.mean().backward()
        if freeze:
            yield measure("velocity", tokens(velocity), record["velocity"], ACTIVATION_TOLERANCE)
            yield measure("mse", tokens(error), record["mse"], ACTIVATION_TOLERANCE)
            yield measure("mse_mean", error.mean(), record["mse_mean"], LOSS_TOLERANCE)
            yield from _compare_gradients(gradients(), grads)
        else:
            norms = meta["grads_of_mse_mean_no_freeze"]["nonzero"]
            yield from _gradient_norms("norm unfrozen ", gradients(), norms)


def _stage2_dropped(model: DualBranch, batch: GenerationBatch, record: Recording) -> Iterator[Quantity]:
    with torch.no_grad():
        velocity = model.generation(batch).velocity_BChw
    error = (velocity - flow.velocity_target(batch.latent_BChw, batch.noise_BChw)).square()
    yield measure("velocity", tokens(velocity), record["velocity"], ACTIVATION_TOLERANCE)
    yield measure("mse", tokens(error), record["mse"], ACTIVATION_TOLERANCE)


def _repa_alone(record: Recording) -> Iterator[Quantity]:
    projector = reference.load_projector(record, "projector.0.mlp.")
    for case in ("equal", "unequal"):
        projector.zero_grad(set_to_none=True)
        features = record["features"].clone().requires_grad_()
        count = features.shape[1]
        loss = alignment_loss(projector(features), record[f"z_{case}"], (count, 1), compatibility="reference")
        yield measure(f"loss_{case}", loss, record[f"loss_{case}"], LOSS_TOLERANCE)
        times = record[f"loss_{case}_times_N"]
        yield measure(f"loss_{case}_times_N", loss * len(features), times, LOSS_TOLERANCE)
        if case == "equal":
            right = alignment_loss(projector(record["features"]), record["z_equal"], (count, 1))
            yield measure("loss_equal, ours", right, times, LOSS_TOLERANCE)
        loss.backward()
        assert features.grad is not None
        yield measure(f"grad_features_{case}", features.grad, record[f"grad_features_{case}"], GRADIENT_TOLERANCE)
        for name, ours in reference.export_projector(_gradients_of(projector), f"grad_projector_{case}.0.mlp.").items():
            yield measure(name, ours, record[name], GRADIENT_TOLERANCE)


def _repa_through_model(
    model: DualBranch,
    batch: GenerationBatch,
    record: Recording,
    grads: Recording,
    meta: Mapping[str, Any],
    depth: int,
    gradients: _Gradients,
) -> Iterator[Quantity]:
    projector = reference.load_projector(record, "projector.0.mlp.")
    target = flow.velocity_target(batch.latent_BChw, batch.noise_BChw)
    for case in ("equal", "unequal"):
        model.zero_grad(set_to_none=True)
        projector.zero_grad(set_to_none=True)
        output = model.generation(batch, capture_layer=depth)
        assert output.captured_BTE is not None
        rows, columns = target.shape[-2:]
        projected = projector(output.captured_BTE)
        loss = alignment_loss(projected, record[f"z_{case}"], (rows, columns), compatibility="reference")
        total = (output.velocity_BChw - target).square().mean() + ALIGNMENT_WEIGHT * loss
        total.backward()
        yield measure(f"model_repa_loss_{case}", loss, record[f"model_repa_loss_{case}"], LOSS_TOLERANCE)
        yield measure(f"model_total_{case}", total, record[f"model_total_{case}"], LOSS_TOLERANCE)
        ours = gradients() | dict(reference.export_projector(_gradients_of(projector)))
        if case == "equal":
            yield from _compare_gradients(ours, grads)
        else:
            yield from _gradient_norms("norm unequal ", ours, meta["grads_of_total_unequal"]["nonzero"])


def _decoding(model: DualBranch, record: Recording) -> Iterator[Quantity]:
    prompt = record["prompt_ids"].tolist()
    steps = list(decode(model, record["image"][None], [prompt], len(record["generated"])))
    logits = torch.cat([step.logits_BV for step in steps])
    yield measure("generated", torch.cat([step.token_B for step in steps]), record["generated"], (0.0, 0.0))
    yield measure("logits", logits, record["logits"], ACTIVATION_TOLERANCE)


_RENORMALISATION = {"global": "batch", "channel": "token", "text_channel": "text_token"}


def _sampling(model: DualBranch, record: Recording, variants: Mapping[str, Any]) -> Iterator[Quantity]:
    caption = record["caption_ids"].tolist()
    last = int(record["latent_position_ids"].max())
    side = model.config.latent.max_side
    grid = (last // side + 1, last % side + 1)
    noise = record["init_noise"].T.unflatten(1, grid)[None]
    for name, values in variants.items():
        config = SamplerConfig.model_validate(
            {
                "num_steps": values["num_timesteps"] - 1,
                "guidance": values["cfg_text_scale"],
                "image_guidance": values["cfg_img_scale"],
                "interval": values["cfg_interval"],
                "renormalisation": _RENORMALISATION[values["cfg_renorm_type"]],
                "renormalisation_floor": values["cfg_renorm_min"],
                "time_shift": values["timestep_shift"],
            }
        )
        steps = list(integrate(model, [caption], noise, config))
        for quantity, ours in _sampled(steps).items():
            yield measure(f"{name}.{quantity}", ours, record[f"{name}.{quantity}"], ACTIVATION_TOLERANCE)


def _sampled(steps: list[SampledStep]) -> dict[str, Tensor]:
    unconditional = [step.unconditional_BChw for step in steps if step.unconditional_BChw is not None]
    series = {
        "x": [step.noised_BChw for step in steps],
        "v": [step.velocity_BChw for step in steps],
        "v_cond": [step.conditional_BChw for step in steps],
    } | ({"v_uncond": unconditional} if unconditional else {})
    stacked = {name: torch.stack([tokens(value) for value in values]) for name, values in series.items()}
    return stacked | {"t": torch.tensor([step.time for step in steps]), "final": tokens(steps[-1].next_BChw)}


# Gradients


def _gradients_of(module: torch.nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in module.named_parameters()
    }


def _reference_gradients(model: DualBranch, connector_layers: bool) -> dict[str, Tensor]:
    return dict(reference.to_reference(model.config, _gradients_of(model), connector_layers))


def _compare_gradients(ours: Mapping[str, Tensor], recorded: Recording) -> Iterator[Quantity]:
    """Recorded gradients are the non-zero ones: all others must be zero here."""
    unknown = recorded.keys() - ours.keys()
    if unknown:
        raise WeightsError(f"gradients of unknown parameters: {', '.join(sorted(unknown)[:5])}")
    for name, value in ours.items():
        expected = recorded[name] if name in recorded else torch.zeros_like(value)
        yield measure(f"grad {name}", value, expected, GRADIENT_TOLERANCE)


def _gradient_norms(prefix: str, ours: Mapping[str, Tensor], norms: Mapping[str, float]) -> Iterator[Quantity]:
    for name, value in ours.items():
        expected = torch.tensor(norms.get(name, 0.0), dtype=torch.float64)
        yield measure(f"{prefix}{name}", value.double().norm(), expected, GRADIENT_TOLERANCE)


def _named(stage: str, quantities: Iterable[Quantity]) -> Iterator[Quantity]:
    for quantity in quantities:
        yield replace(quantity, name=f"{stage}: {quantity.name}")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {error}; a parity folder holds config.json and meta.json") from error
