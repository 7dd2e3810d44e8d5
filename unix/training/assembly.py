"""A stage's parts put together from its configuration: what it reads, what it trains, how it is looked at."""

import logging
from dataclasses import dataclass
from pathlib import Path

from unix.config import json_digest
from unix.data.mixture import Mixture
from unix.data.pack import UnderstandingPacking
from unix.data.stream import SampleSource, ShardReader
from unix.data.tokenizer import Tokenizer
from unix.errors import ConfigError
from unix.model.alignment import AlignmentEncoder, AlignmentProjector, RadDinoEncoder, TowerEncoder
from unix.model.dual_branch import DualBranch
from unix.model.latent import ImageCodec
from unix.records import Split, Task
from unix.training.alignment import Alignment
from unix.training.captions import RememberedCaptions
from unix.training.encodings import (
    ComputedEncodings,
    Encodings,
    ImageFunction,
    LatentSource,
    RememberedEncodings,
    ShardEncodings,
    alignment_features,
    codec_moments,
)
from unix.training.engine import Engine
from unix.training.loop import Objective
from unix.training.objectives import GenerationObjective, JointObjective, UnderstandingObjective
from unix.training.stages import GenerationStageConfig, Stage, TrainConfig
from unix.training.streamed import load_tower
from unix.training.validation import Show, Validation, show_images, show_reports

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StageData:
    """What a stage reads of one split."""

    understanding: ShardReader | None
    """None where the stage reads no reports; so with `generation`."""
    generation: ShardReader | None
    source: SampleSource
    """What is streamed: one of the two, or both mixed."""
    digest: str
    """Of the sets' manifests."""
    micro_batch: dict[Task, int]
    """Samples in one forward pass, such that every rank makes as many passes for each task."""

    @property
    def readers(self) -> list[ShardReader]:
        """Those there are."""
        return [reader for reader in (self.understanding, self.generation) if reader is not None]


def open_data(config: TrainConfig, split: Split, world: int = 1) -> StageData:
    """Open the sets of a stage.

    Raises:
        ConfigError: a set is of the wrong kind, or a joint batch cannot be shared evenly among the ranks.
        ShardError: a set is missing or unfinished.
    """
    loader, mixture = config.loader, config.mixture

    def reader(name: str, task: Task) -> ShardReader:
        opened = ShardReader(
            Path(config.shards) / name,
            split,
            release=config.releases.get(name),
            on_corrupt=loader.on_corrupt,
            cache=loader.cache,
        )
        if opened.manifest.task != task:
            raise ConfigError(f"{name} is a set for {opened.manifest.task}; {config.stage} needs one for {task} there")
        return opened

    alike = dict.fromkeys(Task, config.micro_batch)
    if mixture is None or mixture.understanding == 0:
        reads = config.stage in (Stage.WARM_START, Stage.UNDERSTANDING)
        only = reader(config.data_set, Task.UNDERSTANDING if reads else Task.GENERATION)
        return StageData(only if reads else None, None if reads else only, only, only.manifest.digest(), alike)
    reading = reader(mixture.understanding_set, Task.UNDERSTANDING)
    drawing = reader(config.data_set, Task.GENERATION)
    both = Mixture([(reading, mixture.understanding), (drawing, mixture.generation)])
    if world > 1:
        spread = both.spread(config.global_batch // world)
        alike = {task: _even_micro_batch(*each, config) for task, each in zip(Task, spread, strict=True)}
    return StageData(reading, drawing, both, json_digest([reading.manifest.digest(), drawing.manifest.digest()]), alike)


def _even_micro_batch(fewest: int, most: int, config: TrainConfig) -> int:
    """The largest micro-batch for which `fewest` to `most` samples make as many passes on every rank."""
    passes = -(-most // config.micro_batch)
    size = -(-most // passes)
    if fewest == 0 or -(-fewest // size) != passes:
        raise ConfigError(
            f"a rank's part of a joint batch holds {fewest} to {most} samples of one set, which do not make as many "
            f"micro-batches of at most {config.micro_batch} on every rank; raise micro_batch or global_batch"
        )
    return size


@dataclass(frozen=True)
class StageParts:
    """The networks and texts of a stage, made into what it trains and how it is looked at."""

    config: TrainConfig
    model: DualBranch
    codec: ImageCodec
    tokenizer: Tokenizer
    packing: UnderstandingPacking

    def training(self, data: StageData, start: Path, engine: Engine) -> tuple[Objective, tuple[str, ...]]:
        """What the stage trains, and a note on each network that it was aligned with.

        Args:
            data: the training split.
            start: the checkpoint that the stage starts from.
            engine: where the frozen networks compute.
        """
        if data.generation is None:
            return self._objective(data, None, None, None), ()
        stage = self.config.generation or GenerationStageConfig()
        self.codec.to(engine.device)
        alignment, notes = self._alignment(stage, start, data.generation, engine)
        latents = LatentSource(self._moments(stage, data.generation, engine), self.codec, self.config.seed)
        captions = self._captions(stage, data.generation) if stage.remember_captions else None
        return self._objective(data, latents, alignment, captions), notes

    def validation(self) -> Validation | None:
        """Looks at the stage on its validation split, encoding images as it goes; without REPA's term."""
        config = self.config
        if config.validation.every is None:
            return None
        data = open_data(config, Split.VALIDATE)
        latents = LatentSource(ComputedEncodings(codec_moments(self.codec)), self.codec, config.seed)
        shows: dict[Task, Show] = {
            Task.UNDERSTANDING: show_reports(self.model, self.tokenizer, self.packing),
            Task.GENERATION: show_images(self.model, self.codec, self.tokenizer, config.validation),
        }
        objective = self._objective(data, latents, None, None)
        return Validation(config.validation, objective, data.readers, shows, Path(config.run_dir))

    def _objective(
        self,
        data: StageData,
        latents: LatentSource | None,
        alignment: Alignment | None,
        captions: RememberedCaptions | None,
    ) -> Objective:
        config, stage = self.config, self.config.generation or GenerationStageConfig()
        # made first: the drawing side of the joint stage says last what is frozen
        reading = UnderstandingObjective(
            self.model,
            self.tokenizer,
            self.packing,
            seed=config.seed,
            micro_batch=data.micro_batch[Task.UNDERSTANDING],
        )
        if data.generation is None or latents is None:
            return reading
        drawing = GenerationObjective(
            self.model,
            self.tokenizer,
            stage.packing,
            latents,
            alignment,
            captions,
            seed=config.seed,
            micro_batch=data.micro_batch[Task.GENERATION],
            freeze_understanding=stage.freeze_understanding,
        )
        if data.understanding is None or config.mixture is None:
            return drawing
        return JointObjective(reading, drawing, config.mixture.understanding_weight)

    def _moments(self, stage: GenerationStageConfig, images: ShardReader, engine: Engine) -> Encodings:
        if stage.latents == "shards":
            config = self.config
            folder = Path(config.shards) / f"{config.data_set}-latents"
            pinned = config.releases.get(folder.name)
            return ShardEncodings(ShardReader(folder, Split.TRAIN, release=pinned, cache=config.loader.cache), images)
        return _encodings(codec_moments(self.codec), stage.latents == "memory", images, engine)

    def _captions(self, stage: GenerationStageConfig, images: ShardReader) -> RememberedCaptions:
        texts = sorted({images.read(index).caption for index in range(images.samples)})
        ids = (encoded[: stage.packing.max_caption_tokens] for encoded in self.tokenizer.encode_batch(texts))
        return RememberedCaptions(self.model, ((self.tokenizer.bos, *row, self.tokenizer.eos) for row in ids))

    def _alignment(
        self, stage: GenerationStageConfig, start: Path, images: ShardReader, engine: Engine
    ) -> tuple[Alignment | None, tuple[str, ...]]:
        """REPA as configured, and a note that says what its encoder is."""
        wanted, decoder = stage.alignment, self.model.config.decoder
        if wanted is None:
            return None, ()
        if wanted.layer > decoder.num_layers:
            raise ConfigError(f"alignment.layer {wanted.layer} is past the decoder's {decoder.num_layers} layers")
        if wanted.encoder == "vision-tower":
            # a sharded tower computes nothing by itself, and one in training is no fixed target
            own = stage.freeze_understanding and not engine.is_sharded
            tower = self.model.vision if own else load_tower(self.model.config, start / "model.safetensors")
            encoder: AlignmentEncoder = TowerEncoder(tower)
        else:
            encoder = RadDinoEncoder.load(Path(wanted.encoder))
        encoder.to(engine.device)
        projector = AlignmentProjector.build(
            decoder.hidden_size, wanted.projector_width, encoder.width, self.config.seed
        ).to(engine.device)
        features = _encodings(alignment_features(encoder), stage.latents == "memory", images, engine)
        logger.info("alignment encoder: %s", encoder.description)
        note = f"{self.config.stage} aligned with {encoder.description}"
        return Alignment(projector, features, layer=wanted.layer, weight=wanted.weight), (note,)


def _encodings(function: ImageFunction, remember: bool, images: ShardReader, engine: Engine) -> Encodings:
    return RememberedEncodings(function, images, engine) if remember else ComputedEncodings(function)
