"""Everything that a model, a release of shards or an evaluation came from, as a tree up to the tables' versions."""

from pathlib import Path

from pydantic import Field

from unix.config import Config
from unix.errors import ConfigError
from unix.evaluation.predict_split import DECIDING_FILES
from unix.evaluation.predictions import RUN_FILE, PredictionRun, digest_of_files
from unix.manifest import MANIFEST_FILE, RELEASES_FOLDER, Manifest, Parents, read_manifest, read_release
from unix.registry.models import Models, list_models
from unix.registry.provenance import DataParent, ModelParents, StageParent, checkpoint_folder, trace
from unix.runs import META_FILE, newest_checkpoint
from unix.store import Store

Fact = str | int | float | None


class Node(Config):
    """One thing, what is known of it, and what it came from."""

    kind: str
    """`model`, `stage`, `evaluation`, `release` or `table`."""
    name: str
    facts: dict[str, Fact] = Field(default={})
    parents: tuple["Node", ...] = ()


def lineage(store: Store, name: str, shards: Path | None = None) -> Node:
    """The tree of what `name` came from.

    `name` is a model's id (or its beginning), a release of a shard set, or a folder: of a run, a step, a shard set or
    an evaluation.

    Raises:
        ConfigError: it is none of these.
    """
    shards = shards or Path(store.location("shards"))
    models, folder = list_models(store), Path(name)
    if folder.is_dir():
        if (folder / RUN_FILE).is_file():
            return _evaluation(folder, shards, models)
        if (folder / MANIFEST_FILE).is_file():
            return _release(folder, read_manifest(folder))
        if (folder / META_FILE).is_file() or newest_checkpoint(folder):
            return _checkpoint(checkpoint_folder(folder), models)
        raise ConfigError(f"{folder} is no run, no step, no shard set and no evaluation")
    for path in sorted(shards.glob(f"*/{RELEASES_FOLDER}/{name}.json")) if name.isalnum() else ():
        return _release(path.parents[1], read_release(path.parents[1], name))
    return _model(models, models.find(name).model_id)


def tree(node: Node, indent: str = "") -> list[str]:
    """The lines of a tree, parents below their child."""
    facts = ", ".join(f"{name} {value}" for name, value in node.facts.items() if value not in (None, ""))
    lines = [f"{indent}{node.kind} {node.name}{f': {facts}' if facts else ''}"]
    return lines + [line for parent in node.parents for line in tree(parent, f"{indent}  ")]


def _model(models: Models, model_id: str) -> Node:
    model = models.find(model_id)
    facts: dict[str, Fact] = {"state": model.state.value, "run": model.run, "checkpoint": model.checkpoint}
    facts |= {"created": f"{model.created_at:%Y-%m-%d %H:%M:%S} UTC", "reason": model.reason, **model.metrics}
    return Node(kind="model", name=model_id, facts=facts, parents=_stages(model.parents, models))


def _checkpoint(step: Path, models: Models) -> Node:
    registered = {model.checkpoint: model.model_id for model in models.models}
    if str(step) in registered:
        return _model(models, registered[str(step)])
    return _stages(trace(step, registered), models)[0]


def _stages(parents: ModelParents, models: Models) -> tuple[Node, ...]:
    """The last stage, below it the one before, and so on up to the model or the checkpoint that all began with."""
    known = {model.model_id for model in models.models}
    before: tuple[Node, ...] = (_model(models, parents.start),) if parents.start in known and parents.start else ()
    for stage in parents.stages:
        data = tuple(_data(each) for each in stage.data)
        before = (Node(kind="stage", name=stage.stage, facts=_facts(stage), parents=(*data, *before)),)
    return before


def _facts(stage: StageParent) -> dict[str, Fact]:
    return {
        "step": stage.step,
        "seed": stage.seed,
        "checkpoint": stage.checkpoint or "gone",
        "configuration": stage.configuration_digest,
        "architecture": stage.architecture_digest,
        "code": stage.code_revision or "unknown",
        "data": None if stage.data else "unknown",
    }


def _data(data: DataParent) -> Node:
    """The release that a stage read: from the shards where they are, else as it was noted."""
    folder = Path(data.folder)
    if (folder / RELEASES_FOLDER / f"{data.release}.json").is_file():
        return _release(folder, read_release(folder, data.release))
    return Node(
        kind="release", name=data.release, facts=_origins(data.set, data.parents), parents=_tables(data.parents)
    )


def _release(folder: Path, manifest: Manifest) -> Node:
    facts = _origins(manifest.set, manifest.parents)
    facts |= {"samples": manifest.live, "added shards": len(manifest.added_shards), "digest": manifest.digest()}
    parents = _tables(manifest.parents)
    before = manifest.parent_release
    if before is not None and (folder / RELEASES_FOLDER / f"{before}.json").is_file():
        parents = (*parents, _release(folder, read_release(folder, before)))
    elif before is not None:
        parents = (*parents, Node(kind="release", name=before, facts={"set": manifest.set}))
    return Node(kind="release", name=manifest.release, facts=facts, parents=parents)


def _origins(name: str, parents: Parents) -> dict[str, Fact]:
    return {
        "set": name,
        "prompt": parents.prompt_version,
        "prompt digest": " ".join(parents.prompt_digests),
        "cleaning model": parents.model,
        "configuration": parents.configuration_digest,
        "code": parents.code_revision,
        **parents.artifacts,
    }


def _tables(parents: Parents) -> tuple[Node, ...]:
    return tuple(
        Node(kind="table", name=table, facts={"version": "absent" if version is None else version})
        for table, version in sorted(parents.tables.items())
    )


def _evaluation(folder: Path, shards: Path, models: Models) -> Node:
    run = PredictionRun.model_validate_json((folder / RUN_FILE).read_bytes())
    facts: dict[str, Fact] = {"task": run.task.value, "split": run.split.value, "limit": run.limit, "seed": run.seed}
    facts |= {"weights": run.weights, **run.settings}
    parents: list[Node] = []
    step = _measured(folder, run, models)
    if step is not None:
        parents.append(_checkpoint(step, models))
    place = shards / run.data_set
    if (place / RELEASES_FOLDER / f"{run.release}.json").is_file():
        parents.append(_release(place, read_release(place, run.release)))
    else:
        parents.append(Node(kind="release", name=run.release, facts={"set": run.data_set}))
    return Node(kind="evaluation", name=str(folder), facts=facts, parents=tuple(parents))


def _measured(folder: Path, run: PredictionRun, models: Models) -> Path | None:
    """The step's folder of the weights that were measured: a registered model's, or one that the evaluation lies in."""
    above = [path for path in folder.absolute().parents if (path / META_FILE).is_file()]
    beside = [path for path in (newest_checkpoint(path) for path in folder.absolute().parents) if path is not None]
    for step in (*above, *beside, *(Path(model.checkpoint) for model in models.models)):
        if digest_of_files(step, DECIDING_FILES) == run.weights:
            return step
    return None
