"""One run of the loop in one folder: optimizer, resume, metrics and checkpoints around `run_steps`."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from unix.data.stream import LoaderState, Sample, SampleSource, stream
from unix.errors import ConfigError
from unix.training.background import BackgroundWriter
from unix.training.checkpoint import (
    Meta,
    RetentionConfig,
    check_resumable,
    discard_partial,
    newest_checkpoint,
    prune,
    publish,
    read_meta,
    step_folder,
)
from unix.training.engine import Engine
from unix.training.incidents import IncidentConfig, Incidents
from unix.training.loop import Objective, Position, StopSignal, run_steps
from unix.training.metrics import MetricsFile
from unix.training.optim import Optimizer, OptimizerConfig
from unix.training.validation import Validation

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Fit:
    """What one run of the loop needs, apart from its objective."""

    run_dir: Path
    meta: Meta
    """Of the finished run; each checkpoint gets it with its own step and loader state."""
    optimizer: OptimizerConfig
    source: SampleSource
    workers: int
    """Threads that read ahead."""
    global_batch: int
    checkpoint_every: int
    resume: bool
    module: nn.Module
    """Its tensors are published."""
    write_model: Callable[[Path, Mapping[str, Tensor]], None]
    """Writes the model's side of a checkpoint: the published tensors, tokenizer, preprocessing."""
    incidents: IncidentConfig = dataclasses.field(default_factory=IncidentConfig)
    tensorboard: bool = False
    """Whether the metrics go to TensorBoard as well."""
    validation: Validation | None = None
    retention: RetentionConfig = dataclasses.field(default_factory=RetentionConfig)


def fit(objective: Objective, run: Fit, engine: Engine) -> Path:
    """Train from the newest whole checkpoint with `resume`, else from step 0; returns the last checkpoint's folder.

    Afterwards the objective's parameters hold what the checkpoint publishes.

    Raises:
        ConfigError: the folder holds a run already and `resume` is off, or the batch does not divide over the ranks.
        ResumeError: the checkpoint to resume from belongs to another run, or is damaged.
        Interrupted: on SIGTERM or SIGINT, after saving.
        UnixError: a checkpoint could not be written, or too many steps in a row were not finite.
    """
    optimizer = Optimizer(objective.parameters(), run.optimizer, run.meta.steps)
    position = _resume(run, optimizer, engine) if run.resume else Position(0, None)
    if not run.resume and newest_checkpoint(run.run_dir) is not None:
        raise ConfigError(f"{run.run_dir} holds a run already; continue it with --resume or give another run_dir")

    writer = BackgroundWriter()

    def save(at: Position) -> None:
        loader = None if at.loader is None else dataclasses.asdict(at.loader)
        meta = run.meta.model_copy(update={"step": at.step, "loader": loader})
        writer.wait()
        if engine.is_main:
            discard_partial(run.run_dir, at.step)
        engine.barrier()
        state, tensors = engine.stage(optimizer.state(), optimizer.publish(run.module.state_dict()))

        def write(folder: Path) -> None:
            engine.save_state(folder, state)
            if engine.is_main:
                run.write_model(folder, tensors)

        def save_aside() -> None:
            publish(run.run_dir, meta, write, engine.is_main)
            if engine.is_main:
                prune(run.run_dir, run.retention)

        if engine.writes:
            writer.start(save_aside)

    def look(step: int) -> dict[str, float]:
        writer.check()  # a disk that is full now must not go unnoticed until the next checkpoint
        if run.validation is None or not run.validation.is_due(step):
            return {}
        with optimizer.published():
            return run.validation.look(step, engine)

    def run_loop(metrics: MetricsFile | None) -> None:
        run_steps(
            objective,
            optimizer,
            engine,
            _samples(run, position.loader, engine),
            position,
            steps=run.meta.steps,
            metrics=metrics,
            incidents=Incidents(run.incidents, run.run_dir, engine, run.meta.stage),
            look=look,
            save=save,
            checkpoint_every=run.checkpoint_every,
            label=run.meta.stage,
            stop=stop,
        )

    with StopSignal() as stop, writer:
        if engine.is_main:
            with MetricsFile(run.run_dir, position.step, run.tensorboard) as metrics:
                run_loop(metrics)
        else:
            run_loop(None)
    optimizer.settle()
    return step_folder(run.run_dir, run.meta.steps)


def _samples(run: Fit, state: LoaderState | None, engine: Engine) -> Iterator[tuple[list[Sample], LoaderState]]:
    return stream(
        run.source,
        run.meta.seed,
        run.global_batch,
        state,
        rank=engine.rank,
        world_size=engine.world,
        workers=run.workers,
    )


def _resume(run: Fit, optimizer: Optimizer, engine: Engine) -> Position:
    folder = newest_checkpoint(run.run_dir)
    if folder is None:
        logger.info("%s holds no whole checkpoint yet: starting at step 0", run.run_dir)
        return Position(0, None)
    meta = read_meta(folder)
    check_resumable(folder, meta, run.meta)
    optimizer.load_state(engine.load_state(folder, optimizer.state()))
    return Position(meta.step, LoaderState(**meta.loader) if meta.loader else None)
