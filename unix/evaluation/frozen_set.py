"""Frozen test sets: named lists of test images of one release, kept in the store, on which models are compared.

A list is written once, at its first use or by command, and never grows: new data makes new releases, and the shards of
the one that was frozen stay where they are, so that every later model is measured on the same pictures and texts.
"""

from pathlib import Path

import polars as pl

from unix.config import Config, json_digest
from unix.data.stream import ShardReader
from unix.errors import ConfigError, ShardError
from unix.evaluation.sampling import chosen_samples
from unix.manifest import MANIFEST_FILE
from unix.records import Split, Task
from unix.store import Store, now

DEFAULT = "default"
"""The set that is frozen at first use."""
TABLE = "test_sets"


class FrozenSet(Config):
    """The samples of one task."""

    name: str
    task: Task
    data_set: str
    release: str
    split: Split
    image_ids: tuple[str, ...]
    """Sorted."""

    def places(self, reader: ShardReader) -> list[int]:
        """Where the samples are in a reader of the release.

        Raises:
            ShardError: some are not there.
        """
        place = {key: index for index, key in enumerate(reader.keys)}
        missing = [key for key in self.image_ids if key not in place]
        if missing:
            raise ShardError(
                f"{reader} lacks {len(missing)} of the {len(self.image_ids)} samples of test set {self.name}, "
                f"such as {missing[0]}: are these the shards that it was frozen from?"
            )
        return [place[key] for key in self.image_ids]


class FrozenSets(Config):
    """A test set of both tasks."""

    name: str
    tasks: dict[Task, FrozenSet]

    def of(self, task: Task) -> FrozenSet:
        """The samples of a task.

        Raises:
            ConfigError: the set has none.
        """
        if task not in self.tasks:
            raise ConfigError(f"test set {self.name} has no samples for {task}: freeze another one")
        return self.tasks[task]

    def summary(self) -> dict[str, object]:
        """Counts and digests, without ids."""
        tasks = {
            task.value: {
                "data_set": frozen.data_set,
                "release": frozen.release,
                "samples": len(frozen.image_ids),
                "digest": frozen.digest(),
            }
            for task, frozen in self.tasks.items()
        }
        digest = json_digest({task.value: frozen.digest() for task, frozen in self.tasks.items()})
        return {"name": self.name, "digest": digest, "tasks": tasks}


def read_frozen(store: Store, name: str) -> FrozenSets | None:
    """The test set of this name, or None."""
    return _frozen(name, store.scan(TABLE).filter(pl.col("name") == name).collect())


def require_frozen(store: Store, name: str) -> FrozenSets:
    """The test set of this name.

    Raises:
        ConfigError: there is none.
    """
    frozen = read_frozen(store, name)
    if frozen is None:
        known = sorted(store.scan(TABLE).select("name").unique().collect()["name"])
        raise ConfigError(
            f"there is no test set {name!r}, only {', '.join(known) or 'none'}: `unix models freeze {name}` makes it"
        )
    return frozen


def freeze(
    store: Store, name: str, shards: str, sets: tuple[str, ...] = (), limit: int | None = None, seed: int = 0
) -> FrozenSets:
    """Freeze the test split of the present releases under a name that is not taken.

    Args:
        store: where the list is kept.
        name: of the test set.
        shards: the folder of the sets.
        sets: one per task; default: for each task the set of the largest pictures.
        limit: at most so many samples of each, chosen by a seeded hash of their ids.
        seed: of that choice.

    Raises:
        ConfigError: the name is taken, sets are missing or ambiguous, or a test split is empty.
    """
    return _write(store, name, _choose(name, shards, sets, limit, seed), first=True)


def freeze_at_first_use(store: Store, name: str, shards: str, limit: int | None = None) -> FrozenSets:
    """The test set of this name; where there is none it is frozen now."""
    present = read_frozen(store, name)
    return present or _write(store, name, _choose(name, shards, (), limit, seed=0), first=False)


def _choose(name: str, shards: str, sets: tuple[str, ...], limit: int | None, seed: int) -> FrozenSets:
    frozen: dict[Task, FrozenSet] = {}
    for folder in _folders(Path(shards), sets):
        reader = ShardReader(folder, Split.TEST)
        if reader.manifest.task in frozen:
            raise ConfigError(f"{folder.name} and {frozen[reader.manifest.task].data_set} serve one task: name one")
        ids = tuple(sorted(reader.keys[index] for index in chosen_samples(reader.keys, limit, seed)))
        if not ids:
            raise ConfigError(f"the test split of {folder} is empty: nothing to freeze")
        frozen[reader.manifest.task] = FrozenSet(
            name=name,
            task=reader.manifest.task,
            data_set=reader.manifest.set,
            release=reader.manifest.release,
            split=Split.TEST,
            image_ids=ids,
        )
    missing = [task.value for task in Task if task not in frozen]
    if missing:
        raise ConfigError(f"{shards} has no set for {' and '.join(missing)}: run `unix shards` first")
    return FrozenSets(name=name, tasks=frozen)


def _folders(root: Path, sets: tuple[str, ...]) -> list[Path]:
    if sets:
        return [root / name for name in sets]
    found: list[Path] = []
    for task in Task:
        sized = {
            int(path.parent.name.rpartition("-")[2]): path.parent
            for path in root.glob(f"{task}-*/{MANIFEST_FILE}")
            if path.parent.name.rpartition("-")[2].isdecimal()  # latents have no pictures
        }
        found += [sized[max(sized)]] if sized else []
    return found


def _write(store: Store, name: str, frozen: FrozenSets, first: bool) -> FrozenSets:
    def add(rows: pl.DataFrame) -> pl.DataFrame:
        if rows.filter(pl.col("name") == name).height:
            if first:
                raise ConfigError(f"there is a test set {name!r} already, and it never changes: choose another name")
            return rows.clear()
        return _rows(frozen)

    store.update(TABLE, add)
    return require_frozen(store, name)


def _rows(frozen: FrozenSets) -> pl.DataFrame:
    parts = [
        pl.DataFrame({"image_id": list(one.image_ids)}).select(
            name=pl.lit(one.name),
            task=pl.lit(task.value),
            data_set=pl.lit(one.data_set),
            release=pl.lit(one.release),
            split=pl.lit(one.split.value),
            image_id="image_id",
            created_at=now(),
        )
        for task, one in frozen.tasks.items()
    ]
    return pl.concat(parts)


def _frozen(name: str, rows: pl.DataFrame) -> FrozenSets | None:
    if rows.is_empty():
        return None
    tasks: dict[Task, FrozenSet] = {}
    for (task,), part in rows.group_by("task"):
        ids = tuple(part["image_id"].sort())
        data_set, release, split = part.select("data_set", "release", "split").row(0)
        tasks[Task(str(task))] = FrozenSet(
            name=name, task=Task(str(task)), data_set=data_set, release=release, split=Split(split), image_ids=ids
        )
    return FrozenSets(name=name, tasks={task: tasks[task] for task in Task if task in tasks})
