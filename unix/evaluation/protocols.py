"""Other people's protocols, as settings and pure functions: what their numbers are compared with, and only that.

`chexgenbench` is CheXGenBench's image quality as its scripts compute it; `unix-paper` is how the paper scored reports.
Each distorts something (docs/evaluation.md says what), so neither is the default and every summary names its protocol.
What is plainly broken is not repeated: blank images for unreadable ones, "nan" for a report that failed.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation.bootstrap import Draws, Patients
from unix.evaluation.clinical import agreement_draws
from unix.evaluation.feature_distances import NEIGHBOURS, frechet_distance, kernel_distance, neighbourhoods
from unix.evaluation.features import Preparation, same_encoder
from unix.evaluation.image_metrics import ImageSet
from unix.evaluation.labelers import Labeler, label_reports, same_labeler
from unix.evaluation.text_metrics import UNIFORM_WEIGHTS, text_draws
from unix.records import no_labels

BoolArray = NDArray[np.bool_]


class ImageProtocol(Config):
    """How images are prepared and which are compared."""

    name: str
    preparation: Preparation
    """What is done to every image before the encoder's own preprocessing."""
    real_prompts_once: bool
    """Of real images with one prompt only the first is kept; drawn images all stay."""
    classes_by_prompt: bool
    """A drawn image belongs to a class where its prompt is that of a real image of it, else where its own text says."""


class ReportProtocol(Config):
    """How reports are cut and scored.

    Texts on both sides read `FINDINGS: ... IMPRESSION: ...` in every protocol (`unix.records.join_report`).
    """

    name: str
    label_characters: int | None
    """Labels are read from so many first characters of both texts."""
    bleu_weights: tuple[tuple[float, ...], ...]
    """Of BLEU-1..4."""


CHEXGENBENCH = ImageProtocol(
    name="chexgenbench", preparation=Preparation.SQUASHED_299, real_prompts_once=True, classes_by_prompt=True
)
NATIVE_IMAGES = ImageProtocol(
    name="native", preparation=Preparation.NONE, real_prompts_once=False, classes_by_prompt=False
)
UNIX_PAPER = ReportProtocol(
    name="unix-paper",
    label_characters=512,
    bleu_weights=(UNIFORM_WEIGHTS[0], UNIFORM_WEIGHTS[1], (0.33, 0.33, 0.33), UNIFORM_WEIGHTS[3]),
)
NATIVE_REPORTS = ReportProtocol(name="native", label_characters=None, bleu_weights=UNIFORM_WEIGHTS)


class BenchmarkScores(Config):
    """What a row of the benchmark's table holds; of several shards, plain means of each shard's scores."""

    frechet_distance: float
    kernel_distance: float
    precision: float
    recall: float
    density: float
    coverage: float
    n_real: int
    n_drawn: int
    shards: int
    """More than one makes the Frechet distance about as many times more biased."""


def benchmark_scores(real: ImageSet, drawn: ImageSet, shards: int = 1) -> BenchmarkScores:
    """The benchmark's scores; with `shards`, both sides are cut into so many runs in their order and scores averaged.

    Its kernel distance is a mean over 100 permutations of whole sets; that is the distance of the sets, taken once.

    Raises:
        ConfigError: encoders differ, or a shard has too few images.
    """
    same_encoder(real.features, drawn.features)
    rows: list[tuple[float, ...]] = []
    parts = (np.array_split(np.arange(len(side)), shards) for side in (real, drawn))
    for real_part, drawn_part in zip(*parts, strict=True):
        one, other = real.matrix[real_part], drawn.matrix[drawn_part]
        near = neighbourhoods(one, other, NEIGHBOURS)
        scores = (near.precise_M.mean(), near.recalled_N.mean(), near.density_M.mean(), near.covered_N.mean())
        rows.append((frechet_distance(one, other), kernel_distance(one, other), *map(float, scores)))
    frechet, kernel, precision, recall, density, coverage = np.mean(rows, axis=0).tolist()
    return BenchmarkScores(
        frechet_distance=frechet,
        kernel_distance=kernel,
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        n_real=len(real),
        n_drawn=len(drawn),
        shards=shards,
    )


def first_of_each(prompts: Sequence[str]) -> BoolArray:
    """Which prompts occur for the first time: [N]."""
    seen: set[str] = set()
    return np.array([not (prompt in seen or seen.add(prompt)) for prompt in prompts], dtype=bool)


def drawn_classes_by_prompt(real_NK: BoolArray, real_prompts: Sequence[str], drawn_prompts: Sequence[str]) -> BoolArray:
    """Classes of drawn images as the benchmark gives them, [M, K]: those of any real image with the same prompt."""
    classes: dict[str, BoolArray] = {}
    for prompt, present_K in zip(real_prompts, real_NK, strict=True):
        classes[prompt] = classes.get(prompt, np.zeros_like(present_K)) | present_K
    none_K = np.zeros(real_NK.shape[1], dtype=bool)
    return np.stack([classes.get(prompt, none_K) for prompt in drawn_prompts])


def protocol_draws(
    protocol: ReportProtocol,
    labeler: Labeler,
    predictions: Sequence[str],
    references: Sequence[str],
    resampled: Patients,
) -> dict[str, Draws]:
    """Label and text scores under a protocol.

    Raises:
        ConfigError: a reference is blank, or a text is none.
    """
    predicted, reference = (
        label_reports(labeler, texts, protocol.label_characters) for texts in (predictions, references)
    )
    same_labeler(predicted, reference)
    if any(labels is None for labels in reference.labels):
        raise ConfigError("a blank reference cannot score a report; leave its sample out and count it")
    true = [labels or no_labels() for labels in reference.labels]
    return agreement_draws(predicted.labels, true, resampled) | text_draws(
        predictions, references, resampled, protocol.bleu_weights
    )
