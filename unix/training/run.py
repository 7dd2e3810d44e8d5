"""One stage from configuration to checkpoint: `train`."""

import json
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

from pydantic import PositiveInt
from torch import Tensor

from unix.config import Config
from unix.data.pack import UnderstandingPacking
from unix.data.stream import LoaderConfig
from unix.data.tokenizer import Tokenizer
from unix.errors import ConfigError, Interrupted
from unix.manifest import code_revision
from unix.model.latent import ImageCodec
from unix.model.weights.native import load_codec, save_module, save_tensors
from unix.records import Split
from unix.runs import newest_step
from unix.training.assembly import StageParts, open_data
from unix.training.checkpoint import Meta, claim, newest_checkpoint, publish, read_meta, step_folder
from unix.training.engine import Engine, Place
from unix.training.fit import Fit, fit
from unix.training.host_memory import keep_freed_memory
from unix.training.metrics import read_metrics
from unix.training.processes import local_ranks
from unix.training.stages import GenerationStageConfig, Stage, TrainConfig, packing_of
from unix.training.warm_start import NOTE, warm_start

logger = logging.getLogger(__name__)

PREPROCESSING_FILE = "preprocessing.json"
CONFIGURATION_FILE = "configuration.json"


class TrainSummary(Config):
    """What a run of a stage came to."""

    stage: str
    checkpoint: str
    steps: PositiveInt
    seconds: float
    """Of this process alone; an earlier, interrupted part of the run is not in it."""
    loss: float
    """Mean over the last tenth of the steps."""
    trained_parameters: int
    notes: tuple[str, ...]
    """What the checkpoint's user must know."""


def train(config: TrainConfig) -> TrainSummary:
    """Run one stage, in one process or as a rank under torchrun.

    Raises:
        ConfigError: the configuration contradicts itself, its data or its starting checkpoint.
        ResumeError: with `resume`, the run in `run_dir` is another one.
        WeightsError: the starting checkpoint is damaged.
        Interrupted: on SIGTERM or SIGINT, after saving.
    """
    started = time.perf_counter()
    keep_freed_memory()
    place = Place.of_this_process()
    with claim(config.run_dir) if place.rank == 0 else nullcontext():
        if config.stage == Stage.WARM_START:
            trained, meta = _warm_start(config, Engine(place))
        else:
            with local_ranks(_follow, config, config.processes) as place:
                trained, meta = _train_stage(config, place)
    rows = read_metrics(config.run_dir)
    last = [row["loss"] for row in rows[-max(1, len(rows) // 10) :]]
    return TrainSummary(
        stage=config.stage,
        checkpoint=str(step_folder(config.run_dir, config.steps)),
        steps=config.steps,
        seconds=round(time.perf_counter() - started, 1),
        loss=sum(last) / len(last),
        trained_parameters=trained,
        notes=meta.notes,
    )


def _warm_start(config: TrainConfig, engine: Engine) -> tuple[int, Meta]:
    meta = _meta(config, open_data(config, Split.TRAIN).digest, parents=(), notes=(NOTE,))
    done = newest_checkpoint(config.run_dir)
    if done is not None and not config.resume:
        raise ConfigError(f"{config.run_dir} holds a run already; continue it with --resume or give another run_dir")
    made = warm_start(config, engine)
    if done is None:
        write = _writer(config, made.codec, made.tokenizer, packing_of(config))
        publish(
            config.run_dir,
            meta.model_copy(update={"step": config.steps}),
            lambda folder: write(folder, made.model.state_dict()),
        )
    names = {name for name, _ in made.model.understanding_parameters()}
    count = sum(value.numel() for name, value in made.model.named_parameters() if name in names)
    return count + sum(value.numel() for value in made.codec.parameters()), meta


def _follow(config: TrainConfig, place: Place) -> None:
    """Body of the ranks that this machine's rank 0 starts."""
    # Rank 0 says why a run stopped.
    with suppress(Interrupted):
        _train_stage(config, place)


def _train_stage(config: TrainConfig, place: Place) -> tuple[int, Meta]:
    with Engine(place, config.engine) as engine:
        return _fit_stage(config, engine)


def _fit_stage(config: TrainConfig, engine: Engine) -> tuple[int, Meta]:
    start = newest_step(Path(config.from_checkpoint or ""))
    model = engine.load(start, config.model)
    tokenizer = Tokenizer.load(start)
    data = open_data(config, Split.TRAIN, engine.world)
    packing = packing_of(config) if config.understanding else UnderstandingPacking.load(start / PREPROCESSING_FILE)
    parent = read_meta(start)
    stage = config.generation or GenerationStageConfig()
    if stage.copy_understanding:
        model.copy_understanding_to_generation()
    codec = load_codec(start if stage.autoencoder is None else Path(stage.autoencoder))
    parts = StageParts(config, model, codec, tokenizer, packing)
    objective, notes = parts.training(data, start, engine)
    lineage = (*parent.parents, f"{parent.stage}:{parent.configuration_digest}:{parent.step}")
    meta = _meta(config, data.digest, lineage, tuple(dict.fromkeys((*parent.notes, *notes))))
    run = Fit(
        run_dir=Path(config.run_dir),
        meta=meta,
        optimizer=config.optimizer,
        source=data.source,
        workers=config.loader.workers,
        global_batch=config.global_batch,
        checkpoint_every=config.checkpoint_every,
        resume=config.resume,
        module=model,
        write_model=_writer(config, codec, tokenizer, packing),
        incidents=config.incidents,
        tensorboard=config.tensorboard,
        validation=parts.validation(),
        retention=config.retention,
    )
    fit(objective, run, engine)
    return sum(value.numel() for value in objective.parameters().values()), meta


def _meta(config: TrainConfig, shards_digest: str, parents: tuple[str, ...], notes: tuple[str, ...]) -> Meta:
    return Meta(
        stage=config.stage,
        step=0,
        steps=config.steps,
        seed=config.seed,
        loader=None,
        # Where a run lies, how it reads and whether it was interrupted does not change what it is.
        configuration_digest=config.model_copy(
            update={"resume": False, "run_dir": "", "shards": "", "releases": {}, "loader": LoaderConfig()}
        ).digest(),
        architecture_digest=config.model.digest(),
        shards_digest=shards_digest,
        code_revision=code_revision(),
        parents=parents,
        notes=notes,
    )


def _writer(
    config: TrainConfig, codec: ImageCodec, tokenizer: Tokenizer, packing: UnderstandingPacking
) -> Callable[[Path, Mapping[str, Tensor]], None]:
    """Writes the model's side of a checkpoint: all that describing and drawing need, and the resolved configuration."""

    def write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
        save_tensors(folder / "model", tensors, config.model)
        save_module(folder / "vae", codec, codec.config)
        tokenizer.save(folder)
        for name, part in ((PREPROCESSING_FILE, packing), (CONFIGURATION_FILE, config)):
            (folder / name).write_text(json.dumps(part.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")

    return write
