"""The store's table of models: registered with everything they came from; at any time at most one is the champion.

Every change of state is one Delta commit on the version that it was decided on, so two processes cannot both promote.
A champion names its predecessor, so that it can be taken back as often as there were promotions.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import polars as pl
from pydantic import Field

from unix.config import Config
from unix.errors import ConfigError
from unix.registry.provenance import ModelParents, checkpoint_folder, model_identity, trace
from unix.runs import META_FILE
from unix.store import SCHEMAS, Store

TABLE = "models"


class State(StrEnum):
    """Where a model stands."""

    CANDIDATE = "candidate"
    """Nobody has decided yet."""
    CHAMPION = "champion"
    """The promoted one."""
    RETIRED = "retired"
    """Refused, or replaced."""


class Model(Config):
    """A row of the table."""

    model_id: str
    run: str
    stage: str
    checkpoint: str
    """The step's folder."""
    parents: ModelParents
    metrics: dict[str, float]
    state: State
    predecessor: str | None = None
    """The champion that it took over from."""
    reason: str = ""
    """Of its present state."""
    created_at: datetime
    changed_at: datetime


class Models(Config):
    """The models of a store, the newest first."""

    models: tuple[Model, ...] = Field(default=())

    @property
    def champion(self) -> Model | None:
        """The promoted model."""
        return next((model for model in self.models if model.state is State.CHAMPION), None)

    def find(self, model_id: str) -> Model:
        """The model of this id, or of the only one that begins so.

        Raises:
            ConfigError: there is none, or there are several.
        """
        fitting = [model for model in self.models if model.model_id.startswith(model_id)] if model_id else []
        if len(fitting) != 1:
            listed = ", ".join(model.model_id for model in self.models) or "none"
            problem = f"{len(fitting)} models begin with" if fitting else "there is no model"
            raise ConfigError(f"{problem} {model_id!r}; registered: {listed}")
        return fitting[0]


class Transition(Config):
    """What a promotion or a rollback did."""

    champion: str
    """The champion now."""
    former: str | None
    """The champion before."""
    reason: str


def list_models(store: Store) -> Models:
    """The registered models."""
    return _models(store.read(TABLE))


def register(store: Store, checkpoint: str, metrics: Mapping[str, float] | None = None) -> Model:
    """Enter a finished run, or one of its steps, as a candidate; a model that is there keeps its state and its time.

    Raises:
        WeightsError: there is no whole checkpoint.
        ResumeError: its `meta.json` cannot be read.
    """
    step = checkpoint_folder(checkpoint)
    identity, written_at = model_identity(step), datetime.now(UTC)
    present = {model.checkpoint: model.model_id for model in list_models(store).models if model.model_id != identity}
    parents = trace(step, present)

    def enter(rows: pl.DataFrame) -> pl.DataFrame:
        old = {model.model_id: model for model in _models(rows).models}.get(identity)
        model = Model(
            model_id=identity,
            run=step.parent.name,
            stage=parents.stages[-1].stage,
            checkpoint=str(step),
            parents=parents if old is None else old.parents,
            metrics=dict(metrics or (old.metrics if old else {})),
            state=State.CANDIDATE if old is None else old.state,
            predecessor=None if old is None else old.predecessor,
            reason="registered" if old is None else old.reason,
            created_at=written_at if old is None else old.created_at,
            changed_at=written_at if old is None else old.changed_at,
        )
        return _rows([] if model == old else [model])

    store.update(TABLE, enter)
    return list_models(store).find(identity)


def promote(store: Store, model_id: str, reason: str, champion: str | None = None) -> Transition:
    """Make a model the champion and retire the one before. Promoting the champion changes nothing.

    `champion` is the model id that the decision was made against, where it was: "" stands for none.

    Raises:
        ConfigError: there is no such model, its checkpoint is gone, or another one is champion by now than `champion`.
    """
    done: list[Transition] = []

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        models = _models(rows)
        model, before = models.find(model_id), models.champion
        former = None if before is None else before.model_id
        if model == before:
            done[:] = [Transition(champion=model.model_id, former=former, reason=model.reason)]
            return _rows([])
        if champion is not None and (former or "") != champion:
            raise ConfigError(
                f"{model.model_id} was compared with {champion or 'no champion'}, but by now {former or 'none'} is "
                "the champion: judge it again"
            )
        _require_weights(model)
        done[:] = [Transition(champion=model.model_id, former=former, reason=reason)]
        changes = [_with(model, State.CHAMPION, reason, former)]
        return _rows([*changes, *([] if before is None else [_with(before, State.RETIRED, f"replaced: {reason}")])])

    store.update(TABLE, change)
    return done[0]


def retire(store: Store, model_id: str, reason: str) -> None:
    """Note that a candidate was refused; a champion stays champion."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        model = _models(rows).find(model_id)
        return _rows([] if model.state is State.CHAMPION else [_with(model, State.RETIRED, reason)])

    store.update(TABLE, change)


def explain(store: Store, model_id: str, reason: str) -> None:
    """Say why a candidate waits; its state stays."""

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        model = _models(rows).find(model_id)
        return _rows([_with(model, model.state, reason)] if model.state is State.CANDIDATE else [])

    store.update(TABLE, change)


def rollback(store: Store, reason: str, model_id: str | None = None) -> Transition:
    """Restore the champion before the present one, or an earlier one by its id, and retire the present one.

    The present champion's own id means the one before it, too.

    Raises:
        ConfigError: there is no such former champion, or its checkpoint is gone.
    """
    done: list[Transition] = []

    def change(rows: pl.DataFrame) -> pl.DataFrame:
        models = _models(rows)
        present = models.champion
        if present is None:
            raise ConfigError("there is no champion to roll back; `unix models promote ID` chooses one")
        former = _former_champions(models, present)
        wanted = None if model_id is None else models.find(model_id)
        before = former[0] if former and wanted in (None, present) else wanted
        if before not in former:
            listed = ", ".join(model.model_id for model in former) or f"none, {present.model_id} is the first"
            raise ConfigError(f"no former champion to roll back to; before the present one: {listed}")
        _require_weights(before)
        done[:] = [Transition(champion=before.model_id, former=present.model_id, reason=reason)]
        restored = f"restored: {present.model_id} was {reason}"
        return _rows(
            [_with(present, State.RETIRED, reason), _with(before, State.CHAMPION, restored, before.predecessor)]
        )

    store.update(TABLE, change)
    return done[0]


def _former_champions(models: Models, champion: Model) -> list[Model]:
    """The champions before this one, the latest first, each once."""
    former: list[Model] = []
    while champion.predecessor is not None:
        champion = models.find(champion.predecessor)
        if champion in former:
            break
        former.append(champion)
    return former


def _require_weights(model: Model) -> None:
    if not Path(model.checkpoint, META_FILE).is_file():
        raise ConfigError(f"the checkpoint of {model.model_id}, {model.checkpoint}, is gone: it cannot be the champion")


def _with(model: Model, state: State, reason: str, predecessor: str | None = None) -> Model:
    kept = predecessor if state is State.CHAMPION else model.predecessor
    return model.model_copy(
        update={"state": state, "reason": reason, "changed_at": datetime.now(UTC), "predecessor": kept}
    )


def _models(rows: pl.DataFrame) -> Models:
    newest_first = rows.sort("created_at", "model_id", descending=True)
    return Models(
        models=tuple(
            Model(**{**row, "parents": json.loads(row["parents"]), "metrics": json.loads(row["metrics"])})
            for row in newest_first.iter_rows(named=True)
        )
    )


def _rows(models: Iterable[Model]) -> pl.DataFrame:
    rows = [
        {
            **model.model_dump(),
            "parents": model.parents.model_dump_json(),
            "metrics": json.dumps(model.metrics, sort_keys=True),
        }
        for model in models
    ]
    return pl.DataFrame(rows, schema=SCHEMAS[TABLE])
