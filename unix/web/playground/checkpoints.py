"""The models that people may choose from: the registered ones, then every run with a whole checkpoint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from unix.registry.models import State, list_models
from unix.runs import list_runs
from unix.store import Store

_READS = ("stage1", "stage2", "stage3")
_DRAWS = ("stage2", "stage3")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model to choose."""

    key: str
    """What forms send: never a path."""
    name: str
    folder: str
    """A run's or a step's."""
    stage: str
    champion: bool = False

    @property
    def reads(self) -> bool:
        """Whether it was trained to write reports."""
        return self.stage in _READS

    @property
    def draws(self) -> bool:
        """Whether it was trained to draw."""
        return self.stage in _DRAWS


def folder_key(folder: str) -> str:
    """A name for a folder that tells nothing of where it is."""
    return hashlib.sha256(folder.encode()).hexdigest()[:16]


def checkpoints(runs: str, store: Store) -> list[Checkpoint]:
    """What may be chosen: the champion first, then what draws, what reads, the newest of each first."""
    registered = [
        Checkpoint(
            key=folder_key(model.checkpoint),
            name=f"{model.model_id[:8]} · {model.stage}, {model.state.value}",
            folder=model.checkpoint,
            stage=model.stage,
            champion=model.state is State.CHAMPION,
        )
        for model in list_models(store).models
        if Path(model.checkpoint).is_dir()
    ]
    present = list_runs(runs) if Path(runs).is_dir() else []
    trained = [
        Checkpoint(
            key=folder_key(row.folder),
            name=f"{Path(row.folder).name} · {row.stage}, step {row.checkpoint:,}",
            folder=row.folder,
            stage=row.stage,
        )
        for row in present
        if row.stage is not None and row.checkpoint
    ]
    return sorted([*registered, *trained], key=lambda one: (not one.champion, not one.draws, not one.reads))


def chosen(known: list[Checkpoint], keys: list[str]) -> tuple[Checkpoint, ...]:
    """The checkpoints of these keys, in this order, each once; unknown and empty keys are left out."""
    by_key = {one.key: one for one in known}
    return tuple(by_key[key] for key in dict.fromkeys(keys) if key in by_key)
