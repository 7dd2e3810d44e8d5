"""Looking at a run now and then: losses on a few fixed validation samples, and what the model makes of them.

Everything is drawn from fixed seeds, so two looks differ by the weights alone, and the training never by having been
looked at. Metrics of reports and images belong to `unix.evaluation`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import NonNegativeInt, PositiveInt

from unix.config import Config
from unix.data.pack import UnderstandingPacking, normalised_pixels
from unix.data.stream import Sample, ShardReader
from unix.data.tokenizer import Tokenizer
from unix.model import decoding
from unix.model.dual_branch import DualBranch
from unix.model.latent import ImageCodec
from unix.model.sampling import SamplerConfig, sample_latents
from unix.records import Task, join_report
from unix.training.engine import Engine
from unix.training.loop import Objective, count_targets

SAMPLES_FOLDER = "samples"
_NEW_TOKENS = 192


class ValidationConfig(Config):
    """How often a run is looked at, and at how much."""

    every: PositiveInt | None = None
    """Steps from one look to the next; None = never."""
    samples: PositiveInt = 64
    """The first so many samples of each set's validation split bear the losses."""
    shown: NonNegativeInt = 4
    """For the first so many of them the run's folder gets reports and images; none where the model is sharded."""
    num_steps: PositiveInt = 25
    """Euler steps of a drawn image."""
    guidance: float = 2.0
    """Classifier-free guidance of a drawn image; 1 is none."""


Show = Callable[[Path, Sequence[Sample]], None]
"""Writes what the model makes of samples into a folder."""


class Validation:
    """Looks at one run; every rank computes the same."""

    def __init__(
        self,
        config: ValidationConfig,
        objective: Objective,
        readers: Sequence[ShardReader],
        shows: Mapping[Task, Show],
        run_dir: Path,
    ) -> None:
        """`objective` takes samples of all `readers`; each set's are shown by its task's entry of `shows`."""
        self._config, self._objective, self._shows = config, objective, shows
        self._sets = {
            reader.manifest.task: [reader.read(index) for index in range(min(config.samples, reader.samples))]
            for reader in readers
        }
        self._folder = run_dir / SAMPLES_FOLDER

    def is_due(self, step: int) -> bool:
        """Whether a look follows optimizer step `step` (counted from 1)."""
        return self._config.every is not None and step % self._config.every == 0

    @torch.no_grad()
    def look(self, step: int, engine: Engine) -> dict[str, float]:
        """Losses as `validation_<name>`, after writing the samples of this step."""
        terms: dict[str, float] = {}
        packed = self._objective.pack([sample for samples in self._sets.values() for sample in samples], 0)
        num_targets = count_targets(packed)
        for item in packed:
            with engine.autocast():
                losses = self._objective.losses(item.batch, num_targets[item.task])
            for name, value in losses._asdict().items():
                terms[f"validation_{name}"] = terms.get(f"validation_{name}", 0.0) + float(value)
        if engine.is_main and not engine.is_sharded and self._config.shown:
            for task, samples in self._sets.items():
                self._shows[task](self._folder / f"step-{step}", samples[: self._config.shown])
        return terms


def show_reports(model: DualBranch, tokenizer: Tokenizer, packing: UnderstandingPacking) -> Show:
    """Writes `reports.jsonl`: the image id, the true report and the model's."""

    def show(folder: Path, samples: Sequence[Sample]) -> None:
        side = model.config.vision.image_size
        images = [np.asarray(Image.fromarray(sample.image).resize((side, side))) for sample in samples]
        pixels = normalised_pixels(images, packing.pixel_mean, packing.pixel_std).to(model.head.weight.device)
        prompts = [tokenizer.encode(packing.prompts[0])] * len(samples)
        answers = decoding.describe(model, pixels, prompts, _NEW_TOKENS)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "reports.jsonl").open("w", encoding="utf-8") as file:
            for sample, answer in zip(samples, answers, strict=True):
                true = join_report(sample.findings, sample.impression)
                row = {"image_id": sample.image_id, "report": tokenizer.decode(answer), "true": true}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return show


def show_images(model: DualBranch, codec: ImageCodec, tokenizer: Tokenizer, config: ValidationConfig) -> Show:
    """Writes `<image id>.png`, the true image on the left and the drawn one on the right, and `captions.jsonl`."""

    def show(folder: Path, samples: Sequence[Sample]) -> None:
        side = samples[0].image.shape[0] // 16
        ids = tokenizer.encode_batch([sample.caption for sample in samples])
        sampler = SamplerConfig(num_steps=config.num_steps, guidance=config.guidance)
        latents = sample_latents(model, ids, (side, side), range(len(samples)), sampler)
        grey_BSS = codec.decode(latents).float().mean(dim=1).add(1).mul(127.5).round().clamp(0, 255)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "captions.jsonl").open("w", encoding="utf-8") as file:
            for sample, drawn in zip(samples, grey_BSS.to("cpu", torch.uint8).numpy(), strict=True):
                pair = np.concatenate([sample.image, drawn], axis=1)
                Image.fromarray(pair).save(folder / f"{sample.image_id}.png")
                row = {"image_id": sample.image_id, "caption": sample.caption}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    return show
