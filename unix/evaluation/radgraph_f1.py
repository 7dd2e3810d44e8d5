"""RadGraph F1 through its optional package, which needs an environment with an older transformers.

The reward is the package's `partial` level, also called RG_ER: entities match by tokens, label and whether they have a
relation at all. Other papers report `simple` or `complete`, so the metric is named by its level and model. Whatever
fails stops the run: a score that vanishes when a file is missing is how tables come to lack a column.
"""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from unix.errors import ConfigError, UnixError
from unix.evaluation.bootstrap import FloatArray

LEVEL = "partial"
PREFIX = f"radgraph_f1_{LEVEL}_"
"""Of the metric's name, which ends in the model's."""
MODELS = ("radgraph", "radgraph-xl", "modern-radgraph-xl")


class RadGraphScorer(Protocol):
    """The package's `F1RadGraph`: mean, score of each report, and annotations of both sides."""

    def __call__(self, refs: list[str], hyps: list[str]) -> Sequence[Any]:
        """Score hypotheses against references, as many of each."""
        ...


def open_radgraph(models: Path, model: str = "radgraph") -> RadGraphScorer:
    """The package's scorer with the unpacked weights in `models/<model>`; nothing is downloaded.

    Raises:
        ConfigError: package, weights or the promise to stay offline are missing; says which and what to do.
    """
    if model not in MODELS:
        raise ConfigError(f"there is no RadGraph model {model!r}; choose one of {', '.join(MODELS)}")
    if not (models / model / "weights.th").is_file():
        raise ConfigError(
            f"{models / model / 'weights.th'} is missing: unpack {model}.tar.gz of StanfordAIMI/RRG_scorers there"
        )
    if os.environ.get("HF_HUB_OFFLINE") != "1":
        raise ConfigError(
            "RadGraph's package fetches the BERT that it was trained from unless HF_HUB_OFFLINE=1 is set; set it, with "
            "that model in the hub's cache"
        )
    try:
        package = importlib.import_module("radgraph")
    except Exception as error:  # it pins old libraries and may fail at import in any way
        raise ConfigError(
            "RadGraph F1 needs the package radgraph, which cannot be imported "
            f"({type(error).__name__}: {error!s:.120}); install radgraph==0.1.18 "
            "with transformers<5 in an environment of its own"
        ) from error
    return package.F1RadGraph(reward_level=LEVEL, model_type=model, model_cache_dir=str(models))


def named_radgraph(place: str) -> tuple[RadGraphScorer, str]:
    """The scorer that `FOLDER[:MODEL]` names (see `open_radgraph`), and the name of its metric."""
    folder, _, model = place.partition(":")
    model = model or MODELS[0]
    return open_radgraph(Path(folder), model), f"{PREFIX}{model}"


def radgraph_scores(scorer: RadGraphScorer, predictions: Sequence[str], references: Sequence[str]) -> FloatArray:
    """F1 of each of N reports, [N]; an empty prediction scores 0.

    Raises:
        UnixError: the package failed, or did not score every report with a number in [0, 1].
    """
    asked = [row for row, text in enumerate(predictions) if text.strip()]
    score_N = np.zeros(len(predictions))
    if asked:
        try:
            scores = scorer(refs=[references[row] for row in asked], hyps=[predictions[row] for row in asked])[1]
            score_N[asked] = np.asarray(scores, dtype=np.float64)
        except Exception as error:  # the message may quote a report
            raise UnixError(f"RadGraph failed on {len(asked)} reports with {type(error).__name__}") from error
    if not ((score_N >= 0) & (score_N <= 1)).all():
        raise UnixError(f"RadGraph gave scores outside [0, 1] or none for some of {len(asked)} reports")
    return score_N
