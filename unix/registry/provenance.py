"""What a checkpoint came from, read from its folder: the stages before it, the shard releases, the store's tables."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any, cast

from pydantic import field_validator

from unix.config import Config, json_digest
from unix.errors import ResumeError, WeightsError
from unix.manifest import MANIFEST_FILE, RELEASES_FOLDER, Manifest, Parents, find_manifest, read_release
from unix.runs import META_FILE, Meta, newest_step, read_meta

CONFIGURATION_FILE = "configuration.json"


class DataParent(Config):
    """The release of a shard set that a stage read."""

    folder: str
    """Of the set."""
    set: str
    release: str
    parents: Parents
    """Table versions, prompt, the model that cleaned, code, configuration."""


class StageParent(Config):
    """One stage that led to a model."""

    stage: str
    checkpoint: str
    """The step's folder, "" where it is no longer there."""
    step: int
    seed: int | None = None
    configuration_digest: str
    architecture_digest: str = ""
    code_revision: str = ""
    data: tuple[DataParent, ...] = ()
    """One release, or of a joint stage two; none where what the stage read is no longer there."""

    @field_validator("data", mode="before")
    @classmethod
    def _one_or_none(cls, value: object) -> object:
        """Rows of the table of models may hold one release, or null."""
        if isinstance(value, list | tuple):
            return cast(Sequence[object], value)
        return () if value is None else (value,)


class ModelParents(Config):
    """Everything that a model came from."""

    stages: tuple[StageParent, ...]
    """The stages in their order; the last is the model's own."""
    start: str | None = None
    """The registered model whose weights the first of `stages` started from."""

    def releases(self) -> dict[str, str]:
        """Shard set -> the release that the latest stage on it read."""
        return {data.set: data.release for stage in self.stages for data in stage.data}


def checkpoint_folder(path: str | Path) -> Path:
    """The absolute folder of the step that a run's or a step's folder stands for.

    Raises:
        WeightsError: there is no whole checkpoint.
    """
    return newest_step(Path(path).absolute())


def model_identity(step: Path) -> str:
    """Name of the model in a step's folder, from its weights and its `meta.json`: the same wherever it lies.

    Raises:
        WeightsError: there are no weights.
    """
    weights = sorted(step.glob("*.safetensors"))
    if not weights:
        raise WeightsError(f"{step} holds no *.safetensors: not a checkpoint of this project")
    digests = {path.name: _file_digest(path) for path in weights}
    return json_digest({"meta": read_meta(step).model_dump(mode="json"), "weights": digests})[:16]


def trace(step: Path, registered: dict[str, str] | None = None) -> ModelParents:
    """Follow a checkpoint back to its start, or to a model in `registered` (step's folder -> model id).

    Raises:
        ResumeError: the checkpoint's own `meta.json` cannot be read. What is missing further back ends the chain.
    """
    known = registered or {}
    meta, configuration = read_meta(step), _configuration(step)
    stages = [_stage(step, meta, configuration)]
    for parent in reversed(meta.parents):
        stage, digest, number = _named(parent)
        step = _earlier(configuration.get("from_checkpoint"), number)
        if str(step) in known:
            return ModelParents(stages=tuple(reversed(stages)), start=known[str(step)])
        try:
            earlier = read_meta(step)
            if (earlier.stage, earlier.configuration_digest) != (stage, digest):
                raise ResumeError(f"{step} now holds another run")
            configuration = _configuration(step)
            stages.append(_stage(step, earlier, configuration))
        except ResumeError:
            configuration = dict[str, Any]()
            stages.append(StageParent(stage=stage, checkpoint="", step=number, configuration_digest=digest))
    return ModelParents(stages=tuple(reversed(stages)))


def find_releases(folders: Sequence[Path], digest: str) -> tuple[Manifest, ...]:
    """The releases that a stage read of the sets in `folders`, by what its `meta.json` notes of them; () if unknown.

    Of one set `digest` is the manifest's; of several it is that of all their digests, in the order of `folders`.
    """
    for chosen in product(*map(_releases, folders)):
        digests = [manifest.digest() for manifest in chosen]
        if digest == (digests[0] if len(digests) == 1 else json_digest(digests)):
            return chosen
    return ()


def _releases(folder: Path) -> Iterator[Manifest]:
    """Of a set, the present one first."""
    if not (folder / MANIFEST_FILE).is_file():
        return
    present = find_manifest(folder)
    if present is not None:
        yield present
    for path in sorted((folder / RELEASES_FOLDER).glob("*.json")):
        if present is None or path.stem != present.release:
            yield read_release(folder, path.stem)


def _stage(step: Path, meta: Meta, configuration: dict[str, Any]) -> StageParent:
    data: tuple[DataParent, ...] = ()
    if configuration.get("shards") and configuration.get("data_set"):
        mixture: dict[str, Any] = configuration.get("mixture") or {}
        names: list[str] = [mixture["understanding_set"]] if mixture.get("understanding") else []
        folders = [Path(configuration["shards"], name).absolute() for name in (*names, configuration["data_set"])]
        data = tuple(
            DataParent(folder=str(folder), set=manifest.set, release=manifest.release, parents=manifest.parents)
            for folder, manifest in zip(folders, find_releases(folders, meta.shards_digest), strict=False)
        )
    return StageParent(
        stage=meta.stage,
        checkpoint=str(step),
        step=meta.step,
        seed=meta.seed,
        configuration_digest=meta.configuration_digest,
        architecture_digest=meta.architecture_digest,
        code_revision=meta.code_revision,
        data=data,
    )


def _configuration(step: Path) -> dict[str, Any]:
    path = step / CONFIGURATION_FILE
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _named(parent: str) -> tuple[str, str, int]:
    """`<stage>:<configuration digest>:<step>` in its parts."""
    stage, _, rest = parent.partition(":")
    digest, _, step = rest.rpartition(":")
    return stage, digest, int(step)


def _earlier(start: str | None, step: int) -> Path:
    """The folder of the step that a run started from; `start` names it or its run."""
    folder = Path(start or "nowhere").absolute()
    return folder if (folder / META_FILE).is_file() else folder / f"step-{step}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
