"""The job that decides about a trained candidate: registers it, holds it against the champion, promotes it or not.

Both were evaluated on the same frozen test set; their predictions are read from those evaluations' folders.
"""

import logging
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import polars as pl
from pydantic import Field

from unix.config import Config
from unix.data.stream import ShardReader
from unix.errors import ConfigError
from unix.evaluation.features import Encoder, ImageItem, image_features, image_files
from unix.evaluation.frozen_set import DEFAULT, FrozenSet, FrozenSets, require_frozen
from unix.evaluation.gate import Comparison, Drawings, GateRule, Measurement, Reports, Standing, judge
from unix.evaluation.predict_split import GENERATED
from unix.evaluation.predictions import PREDICTIONS_FILE
from unix.records import Task
from unix.registry.models import Model, State, explain, list_models, promote, register, retire
from unix.store import Store

logger = logging.getLogger(__name__)


class Outcome(StrEnum):
    """What became of the candidate."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    AWAITING_APPROVAL = "awaiting approval"


class DecideConfig(Config):
    """Which candidate, measured where."""

    store: str
    shards: str | None = None
    """Folder of the sets; None: the store's `shards/`."""
    candidate: str
    """Its run's or step's folder."""
    evaluation: str
    """Folder of its evaluations on the test set, `understanding` and `generation`."""
    champion: str | None = None
    """The model id that it is to be compared with; None: whichever is champion."""
    champion_evaluation: str | None = None
    """Folder of the champion's evaluations, where there is a champion."""
    test_set: str = DEFAULT
    require_approval: bool = False
    """A candidate that passes waits for `unix models promote`."""
    encoder: str = "random"
    """Behind the Fréchet distance: `random` (fixed by a seed), `rad-dino:FOLDER` or `tower:FOLDER`."""
    rule: GateRule = GateRule()


class Decision(Config):
    """What was decided, with every number and the reason."""

    model_id: str
    outcome: Outcome
    reason: str
    champion: str | None
    """The champion now."""
    compared_with: str | None
    """The champion that it was held against; None: the floors."""
    test_set: str
    test_set_digest: str
    comparisons: dict[str, Comparison] = Field(default={})


def decide(config: DecideConfig, open_encoder: Callable[[str, Path | None], Encoder] | None = None) -> Decision:
    """Decide about a candidate once: run again, it tells what was decided.

    Raises:
        ConfigError: there is no such test set, or candidate and champion were not measured alike on it.
        WeightsError: the candidate is no whole checkpoint.
    """
    store = Store(config.store)
    frozen = require_frozen(store, config.test_set)
    candidate = register(store, config.candidate)
    if candidate.state is not State.CANDIDATE:
        return _decision(store, candidate, frozen)
    champion = list_models(store).champion
    if config.champion is not None and config.champion != ("" if champion is None else champion.model_id):
        raise ConfigError(
            f"the candidate is to be compared with {config.champion or 'no champion'}, but the champion is "
            f"{'none' if champion is None else champion.model_id}: evaluate that one and decide again"
        )
    kind, _, folder = config.encoder.partition(":")
    encoder = (open_encoder or _open_encoder)(kind, Path(folder) if folder else None)
    shards = Path(config.shards or store.location("shards"))
    ours = measurement(Path(config.evaluation), shards, frozen, encoder)
    theirs = None
    if champion is not None:
        if config.champion_evaluation is None:
            raise ConfigError(f"{champion.model_id} is the champion: name the folder of its evaluations, too")
        theirs = measurement(Path(config.champion_evaluation), shards, frozen, encoder)
    verdict = judge(ours, theirs, config.rule)
    register(store, config.candidate, verdict.numbers())
    if verdict.standing is Standing.LOST:
        retire(store, candidate.model_id, verdict.sentence)
    elif config.require_approval or not verdict.passed:
        explain(store, candidate.model_id, f"awaits approval: {verdict.sentence}")
    else:
        promote(store, candidate.model_id, verdict.sentence, "" if champion is None else champion.model_id)
    decided = _decision(store, list_models(store).find(candidate.model_id), frozen)
    logger.info("%s: %s", decided.model_id, decided.reason)
    return decided.model_copy(
        update={
            "comparisons": verdict.comparisons,
            "compared_with": None if champion is None else champion.model_id,
        }
    )


def measurement(folder: Path, shards: Path, frozen: FrozenSets, encoder: Encoder) -> Measurement:
    """What a model's evaluations on the frozen samples, in `folder`, say about it.

    Raises:
        ConfigError: an evaluation is missing, or is of other samples.
        SourceError: a drawn image cannot be read.
    """
    written = _predictions(folder, frozen.of(Task.UNDERSTANDING))
    drawn, of = _predictions(folder, frozen.of(Task.GENERATION)), frozen.of(Task.GENERATION)
    reader = ShardReader(shards / of.data_set, of.split, release=of.release)
    places = zip(of.image_ids, of.places(reader), strict=True)
    real = [ImageItem.from_pixels(key, reader.read(place).image) for key, place in places]
    images = image_files({key: folder / Task.GENERATION / GENERATED / f"{key}.png" for key in of.image_ids})
    return Measurement(
        Reports(
            image_ids=written["image_id"].to_list(),
            patients=written["subject_id"].to_list(),
            predicted=written["predicted_labels"].to_list(),
            reference=written["reference_labels"].to_list(),
        ),
        Drawings(
            image_ids=drawn["image_id"].to_list(),
            patients=drawn["subject_id"].to_list(),
            read_back=drawn["read_back_labels"].to_list(),
            prompted=drawn["prompt_labels"].to_list(),
            encoder=encoder.digest,
            drawn_ND=image_features(encoder, images).matrix_ND,
            real_ND=image_features(encoder, real).matrix_ND,
        ),
    )


def _predictions(folder: Path, frozen: FrozenSet) -> pl.DataFrame:
    path = folder / frozen.task / PREDICTIONS_FILE
    if not path.is_file():
        raise ConfigError(f"there is no {path}: run `unix evaluate {frozen.task} --test-set {frozen.name}` first")
    rows = pl.read_parquet(path).sort("image_id")
    if tuple(rows["image_id"]) != frozen.image_ids:
        raise ConfigError(f"{path} is not of test set {frozen.name}: evaluate with --test-set {frozen.name}")
    return rows


def _open_encoder(kind: str, folder: Path | None) -> Encoder:
    from unix.evaluation.encoders import open_encoder  # imports torch

    return open_encoder(kind, folder)


def _decision(store: Store, model: Model, frozen: FrozenSets) -> Decision:
    champion = list_models(store).champion
    outcome = {
        State.CHAMPION: Outcome.PROMOTED,
        State.RETIRED: Outcome.REFUSED,
        State.CANDIDATE: Outcome.AWAITING_APPROVAL,
    }[model.state]
    return Decision(
        model_id=model.model_id,
        outcome=outcome,
        reason=model.reason,
        champion=None if champion is None else champion.model_id,
        compared_with=model.predecessor,
        test_set=frozen.name,
        test_set_digest=str(frozen.summary()["digest"]),
    )
