"""Writes a folder of recordings in the format that `unix parity` reads, computed by `formulas`, of any shape."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.unix.model.recorded.formulas import Formulas, States, Weights, alignment, guided
from tests.unix.model.recorded.layout import LATENT, TEXT, VISION, Layout, Split

Tensors = dict[str, Tensor]
PROJECTOR = "language_model.model.repa_loss_fn.projectors.0.mlp."


@dataclass(frozen=True)
class Inputs:
    """Everything that a recording starts from, weights and configuration apart."""

    images: Tensor
    """[N, 3, S, S] float32 of stage 1; prompts and answers are its texts."""
    prompts: Sequence[list[int]]
    answers: Sequence[list[int]]
    captions: Sequence[list[int]]
    """Of stage 2; the last sample's is dropped for `stage2_drop`."""
    latent: Tensor
    """[N, C, h, w]."""
    noise: Tensor
    """[N * h * w, C]."""
    timesteps: Sequence[float]
    """Normal numbers, one a sample, whose sigmoid is the time."""
    dropped_timesteps: Sequence[float]
    """Those of `stage2_drop`."""
    repa: Mapping[str, Tensor]
    """`projector.0.mlp.*`, `features`, `z_equal`, `z_unequal`."""
    image: Tensor
    """[3, S, S], to be described after `prompt` in `num_tokens` tokens."""
    prompt: list[int]
    num_tokens: int
    caption: list[int]
    """To be drawn from `init_noise` [h * w, C] with each of the sampler's `variants`."""
    init_noise: Tensor
    variants: Mapping[str, Mapping[str, Any]]


class Recorder:
    """Computes a folder's files."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, inputs: Inputs) -> None:
        tables = ("latent_pos_embed.pos_embed", "vit_pos_embed.pos_embed")
        self.weights = {
            name: value.double().requires_grad_(name not in tables and "attn_pool" not in name)
            for name, value in weights.items()
        }
        self.config, self.inputs = config, inputs
        self.formulas = Formulas(config, self.weights)
        special = config["special_token_ids"]
        self.bos, self.eos = special["bos_token_id"], special["eos_token_id"]
        self.boi, self.eoi = special["start_of_image"], special["end_of_image"]
        self.num_layers = config["llm_config"]["num_hidden_layers"]

    def files(self) -> tuple[dict[str, Tensors], dict[str, Any]]:
        """Tensors by file, and `meta.json`."""
        stage1, stage1_grads = self._stage1()
        stage2, stage2_grads, unfrozen = self._stage2()
        repa, repa_grads, unequal = self._repa()
        files = {
            "stage1": stage1,
            "stage1_grads": stage1_grads,
            "stage2": stage2,
            "stage2_grads": stage2_grads,
            "stage2_drop": self._stage2_pass(self._captions(dropped=True), self.inputs.dropped_timesteps),
            "repa": repa,
            "stage2_repa_grads": repa_grads,
            "infer_und": self._describe(),
            "infer_gen": self._draw(),
        }
        meta = {
            "stage2": {"grads_of_mse_mean_no_freeze": {"nonzero": unfrozen}},
            "repa": {"grads_of_total_unequal": {"nonzero": unequal}},
            "infer_gen": {"variants": self.inputs.variants},
        }
        kept = {name: {key: _single(value) for key, value in tensors.items()} for name, tensors in files.items()}
        return kept, meta

    def write(self, folder: Path) -> None:
        """The whole folder."""
        files, meta = self.files()
        folder.mkdir(parents=True)
        files["state_dict"] = {name: _single(value) for name, value in self.weights.items()}
        for name, tensors in files.items():
            save_file(tensors, folder / f"{name}.safetensors")
        (folder / "meta.json").write_text(json.dumps(meta))
        (folder / "config.json").write_text(json.dumps(self.config))

    # Layouts

    def _text(self, ids: list[int], start: int) -> Split:
        whole = [self.bos, *ids, self.eos]
        return Split("causal", whole, [TEXT] * len(whole), list(range(start, start + len(whole))))

    def _image(self, mode: str, kind: int, count: int, start: int) -> Split:
        ids, kinds = [self.boi, *[-1] * count, self.eoi], [TEXT, *[kind] * count, TEXT]
        return Split(mode, ids, kinds, [start] * len(ids))

    def _report(self, prompt: list[int], num_image: int) -> list[Split]:
        return [self._image("full", VISION, num_image, 0), self._text(prompt, 1)]

    def _captions(self, dropped: bool = False) -> Layout:
        captions: list[list[int] | None] = list(self.inputs.captions)
        if dropped:
            captions[-1] = None
        count = self.inputs.latent[0, 0].numel()
        return Layout([self._drawing(caption, count) for caption in captions])

    def _drawing(self, caption: list[int] | None, count: int) -> list[Split]:
        if caption is None:
            return [self._image("noise", LATENT, count, 0)]
        return [self._text(caption, 0), self._image("noise", LATENT, count, len(caption) + 2)]

    # Passes

    def _decode(self, layout: Layout, tokens: Tensor, freeze: bool = False) -> States:
        """`tokens`: the rows that are no text, in their order."""
        kinds = layout.kinds()
        rows = torch.zeros(len(kinds), tokens.shape[1], dtype=torch.float64)
        text = self.formulas.embed(layout.ids()[kinds == TEXT])
        rows = rows.index_copy(0, (kinds == TEXT).nonzero()[:, 0], text)
        rows = rows.index_copy(0, (kinds != TEXT).nonzero()[:, 0], tokens)
        return self.formulas.decode(rows, layout.packed(), freeze)

    def _stage1(self) -> tuple[Tensors, Tensors]:
        given = self.inputs
        seen = self.formulas.see(given.images.double())
        connected = self.formulas.connect(seen)
        num_image = seen.shape[1]
        layout, indexes, labels, shares, offset = Layout(), [], [], [], 0
        for prompt, answer in zip(given.prompts, given.answers, strict=True):
            layout.samples.append([*self._report(prompt, num_image), self._text(answer, len(prompt) + 3)])
            start = offset + num_image + 2 + len(prompt) + 2
            indexes += range(start, start + len(answer) + 1)
            labels += [*answer, self.eos]
            shares += [(len(answer) + 1) ** -0.5] * (len(answer) + 1)
            offset = start + len(answer) + 2
        states = self._decode(layout, connected.flatten(0, 1))
        logits = self.formulas.logits(states.final[indexes])
        loss = -torch.log_softmax(logits, dim=1)[torch.arange(len(labels)), torch.tensor(labels)]
        weight = torch.tensor(shares)
        grads = self._gradients(loss.mean())
        out = {
            "images": given.images,
            "vit_out": seen,
            "connector_out": connected,
            **_layers("hidden", states.after_layer),
            "final": states.final,
            "logits": logits,
            "ce": loss,
            "ce_mean": loss.mean(),
            "ce_loss_weights": weight,
            "ce_reweighted": (loss * weight).sum() / weight.sum(),
            "ce_loss_indexes": torch.tensor(indexes),
            "packed_label_ids": torch.tensor(labels),
            "packed_vit_token_indexes": (layout.kinds() == VISION).nonzero()[:, 0],
        }
        return out | layout.tensors(), grads

    def _latents(self, timesteps: Sequence[float]) -> Tensors:
        """Times, places and noised latents, a row a token."""
        given = self.inputs
        _, channels, rows, columns = given.latent.shape
        clean = given.latent.double().permute(0, 2, 3, 1).reshape(-1, channels)
        noise, number = given.noise.double(), torch.tensor(timesteps).repeat_interleave(rows * columns)
        time, shift = torch.sigmoid(number.double()), self.config.get("timestep_shift", 1.0)
        time = shift * time / (1 + (shift - 1) * time)
        return {
            "packed_timesteps": number,
            "t": time,
            "packed_latent_position_ids": self._places(rows, columns).repeat(len(given.latent)),
            "x_t": clean * (1 - time[:, None]) + noise * time[:, None],
            "target": noise - clean,
        }

    def _places(self, rows: int, columns: int) -> Tensor:
        return torch.tensor([r * self.config["max_latent_size"] + c for r in range(rows) for c in range(columns)])

    def _stage2_pass(self, layout: Layout, timesteps: Sequence[float], freeze: bool = True) -> Tensors:
        latents = self._latents(timesteps)
        entering = self.formulas.latent_input(latents["x_t"], latents["t"], latents["packed_latent_position_ids"])
        states = self._decode(layout, entering, freeze)
        drawn = (layout.kinds() == LATENT).nonzero()[:, 0]
        velocity = self.formulas.velocity(states.final[drawn])
        loss = (velocity - latents["target"]).pow(2)
        by_sample = [state[drawn].unflatten(0, (len(layout.samples), -1)) for state in states.after_layer]
        return {
            **latents,
            "latent": self.inputs.latent,
            "noise": self.inputs.noise,
            "time_embed": self.formulas.time_embedding(latents["t"]),
            "gen_input": entering,
            **_layers("hidden", states.after_layer),
            **_layers("gen_hidden", by_sample),
            "final": states.final,
            "velocity": velocity,
            "mse": loss,
            "mse_mean": loss.mean(),
            "mse_loss_indexes": drawn,
            "packed_vae_token_indexes": drawn,
            **layout.tensors(),
        }

    def _stage2(self) -> tuple[Tensors, Tensors, dict[str, float]]:
        out = self._stage2_pass(self._captions(), self.inputs.timesteps)
        grads = self._gradients(out["mse_mean"])
        unfrozen = self._gradients(self._stage2_pass(self._captions(), self.inputs.timesteps, freeze=False)["mse_mean"])
        return out, grads, _norms(unfrozen)

    def _repa(self) -> tuple[Tensors, Tensors, dict[str, float]]:
        record, grads = dict(self.inputs.repa), {}
        wide = {name: value.double().requires_grad_("z_" not in name) for name, value in record.items()}
        projector = {name: value for name, value in wide.items() if name.startswith("projector")}
        for case in ("equal", "unequal"):
            loss = alignment(wide, wide["features"], wide[f"z_{case}"])
            found = torch.autograd.grad(loss, [wide["features"], *projector.values()])
            record |= {f"loss_{case}": loss, f"loss_{case}_times_N": loss * len(wide["features"])}
            record[f"grad_features_{case}"] = found[0]
            for name, value in zip(projector, found[1:], strict=True):
                record[f"grad_{name.replace('projector', f'projector_{case}', 1)}"] = value
            drawn = self._stage2_pass(self._captions(), self.inputs.timesteps)
            features = drawn[f"gen_hidden.{self.config['repa']['intermediate_depth']}"]
            loss = alignment(wide, features, wide[f"z_{case}"])
            total = drawn["mse_mean"] + 0.5 * loss
            record |= {f"model_repa_loss_{case}": loss, f"model_total_{case}": total}
            named = {name.replace("projector.0.mlp.", PROJECTOR): value for name, value in projector.items()}
            grads[case] = self._gradients(total, named)
        return record, grads["equal"], _norms(grads["unequal"])

    def _gradients(self, loss: Tensor, more: Mapping[str, Tensor] | None = None) -> Tensors:
        """The non-zero ones."""
        asked = {name: value for name, value in {**self.weights, **(more or {})}.items() if value.requires_grad}
        found = torch.autograd.grad(loss, list(asked.values()), allow_unused=True)
        named = zip(asked, found, strict=True)
        return {name: value for name, value in named if value is not None and bool(value.any())}

    @torch.no_grad()
    def _describe(self) -> Tensors:
        given = self.inputs
        connected = self.formulas.connect(self.formulas.see(given.image[None].double()))[0]
        generated: list[int] = []
        logits: list[Tensor] = []
        prefill = self._report(given.prompt, len(connected))

        def layout() -> Layout:
            text = self._text(generated, len(given.prompt) + 3)
            return Layout([[*prefill, Split("causal", text.ids[:-1], text.kinds[:-1], text.position[:-1])]])

        for _ in range(given.num_tokens):
            logits.append(self.formulas.logits(self._decode(layout(), connected).final[-1]))
            best = logits[-1].topk(2)
            assert float(best.values[0] - best.values[1]) > 1e-2, "too close to a tie: choose another seed"
            if int(best.indices[0]) == self.eos:
                logits.pop()
                break
            generated.append(int(best.indices[0]))
        packed = layout().packed()
        return {
            "image": given.image,
            "prompt_ids": torch.tensor(given.prompt),
            "prefill_ids": Layout([prefill]).ids(),
            "position_ids": packed.position_L,
            "attend": packed.attend_LL,
            "generated": torch.tensor(generated),
            "logits": torch.stack(logits),
        }

    @torch.no_grad()
    def _draw(self) -> Tensors:
        given, count = self.inputs, len(self.inputs.init_noise)
        rows, columns = given.latent.shape[-2:]
        place = self._places(rows, columns)
        layouts = [Layout([self._drawing(caption, count)]) for caption in (given.caption, None)]
        out = {"caption_ids": torch.tensor(given.caption), "init_noise": given.init_noise}
        out |= {"latent_position_ids": place}
        for suffix, layout in zip(("", "_uncond"), layouts, strict=True):
            packed = layout.packed()
            out |= {f"attend{suffix}": packed.attend_LL, f"position_ids{suffix}": packed.position_L}

        def velocity(x: Tensor, time: Tensor, layout: Layout) -> Tensor:
            entering = self.formulas.latent_input(x, time.expand(count), place)
            return self.formulas.velocity(self._decode(layout, entering).final[layout.kinds() == LATENT])

        for name, values in given.variants.items():
            # as the recorded implementation has them: float32, and compared as float32
            times = torch.linspace(1, 0, values["num_timesteps"])
            times = values["timestep_shift"] * times / (1 + (values["timestep_shift"] - 1) * times)
            low, high = values["cfg_interval"]
            series: dict[str, list[Tensor]] = {"t": [], "x": [], "v": [], "v_cond": [], "v_uncond": []}
            x = given.init_noise.double()
            for now, then in pairwise(times):
                with_caption = velocity(x, now.double(), layouts[0])
                guides = values["cfg_text_scale"] > 1 and bool(now > low) and bool(now <= high)
                without = velocity(x, now.double(), layouts[1]) if guides else None
                v = guided(with_caption, without, values)
                found = {"t": now, "x": x, "v": v, "v_cond": with_caption, "v_uncond": without}
                for key, value in found.items():
                    series[key] += [] if value is None else [value]
                x = x - v * (now - then).double()
            out |= {f"{name}.{key}": torch.stack(steps) for key, steps in series.items() if steps}
            out[f"{name}.final"] = x
        return out


def _layers(name: str, states: Sequence[Tensor]) -> Tensors:
    return {f"{name}.{index}": state for index, state in enumerate(states)}


def _norms(grads: Tensors) -> dict[str, float]:
    return {name: float(value.norm()) for name, value in grads.items()}


def _single(value: Tensor) -> Tensor:
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).clone().contiguous()
