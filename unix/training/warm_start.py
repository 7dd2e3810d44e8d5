"""Stage 0 of the tiny presets: stands in for Janus-Pro's pretrained weights, and says so.

Trains, from the training split alone, a tokenizer, a language model on the reports' text, the vision tower on
attributes parsed from that text, and beside them, in a process of its own, the image autoencoder.
"""

import math
import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from torch import Tensor, nn

from unix.batch import IGNORED
from unix.data.pack import TextBatch, UnderstandingPacking, pack_pixels, pack_text, posterior_noise
from unix.data.stream import Sample, ShardReader
from unix.data.tokenizer import Tokenizer
from unix.errors import ConfigError, Interrupted, UnixError, WeightsError
from unix.model.dual_branch import DualBranch
from unix.model.latent import DOWNSAMPLING, FoldedVAE, sample_posterior
from unix.model.weights.native import load_codec, save_module
from unix.records import Split, join_report
from unix.training.attributes import AttributeTable
from unix.training.checkpoint import Meta
from unix.training.encodings import codec_pixels, resized
from unix.training.engine import Engine, Place
from unix.training.fit import Fit, fit
from unix.training.loop import MicroBatch, Objective, StopSignal
from unix.training.metrics import MetricsFile, read_metrics
from unix.training.objectives import train_only
from unix.training.processes import leave_with_parent
from unix.training.stages import PartConfig, TrainConfig, WarmStartConfig, packing_of

PARTS = "parts"
"""Folder under the run's, with one run per part."""
NOTE = (
    "stage 0 stands in for pretrained weights: text, vision tower and autoencoder were warmed up "
    "on this data set's training split alone"
)
_IMAGES_MEASURED = 512
_SECONDS_BETWEEN_LOOKS = 0.2
_PROMPT_REPEATS = 100


class WarmStart(NamedTuple):
    """What stage 0 makes."""

    model: DualBranch
    codec: FoldedVAE
    tokenizer: Tokenizer


class TextLosses(NamedTuple):
    """Language modelling without images."""

    loss: Tensor


class TextObjective:
    """Next-token prediction on the reports alone: embedding, understanding branch of the decoder, head."""

    def __init__(
        self, model: DualBranch, tokenizer: Tokenizer, packing: UnderstandingPacking, *, seed: int, micro_batch: int
    ) -> None:
        self._model, self._tokenizer, self._packing = model, tokenizer, packing
        self._seed, self._micro_batch = seed, micro_batch
        sight = ("vision.", "connector.")
        self._trained = train_only(
            model, {name for name, _ in model.understanding_parameters() if not name.startswith(sight)}
        )

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The language model's."""
        return self._trained

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Reports of like length together."""
        reports = {sample.image_id: join_report(sample.findings, sample.impression) for sample in samples}
        keys = sorted(reports, key=lambda key: (len(reports[key]), key))
        packed: list[MicroBatch] = []
        for start in range(0, len(keys), self._micro_batch):
            group = keys[start : start + self._micro_batch]
            texts = [reports[key] for key in group]
            batch = pack_text(group, texts, self._tokenizer, self._packing, seed=self._seed, step=step)
            num_targets = int((batch.target_ids_BL != IGNORED).sum())
            packed.append(MicroBatch(batch, num_targets, int(batch.text_length_B.sum())))
        return packed

    def losses(self, batch: TextBatch, num_targets: float) -> TextLosses:
        """Cross entropy of the report's tokens."""
        rows_BL = batch.target_ids_BL != IGNORED
        hidden_NE, _ = self._model.read(self._model.embedding(batch.text_ids_BL), 0, rows_BL)
        loss = functional.cross_entropy(self._model.head(hidden_NE), batch.target_ids_BL[rows_BL], reduction="sum")
        return TextLosses(loss / num_targets)


class AttributeBatch(NamedTuple):
    """Images with what their reports say."""

    pixels_BCSS: Tensor
    targets_BA: Tensor


class AttributeLosses(NamedTuple):
    """Attributes from images."""

    loss: Tensor


class AttributeObjective:
    """Vision tower and connector on the reports' attributes, read off every image token by one linear layer.

    Tokens vote by a log-mean-exp, so that a finding in one place is enough.
    """

    def __init__(
        self, model: DualBranch, table: AttributeTable, packing: UnderstandingPacking, *, seed: int, micro_batch: int
    ) -> None:
        self._model, self._table, self._packing = model, table, packing
        self._seed, self._micro_batch = seed, micro_batch
        self._trained = train_only(
            model, {name for name, _ in model.named_parameters() if name.startswith(("vision.", "connector."))}
        )
        width = model.config.decoder.hidden_size
        self._norm = nn.LayerNorm(width)
        self._votes = nn.Linear(width, len(table.names))
        with torch.no_grad():
            self._votes.weight.normal_(0.0, width**-0.5, generator=torch.Generator().manual_seed(seed))
            self._votes.bias.copy_(torch.logit(table.frequency, eps=1e-3))

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Tower, connector, and the linear layer that is thrown away afterwards."""
        votes = {f"votes.{name}": value for name, value in self._votes.named_parameters()}
        return {**self._trained, **votes, **{f"norm.{name}": value for name, value in self._norm.named_parameters()}}

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Images and targets in the order of the stream."""
        packed: list[MicroBatch] = []
        for start in range(0, len(samples), self._micro_batch):
            group = samples[start : start + self._micro_batch]
            pixels_BCSS = pack_pixels(group, self._packing, seed=self._seed, step=step)
            batch = AttributeBatch(pixels_BCSS, self._table.targets(sample.image_id for sample in group))
            packed.append(MicroBatch(batch, len(group), len(group) * self._model.config.vision.num_tokens))
        return packed

    def losses(self, batch: AttributeBatch, num_targets: float) -> AttributeLosses:
        """Binary cross entropy summed over attributes, per image."""
        votes_BTA = self._votes(self._norm(self._model.encode_images(batch.pixels_BCSS)))
        logits_BA = torch.logsumexp(votes_BTA, dim=1) - math.log(votes_BTA.shape[1])
        loss = functional.binary_cross_entropy_with_logits(logits_BA, batch.targets_BA, reduction="sum")
        return AttributeLosses(loss / num_targets)


class AutoencoderLosses(NamedTuple):
    """Reconstruction with a slightly regularised posterior."""

    loss: Tensor
    pixels: Tensor
    edges: Tensor
    divergence: Tensor


class AutoencoderObjective:
    """The image autoencoder on pixels, their gradients, and a little divergence from a normal posterior."""

    def __init__(self, codec: FoldedVAE, config: WarmStartConfig, *, seed: int, micro_batch: int) -> None:
        self._codec, self._config, self._seed, self._micro_batch = codec, config, seed, micro_batch

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All of the autoencoder's."""
        return dict(self._codec.named_parameters())

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Images, at each of the configured sizes in turn, with the posterior's noise."""
        size = self._config.autoencoder_sizes[step % len(self._config.autoencoder_sizes)]
        packed: list[MicroBatch] = []
        for start in range(0, len(samples), self._micro_batch):
            group = samples[start : start + self._micro_batch]
            pixels = resized(codec_pixels([sample.image for sample in group], self._codec.channels), size)
            batch = (pixels, [sample.image_id for sample in group], step)
            packed.append(MicroBatch(batch, len(group), len(group) * (size // DOWNSAMPLING) ** 2))
        return packed

    def losses(self, batch: tuple[Tensor, list[str], int], num_targets: float) -> AutoencoderLosses:
        """Mean absolute errors of pixels and of their gradients, and the divergence, per image."""
        pixels, keys, step = batch
        mean, logvar = self._codec.moments(pixels)
        noise = posterior_noise(keys, tuple(mean.shape[1:]), seed=self._seed, step=step)
        drawn = self._codec.decode(self._codec.scaled(sample_posterior(mean, logvar, noise)))
        share = len(keys) / num_targets
        error = drawn - pixels
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()
        absolute = error.abs().mean()
        loss = absolute + edges + self._config.divergence_weight * divergence
        return AutoencoderLosses(loss * share, *(term.detach() * share for term in (absolute, edges, divergence)))


def warm_start(config: TrainConfig, engine: Engine) -> WarmStart:
    """Run all parts of stage 0; each resumes from its own checkpoints under `<run_dir>/parts`.

    Raises:
        ConfigError: under torchrun.
        Interrupted: on SIGTERM or SIGINT, after saving.
    """
    parts = _parts_of(config)
    if engine.world > 1:
        raise ConfigError("stage0 runs its parts in processes of its own: start it without torchrun")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _AutoencoderProcess(config) as autoencoder:
            reader = ShardReader(Path(config.shards) / config.data_set, Split.TRAIN)
            reports = {
                sample.image_id: join_report(sample.findings, sample.impression)
                for sample in map(reader.read, range(reader.samples))
            }
            packing = packing_of(config)
            # Prompts are few; repeated like this they weigh enough to become whole words.
            texts = sorted(set(reports.values())) + [*packing.prompts] * _PROMPT_REPEATS
            tokenizer = Tokenizer.train(texts, config.model.decoder.vocabulary_size)
            model = DualBranch.build(config.model, config.seed)
            text = TextObjective(model, tokenizer, packing, seed=config.seed, micro_batch=config.micro_batch)
            _fit_part("text", parts.text, text, model, config, reader, engine)
            autoencoder.check()
            table = AttributeTable(reports)
            tower = AttributeObjective(model, table, packing, seed=config.seed, micro_batch=config.micro_batch)
            _fit_part("tower", parts.tower, tower, model, config, reader, engine)
            codec = autoencoder.result()
    finally:
        torch.set_num_threads(threads)
    _join_metrics(Path(config.run_dir), parts)
    return WarmStart(model, codec, tokenizer)


def _parts_of(config: TrainConfig) -> WarmStartConfig:
    if config.warm_start is None:
        raise ConfigError(f"{config.stage} has no warm_start section")
    return config.warm_start


def _fit_part(
    name: str,
    part: PartConfig,
    objective: Objective,
    module: nn.Module,
    config: TrainConfig,
    reader: ShardReader,
    engine: Engine,
) -> None:
    meta = Meta(
        stage=f"{config.stage}/{name}",
        step=part.steps,
        steps=part.steps,
        seed=config.seed,
        loader=None,
        configuration_digest=config.digest(),
        architecture_digest=config.model.digest(),
        shards_digest=reader.manifest.digest(),
        notes=(NOTE,),
    )
    run = Fit(
        run_dir=Path(config.run_dir) / PARTS / name,
        meta=meta,
        optimizer=config.optimizer.model_copy(
            update={"learning_rate": part.learning_rate, "decay_steps": part.decay_steps}
        ),
        source=reader,
        workers=config.loader.workers,
        global_batch=part.global_batch or config.global_batch,
        checkpoint_every=config.checkpoint_every,
        resume=config.resume,
        module=module,
        write_model=lambda folder, tensors: save_file(dict(tensors), folder / f"{name}.safetensors"),
    )
    fit(objective, run, engine)


def _fit_autoencoder(config: TrainConfig, report: Connection) -> None:
    """Body of the second process: train the autoencoder, send None or the fault's text."""
    leave_with_parent()
    torch.set_num_threads(1)
    parts = _parts_of(config)
    try:
        reader = ShardReader(Path(config.shards) / parts.autoencoder_set, Split.TRAIN)
        codec = FoldedVAE.build(parts.codec, config.seed)
        objective = AutoencoderObjective(codec, parts, seed=config.seed, micro_batch=config.micro_batch)
        _fit_part("autoencoder", parts.autoencoder, objective, codec, config, reader, Engine(Place()))
        _measure_latents(codec, reader, parts.autoencoder_sizes)
        save_module(Path(config.run_dir) / PARTS / "vae", codec, codec.config)
    except UnixError as fault:
        report.send(str(fault))
    else:
        report.send(None)


def _measure_latents(codec: FoldedVAE, reader: ShardReader, sizes: Sequence[int]) -> None:
    """Scale latents to mean 0 and deviation 1 over a few hundred training images of every size."""
    images = [reader.read(index).image for index in range(min(reader.samples, _IMAGES_MEASURED))]
    latents: list[Tensor] = []
    for size in sizes:
        with torch.no_grad():
            mean_BChw, _ = codec.moments(resized(codec_pixels(images, codec.channels), size))
        latents.append(mean_BChw.transpose(0, 1).flatten(1))
    z_CN = torch.cat(latents, dim=1)
    codec.set_statistics(z_CN.mean(dim=1), z_CN.std(dim=1))


class _AutoencoderProcess:
    """The process that trains the autoencoder while this one warms up the language model and the tower."""

    def __init__(self, config: TrainConfig) -> None:
        self._folder = Path(config.run_dir) / PARTS
        context = multiprocessing.get_context("spawn")
        self._reports, sender = context.Pipe(duplex=False)
        self._outcome: str | None = None
        self._process = context.Process(target=_fit_autoencoder, args=(config, sender), name="autoencoder")

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Its own handler saves on SIGTERM; after a normal end there is nothing left to stop.
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()

    def check(self) -> None:
        """Raise the fault that ended it, if there has been one by now."""
        if self._reports.poll():
            self._outcome = self._reports.recv()
        elif self._process.exitcode not in (None, 0):
            self._outcome = f"it ended with exit status {self._process.exitcode}"
        if self._outcome is not None:
            raise UnixError(f"the autoencoder's process failed: {self._outcome}")

    def result(self) -> FoldedVAE:
        """Wait for the trained autoencoder."""
        with StopSignal() as stop:
            while self._process.is_alive():
                self._process.join(_SECONDS_BETWEEN_LOOKS)
                if stop.raised:
                    self._process.terminate()
        if stop.raised:
            raise Interrupted("stage0 stopped on request after saving its parts; continue with --resume")
        self.check()
        codec = load_codec(self._folder)
        if not isinstance(codec, FoldedVAE):
            raise WeightsError(f"{self._folder} holds another autoencoder than the one that stage0 trains")
        return codec


def _join_metrics(run_dir: Path, parts: WarmStartConfig) -> None:
    """One `metrics.jsonl` for the stage: the parts' steps one after another, each row naming its part."""
    done = 0
    with MetricsFile(run_dir, step=0) as metrics:
        for name, part in (("text", parts.text), ("tower", parts.tower), ("autoencoder", parts.autoencoder)):
            for row in read_metrics(run_dir / PARTS / name):
                values = {key: value for key, value in row.items() if key != "step"}
                metrics.write(done + int(row["step"]), {"part": name, **values})
            done += part.steps
