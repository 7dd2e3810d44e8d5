"""Drawings of an evaluation against real images, over all and per class, and against training images, by a protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unix.errors import ConfigError
from unix.evaluation import clinical
from unix.evaluation.benchmark_files import DrawnFile, write_benchmark_scores, write_class_scores, write_drawn
from unix.evaluation.bootstrap import Metric
from unix.evaluation.drawn_scores import FEATURES_FOLDER, TOWER, chosen_encoder, drawn_and_real, training_images
from unix.evaluation.feature_distances import NEIGHBOURS
from unix.evaluation.features import FeatureCache
from unix.evaluation.image_metrics import ImageScores, ImageSet, image_metrics, scores_per_class
from unix.evaluation.predict_split import PredictedSplit
from unix.evaluation.privacy import Memorisation, memorisation
from unix.evaluation.protocols import (
    CHEXGENBENCH,
    BenchmarkScores,
    ImageProtocol,
    benchmark_scores,
    class_benchmark_scores,
    drawn_classes_by_prompt,
    first_of_each,
    image_protocol,
)
from unix.evaluation.results import EvaluateConfig
from unix.records import Labels, Split

DRAWN_FILE = "prompt_INFO.csv"
SCORES_FILE = "image_generation_metrics.csv"
CLASSES_FILE = "conditional_image_generation_metrics.csv"
"""Names of the benchmark's files."""


@dataclass(frozen=True, slots=True)
class ImageResults:
    """Everything that features tell about drawings; empty where images are not compared."""

    encoder: str | None = None
    metrics: dict[str, Metric] = field(default_factory=dict[str, Metric])
    per_class: dict[str, ImageScores] = field(default_factory=dict[str, ImageScores])
    benchmark: BenchmarkScores | None = None
    """The row of the benchmark's table, under its protocol."""
    benchmark_per_class: Mapping[str, BenchmarkScores] = field(default_factory=dict[str, BenchmarkScores])
    memorisation: Memorisation | None = None


@dataclass(frozen=True, slots=True)
class Sides:
    """What a protocol compares: real and drawn images, each with its classes."""

    real: ImageSet
    drawn: ImageSet
    real_NK: clinical.BoolArray
    drawn_MK: clinical.BoolArray


def chosen_protocol(name: str, encoder: str | None, average_shards: int) -> ImageProtocol:
    """The protocol of that name, where it goes with the other settings.

    Raises:
        ConfigError: there is none of that name, it needs an encoder, or another one averages no shards.
    """
    protocol = image_protocol(name)
    if protocol is CHEXGENBENCH and encoder is None:
        raise ConfigError(f"the protocol {name} compares images: name an encoder")
    if protocol is not CHEXGENBENCH and average_shards != 1:
        raise ConfigError(
            f"the protocol {name} averages no shards, but average_shards is {average_shards}; {CHEXGENBENCH.name} does"
        )
    return protocol


def sides(
    protocol: ImageProtocol,
    real: ImageSet,
    drawn: ImageSet,
    real_prompts: Sequence[str],
    drawn_prompts: Sequence[str],
    real_labels: Sequence[Labels],
    drawn_labels: Sequence[Labels],
) -> Sides:
    """The images that `protocol` takes of N real and M drawn ones, in the classes that it gives them."""
    real_NK = clinical.positives(real_labels, protocol.uncertain)
    drawn_MK = clinical.positives(drawn_labels, protocol.uncertain)
    if protocol.real_prompts_once:
        kept_N = first_of_each(real_prompts)
        real, real_NK = real.rows(kept_N), real_NK[kept_N]
        real_prompts = [prompt for prompt, kept in zip(real_prompts, kept_N, strict=True) if kept]
    if protocol.classes_by_prompt:
        drawn_MK = drawn_classes_by_prompt(real_NK, real_prompts, drawn_prompts)
    return Sides(real, drawn, real_NK, drawn_MK)


def compared_sets(
    protocol: ImageProtocol, both: Sides, seed: int, resamples: int, average_shards: int = 1
) -> ImageResults:
    """Every score of two sides, with intervals where there are images and patients enough.

    Raises:
        ConfigError: a shard of the benchmark's averages has too few images.
    """
    real, drawn = both.real, both.drawn
    enough = min(len(real), len(drawn)) > NEIGHBOURS
    patients = min(len(set(real.patients)), len(set(drawn.patients)))
    benchmark = enough and protocol is CHEXGENBENCH
    return ImageResults(
        encoder=real.features.encoded_by.name,
        metrics=image_metrics(real, drawn, seed, resamples) if enough and patients > 1 else {},
        per_class=scores_per_class(real, drawn, both.real_NK, both.drawn_MK, seed),
        benchmark=benchmark_scores(real, drawn, average_shards) if benchmark else None,
        benchmark_per_class=class_benchmark_scores(real, drawn, both.real_NK, both.drawn_MK) if benchmark else {},
    )


def compared_images(
    config: EvaluateConfig,
    protocol: ImageProtocol,
    split: PredictedSplit,
    reference: Sequence[Labels],
    average_shards: int = 1,
) -> ImageResults:
    """Drawings of a split against its real images, whose classes are those of the prompts (`reference`)."""
    encoder = chosen_encoder(config.encoder or TOWER, split.checkpoint)
    cache = FeatureCache(split.folder / FEATURES_FOLDER)
    drawn, real = drawn_and_real(split, encoder, cache, protocol.preparation)
    prompts = split.rows["prompt"].to_list()
    both = sides(protocol, real, drawn, prompts, prompts, reference, reference)
    found = compared_sets(protocol, both, config.seed, config.resamples, average_shards)
    if not config.training_images or split.reader.split is Split.TRAIN:
        return found
    training = training_images(
        split, encoder, cache, config.training_images, config.seed, preparation=protocol.preparation
    )
    nearest = memorisation(drawn, training.images, real, config.seed, config.resamples)
    return replace(found, memorisation=nearest)


def write_benchmark_files(folder: Path, images: ImageResults, model: str, alignment: float | None = None) -> None:
    """The benchmark's two tables of scores in `folder`; `model` is what they call the model."""
    if images.benchmark is not None:
        write_benchmark_scores(folder / SCORES_FILE, images.benchmark, model, alignment)
    if images.benchmark_per_class:
        write_class_scores(folder / CLASSES_FILE, images.benchmark_per_class, model)


def write_drawn_file(split: PredictedSplit) -> None:
    """Prompts and file names of a split's drawings, as the benchmark's scripts read them."""
    rows = split.rows.select("prompt", "image_id").iter_rows()
    write_drawn(split.folder / DRAWN_FILE, [DrawnFile(prompt, f"{key}.png") for prompt, key in rows])
