"""What an evaluation is asked and what it answers; which samples of a split it takes."""

import json
from pathlib import Path

from pydantic import Field

from unix.config import Config
from unix.data.stream import ShardReader
from unix.errors import ConfigError
from unix.evaluation.bootstrap import RESAMPLES, Metric
from unix.evaluation.clinical import ClassScore
from unix.evaluation.frozen_set import FrozenSet
from unix.evaluation.image_metrics import ImageScores
from unix.evaluation.privacy import Memorisation
from unix.evaluation.protocols import NATIVE, BenchmarkScores
from unix.evaluation.sampling import chosen_samples
from unix.evaluation.settings import PredictorConfig, default_processes, trained_on
from unix.records import Split, Task, join_report
from unix.runs import newest_step


class EvaluateConfig(PredictorConfig):
    """Which model is measured on which samples."""

    shards: str
    """Folder of the shard sets, or of the one to use."""
    data_set: str | None = None
    """Name of the set in `shards`; default: the one that the checkpoint was last trained on, or the only one."""
    split: Split = Split.TEST
    limit: int | None = Field(default=None, ge=1)
    """At most so many samples, chosen by a seeded hash of their ids."""
    test_set: FrozenSet | None = None
    """Frozen samples to measure on, which then decide set, release, split and limit."""
    out: str | None = None
    """Folder for predictions and results; default: `evaluation/<task>` in a step's folder, or in a run's folder
    `evaluation/step-<N>/<task>`."""
    store: str | None = None
    """The store's URI: where it has a study's report as written, metrics against that come beside the others."""
    seed: int = 0
    processes: int = Field(default_factory=default_processes, ge=1)
    """Worker processes; the number changes no result."""
    protocol: str = NATIVE
    """How samples are scored; `unix.evaluation.protocols` has those that there are. It changes no prediction."""
    labeler: str = "rules"
    """Who reads labels out of texts: `rules`, or `chexbert:PATH[:BERT_FOLDER]`."""
    encoder: str | None = "tower"
    """What images are compared by: `tower` (of the checkpoint), `tower:FOLDER`, `rad-dino:FOLDER`, `random`; None:
    images are not compared."""
    training_images: int = Field(default=2000, ge=0)
    """Training images, at most, among which the nearest is looked for; 0: none is."""
    resamples: int = Field(default=RESAMPLES, ge=1)
    """Bootstrap resamples behind each interval."""

    def folder(self, task: Task) -> Path:
        """Where predictions go."""
        if self.out:
            return Path(self.out)
        given = Path(self.checkpoint)
        step = newest_step(given)
        named = () if self.test_set is None else (f"on-{self.test_set.name}",)
        return given.joinpath("evaluation", *(() if step == given else (step.name,)), *named, task)

    def places(self, reader: ShardReader) -> list[int]:
        """The samples to measure, as places in what `open_set` gave."""
        if self.test_set is not None:
            return self.test_set.places(reader)
        return chosen_samples(reader.keys, self.limit, self.seed)


class EvaluationSummary(Config):
    """The numbers of one evaluation; every metric has its N and its interval over patients."""

    task: Task
    checkpoint: str
    protocol: str = NATIVE
    references: str
    """What counts as true, in words."""
    protocol_told: str = ""
    """What the protocol does to the numbers, in words."""
    labeler: str = "rules"
    """Who read the labels out of both sides' texts."""
    data_set: str
    release: str
    """Release of the shard set's manifest."""
    split: Split
    resolution: int
    """Side of the images, pixels."""
    seed: int
    n: int
    failures: int
    """Samples for which no text came out; they count as wrong, never as absent."""
    metrics: dict[str, Metric]
    per_class: dict[str, ClassScore]
    baselines: dict[str, float]
    encoder: str | None = None
    """What images were compared by; distances of different encoders have no common scale."""
    images_per_class: dict[str, ImageScores] = Field(default={})
    """Drawings for prompts that name a class, against real images whose reports do."""
    benchmark: BenchmarkScores | None = None
    """The row of the benchmark's own table, where its protocol was asked for."""
    memorisation: Memorisation | None = None
    """Nearest training images of drawings and of unseen real images."""
    seconds: float
    predictions: str
    """The Parquet file with one row per sample."""
    report_html: str = ""
    """The page."""


def open_set(config: EvaluateConfig, task: Task, step: Path) -> ShardReader:
    """The shard set to evaluate on.

    That is the release of a frozen test set where one is given; else `shards` itself where it is a set, else the set in
    it that `data_set` names, else the one that the checkpoint in the folder `step` was last trained on, else the only
    one for the task.

    Raises:
        ConfigError: no set fits, several do, or the split is empty.
    """
    root = Path(config.shards)
    if config.test_set is not None:
        frozen = config.test_set
        return ShardReader(root / frozen.data_set, frozen.split, release=frozen.release)
    if config.data_set is not None:
        folder = root / config.data_set
    elif (root / "manifest.json").is_file():
        folder = root
    else:
        fitting = [path.parent for path in sorted(root.glob(f"{task}-*/manifest.json"))]
        fitting = [path for path in fitting if not path.name.endswith("-latents")]
        if len(fitting) > 1:
            fitting = [path for path in fitting if path.name == trained_on(step)] or fitting
        if len(fitting) != 1:
            found = ", ".join(path.name for path in fitting) or "none"
            raise ConfigError(f"{root} must hold one {task} set, or data_set must name it; it holds: {found}")
        folder = fitting[0]
    reader = ShardReader(folder, config.split)
    if not reader.samples:
        raise ConfigError(f"the {config.split} split of {folder} is empty: nothing to evaluate")
    return reader


def training_reports(folder: Path, limit: int, seed: int) -> list[str]:
    """Reports of the set's training split, at most `limit`; images are not decoded.

    Raises:
        ConfigError: the training split is empty.
    """
    reader = ShardReader(folder, Split.TRAIN)
    if not reader.samples:
        raise ConfigError(f"{folder} has no training split: baselines are chosen on it")
    reports: list[str] = []
    for index in chosen_samples(reader.keys, limit, seed):
        record = json.loads(reader.read_members(index)[1]["json"])
        reports.append(join_report(record["findings"], record["impression"]))
    return reports
