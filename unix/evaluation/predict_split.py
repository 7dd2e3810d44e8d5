"""Predicts every sample of a split: workers read shards, predict and write parts; what is there is not done again.

A worker gets places in the split and nothing else, so no image and no text passes through the parent, and memory does
not grow with the split. Parts are cut by place and batches within parts, so processes change no prediction.
"""

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from PIL import Image

from unix.data.images import Pixels
from unix.data.stream import Sample, ShardReader
from unix.errors import EvaluationError
from unix.evaluation.predictions import PredictionFolder, PredictionRun, digest_of_files
from unix.evaluation.results import EvaluateConfig, open_set
from unix.evaluation.settings import sample_seed
from unix.evaluation.workers import PredictorPool
from unix.manifest import write_atomically
from unix.records import Split, Task, join_report
from unix.runs import newest_step

if TYPE_CHECKING:
    from unix.evaluation.predictor import Predictor

GENERATED, RECONSTRUCTED = "generated", "reconstructed"
"""Folders of the drawings and of the real images through the codec, as `<image_id>.png`."""

_LEAST_IN_PART = 32
DECIDING_FILES = (
    *("model.json", "model.safetensors", "vae.json", "vae.safetensors", "tokenizer.json", "preprocessing.json"),
)


@dataclass(frozen=True, slots=True)
class PredictedSplit:
    """All predictions of a split, and where their samples are."""

    rows: pl.DataFrame
    """One row per sample; columns as in `unix.evaluation.predictions.SCHEMAS`."""
    indices: tuple[int, ...]
    """The rows' places in `reader`."""
    reader: ShardReader
    checkpoint: Path
    """The step's folder."""
    folder: Path


@dataclass(frozen=True, slots=True)
class Part:
    """Work for one worker: some samples of one release of a set."""

    folder: str
    run: PredictionRun
    name: str
    shards: str
    indices: tuple[int, ...]
    batch: int


def predict_split(config: EvaluateConfig, task: Task) -> PredictedSplit:
    """Predict what is not predicted yet, and return all of it.

    Raises:
        ConfigError: no set fits, several do, or the split is empty.
        EvaluationError: the folder holds other predictions, or some are missing or unreadable.
        WeightsError: the checkpoint is missing or damaged.
    """
    checkpoint = newest_step(Path(config.checkpoint))
    reader = open_set(config, task, checkpoint)
    indices = tuple(config.places(reader))
    run = _run(config, task, checkpoint, reader)
    folder = PredictionFolder(config.folder(task), run)
    done = folder.done()
    parts = [
        Part(str(folder.path), run, name, str(reader.location), left, config.batch)
        for name, places in _cut(indices, config.batch)
        if (left := tuple(place for place in places if reader.keys[place] not in done))
    ]
    if parts:
        predict = predict_reports if task is Task.UNDERSTANDING else predict_images
        with PredictorPool(config, min(config.processes, len(parts))) as pool:
            label = "describe" if task is Task.UNDERSTANDING else "draw"
            pool.each(predict, parts, sum(len(part.indices) for part in parts), label)
    rows = folder.read([reader.keys[index] for index in indices])
    return PredictedSplit(rows, indices, reader, checkpoint, folder.path)


def generated_images(split: PredictedSplit) -> Iterator[Pixels]:
    """The drawings, uint8 [S, S], in the order of the rows; raises as `generated_image`."""
    for key, digest in split.rows.select("image_id", "image_sha256").iter_rows():
        yield generated_image(split, key, digest)


def generated_image(split: PredictedSplit, key: str, digest: str) -> Pixels:
    """The drawing of one sample, uint8 [S, S].

    Raises:
        EvaluationError: it is missing, or is not the image that was drawn.
    """
    return _image(split.folder / GENERATED / f"{key}.png", digest)


def reconstructed_images(split: PredictedSplit) -> Iterator[Pixels]:
    """The real images through the codec, as `generated_images`."""
    for key in split.rows["image_id"]:
        yield _image(split.folder / RECONSTRUCTED / f"{key}.png")


def predict_reports(predictor: "Predictor", part: Part) -> int:
    """A worker's part of `unix evaluate understanding`: a report for each image; returns how many."""
    rows: list[pl.DataFrame] = []
    for samples in _batches(part):
        seeds = [sample_seed(part.run.seed, sample.image_id) for sample in samples]
        started = time.perf_counter()
        reports = predictor.describe([sample.image for sample in samples], seeds)
        latency = _milliseconds_each(started, samples)
        texts = {
            "prompt": [predictor.prompt] * len(samples),
            "prediction": reports,
            "reference": [join_report(sample.findings, sample.impression) for sample in samples],
            "reference_findings": [sample.findings for sample in samples],
            "reference_impression": [sample.impression for sample in samples],
        }
        rows.append(_rows(samples, seeds, latency, texts))
    return _write(part, rows)


def predict_images(predictor: "Predictor", part: Part) -> int:
    """A worker's part of `unix evaluate generation`: draws each caption, encodes each real image and reads both back.

    Images are on disk before the part that names them.
    """
    rows: list[pl.DataFrame] = []
    resolution = int(part.run.settings["resolution"])
    for samples in _batches(part):
        seeds = [sample_seed(part.run.seed, sample.image_id) for sample in samples]
        captions = [sample.caption for sample in samples]
        started = time.perf_counter()
        drawn = predictor.draw(captions, seeds, resolution)
        latency = _milliseconds_each(started, samples)
        reconstructed = predictor.reconstruct([sample.image for sample in samples])
        _write_images(part, RECONSTRUCTED, samples, reconstructed)
        texts = {
            "prompt": captions,
            "image_sha256": _write_images(part, GENERATED, samples, drawn),
            "read_back": predictor.describe(drawn, seeds),
            "read_back_of_reconstruction": predictor.describe(reconstructed, seeds),
        }
        rows.append(_rows(samples, seeds, latency, texts))
    return _write(part, rows)


def _run(config: EvaluateConfig, task: Task, checkpoint: Path, reader: ShardReader) -> PredictionRun:
    names = ("max_new_tokens", "temperature", "top_p")
    if task is Task.GENERATION:
        names += ("max_caption_tokens", "num_steps", "guidance")
    settings: dict[str, float | int | str] = {name: getattr(config, name) for name in names}
    if task is Task.GENERATION:
        settings["resolution"] = reader.manifest.size
    if config.test_set is not None:
        settings["test_set"] = config.test_set.digest()
    return PredictionRun(
        task=task,
        weights=digest_of_files(checkpoint, DECIDING_FILES),
        data_set=reader.manifest.set,
        release=reader.manifest.release,
        split=reader.split,
        limit=None if config.test_set else config.limit,
        seed=config.seed,
        settings=settings,
    )


def _cut(indices: Sequence[int], batch: int) -> Iterator[tuple[str, Sequence[int]]]:
    """Parts of whole batches, at least `_LEAST_IN_PART` samples each, named by the place of their first."""
    size = -(-_LEAST_IN_PART // batch) * batch
    for start in range(0, len(indices), size):
        yield f"{indices[start]:08d}-{batch}", indices[start : start + size]


def _batches(part: Part) -> Iterator[list[Sample]]:
    reader = _reader(part.shards, part.run.split, part.run.release)
    for start in range(0, len(part.indices), part.batch):
        yield [reader.read(index) for index in part.indices[start : start + part.batch]]


@lru_cache(maxsize=1)
def _reader(shards: str, split: Split, release: str) -> ShardReader:
    return ShardReader(shards, split, release=release)


def _milliseconds_each(started: float, samples: Sequence[Sample]) -> float:
    return (time.perf_counter() - started) * 1000 / len(samples)


def _rows(samples: Sequence[Sample], seeds: Sequence[int], latency: float, texts: dict[str, list[str]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [sample.image_id for sample in samples],
            "study_id": [sample.meta.study_id for sample in samples],
            "subject_id": [sample.meta.subject_id for sample in samples],
            "source": [sample.meta.source for sample in samples],
            "report_sha256": [sample.meta.report_sha256 for sample in samples],
            "seed": seeds,
            "latency_ms": [latency] * len(samples),
            **texts,
        }
    )


def _write(part: Part, rows: Sequence[pl.DataFrame]) -> int:
    PredictionFolder(part.folder, part.run).write_part(part.name, pl.concat(rows))
    return len(part.indices)


def _image(path: Path, digest: str | None = None) -> Pixels:
    try:
        content = path.read_bytes()
        if digest is not None and hashlib.sha256(content).hexdigest() != digest:
            raise EvaluationError(f"{path} is not the image that was drawn; remove the folder to draw again")
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            return np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError) as error:
        raise EvaluationError(f"cannot read the image {path} ({type(error).__name__}): nothing is scored") from error


def _write_images(part: Part, name: str, samples: Sequence[Sample], images: Sequence[Pixels]) -> list[str]:
    """Write each image as PNG; the files' SHA-256, which tells a later reader that it is the image that was drawn."""
    digests: list[str] = []
    for sample, image in zip(samples, images, strict=True):
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        write_atomically(Path(part.folder) / name / f"{sample.image_id}.png", content.getvalue())
        digests.append(hashlib.sha256(content.getvalue()).hexdigest())
    return digests
