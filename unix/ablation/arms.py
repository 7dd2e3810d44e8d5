"""The arms of an ablation: each a short training from the same checkpoint, measured on the same samples."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from unix.config import Config
from unix.evaluation.bootstrap import RESAMPLES
from unix.evaluation.comparison import ModelResult
from unix.evaluation.settings import default_processes
from unix.records import Split
from unix.training.run import train
from unix.training.stages import TrainConfig, load_stage


class AblationConfig(Config):
    """What every ablation is asked."""

    from_checkpoint: str
    """A run's or a step's folder that every arm starts from."""
    shards: str
    """Folder of the shard sets."""
    store: str
    """URI of the store that the shards were built from, which has the reports as written."""
    out: str
    """Folder for the runs, predictions and results; an interrupted ablation goes on in it."""
    preset: str = "tiny"
    settings: tuple[str, ...] = ()
    """Further training settings of every arm, each `a.b=value`."""
    split: Split = Split.TEST
    limit: int | None = Field(default=None, ge=1)
    """At most so many samples of the split."""
    seed: int = 0
    """Of the training, of what is drawn at random, and of the intervals."""
    batch: int = Field(default=64, ge=1)
    processes: int = Field(default_factory=default_processes, ge=1)
    resamples: int = Field(default=RESAMPLES, ge=1)


class AblationSummary(Config):
    """An ablation's table."""

    ablation: str
    from_checkpoint: str
    split: Split
    seed: int
    arms: tuple[ModelResult, ...]
    baselines: dict[str, float]
    verdict: str
    """What the intervals say, in words."""
    synthetic: bool
    """Every sample is of the phantom."""
    page: str
    seconds: float


def arm_config(config: AblationConfig, stage: str, name: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The training of the arm `name`: the preset's stage in the arm's folder; the ablation's own settings come last."""
    settings = [
        f"seed={config.seed}",
        f"shards={config.shards}",
        f"run_dir={Path(config.out) / name / 'run'}",
        f"from_checkpoint={config.from_checkpoint}",
        "resume=true",
        *overrides,
        *config.settings,
    ]
    return load_stage(stage, preset=config.preset, overrides=settings)


def train_arm(training: TrainConfig) -> str:
    """Train, or continue, one arm; its step's folder."""
    return train(training).checkpoint
