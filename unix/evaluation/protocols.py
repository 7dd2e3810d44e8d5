"""Other people's protocols, as settings and pure functions: what their numbers are compared with, and only that.

`chexgenbench` is CheXGenBench's image quality as its scripts compute it; `unix-paper` is how the paper scored reports.
Each distorts something (docs/evaluation.md says what), so neither is the default and every summary names its protocol.
What is plainly broken is not repeated: blank images for unreadable ones, "nan" for a report that failed.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation.clinical import Uncertain
from unix.evaluation.feature_distances import NEIGHBOURS, frechet_distance, kernel_distance, neighbourhoods
from unix.evaluation.features import Preparation, same_encoder
from unix.evaluation.image_metrics import ImageSet
from unix.evaluation.text_metrics import UNIFORM_WEIGHTS
from unix.records import CHEXPERT_14

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
    uncertain: Uncertain
    """What an uncertain label counts as where images are put into classes."""
    told: str
    """What it does to the numbers, in words."""


class ReportProtocol(Config):
    """How reports are cut and scored.

    Texts on both sides read `FINDINGS: ... IMPRESSION: ...` in every protocol (`unix.records.join_report`).
    """

    name: str
    label_characters: int | None
    """Labels are read from so many first characters of both texts."""
    bleu_weights: tuple[tuple[float, ...], ...]
    """Of BLEU-1..4."""
    told: str
    """What it does to the numbers, in words."""


Kind = TypeVar("Kind", ImageProtocol, ReportProtocol)

NATIVE = "native"
"""Every sample as it stands in the shards, whole texts, whole sets, no prompt or report left out."""

CHEXGENBENCH = ImageProtocol(
    name="chexgenbench",
    preparation=Preparation.SQUASHED_299,
    real_prompts_once=True,
    classes_by_prompt=True,
    uncertain=Uncertain.NEGATIVE,
    told="images are squashed to 299 x 299 before the encoder sees them; of real images with one prompt only the first "
    "is kept, while all drawings stay; a drawing has the classes of the real images of its prompt, uncertain ones not",
)
NATIVE_IMAGES = ImageProtocol(
    name=NATIVE,
    preparation=Preparation.NONE,
    real_prompts_once=False,
    classes_by_prompt=False,
    uncertain=Uncertain.POSITIVE,
    told="every image as it stands; a drawing has the classes of its own text",
)
UNIX_PAPER = ReportProtocol(
    name="unix-paper",
    label_characters=512,
    bleu_weights=(UNIFORM_WEIGHTS[0], UNIFORM_WEIGHTS[1], (0.33, 0.33, 0.33), UNIFORM_WEIGHTS[3]),
    told="labels are read from the first 512 characters of both texts: what stands behind them counts on neither side; "
    "the weights of BLEU-3 sum to 0.99, which raises it a little",
)
NATIVE_REPORTS = ReportProtocol(
    name=NATIVE, label_characters=None, bleu_weights=UNIFORM_WEIGHTS, told="whole texts on both sides"
)


def report_protocol(name: str) -> ReportProtocol:
    """The protocol that reports are scored by.

    Raises:
        ConfigError: there is none of that name.
    """
    return _named(name, (NATIVE_REPORTS, UNIX_PAPER), "reports")


def image_protocol(name: str) -> ImageProtocol:
    """The protocol that drawings are scored by.

    Raises:
        ConfigError: there is none of that name.
    """
    return _named(name, (NATIVE_IMAGES, CHEXGENBENCH), "drawings")


def _named(name: str, offered: Sequence[Kind], scored: str) -> Kind:
    for protocol in offered:
        if protocol.name == name:
            return protocol
    names = " or ".join(protocol.name for protocol in offered)
    raise ConfigError(f"there is no protocol {name!r} for {scored}; choose {names}")


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


def class_benchmark_scores(
    real: ImageSet, drawn: ImageSet, real_NK: BoolArray, drawn_MK: BoolArray
) -> dict[str, BenchmarkScores]:
    """The benchmark's scores of each class with more images on both sides than `NEIGHBOURS`; others have none."""
    found: dict[str, BenchmarkScores] = {}
    for name, real_N, drawn_M in zip(CHEXPERT_14, real_NK.T, drawn_MK.T, strict=True):
        if min(real_N.sum(), drawn_M.sum()) > NEIGHBOURS:
            found[name] = benchmark_scores(real.rows(real_N), drawn.rows(drawn_M))
    return found


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
