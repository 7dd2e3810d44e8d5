"""Whether a retraining is due, and what it is to do. All its state is in the store, so no message has to arrive.

A release of the shard sets is covered once a model is registered that was trained on it, whatever was decided about the
model. A retraining that was killed has registered none, so its release is found again, and the same plan leads to the
same folders, where the runs resume. A release that came meanwhile makes another plan: the newest wins.
"""

from pathlib import Path

from pydantic import Field

from unix.config import Config, json_digest
from unix.data.drift import released_images
from unix.errors import ConfigError
from unix.evaluation.frozen_set import DEFAULT, freeze_at_first_use
from unix.manifest import MANIFEST_FILE, RELEASES_FOLDER, Manifest, read_manifest, read_release
from unix.registry.models import Models, list_models
from unix.registry.provenance import checkpoint_folder
from unix.store import Store

_STUDY = ("source", "study_id")


class PlanConfig(Config):
    """What would be trained, and from how much news on."""

    store: str
    shards: str | None = None
    """Folder of the sets; None: the store's `shards/`."""
    runs: str = "runs/retrain"
    """Folder for the runs; every plan has a folder of its own in it."""
    preset: str = "paper"
    settings: tuple[str, ...] = ()
    """Of every stage, each `a.b=value`."""
    start: str | None = None
    """Checkpoint to start from while there is no champion."""
    min_new_studies: int = Field(default=1, ge=1)
    """New or changed studies since the last covered release from which on it is worth it."""
    test_set: str = DEFAULT
    """Frozen at the first plan that is due."""
    test_limit: int | None = Field(default=None, ge=1)
    """At most so many samples of each task, when it is frozen."""


class RetrainPlan(Config):
    """What to do, or why nothing."""

    due: bool
    reason: str
    new_studies: int
    changed_studies: int
    shards: str
    """Folder of the sets."""
    releases: dict[str, str]
    """Shard set -> its newest release: what the stages are to read."""
    start: str
    """The checkpoint to start from; "" where nothing is due."""
    champion: str
    """Model id of the champion, "" where there is none."""
    champion_checkpoint: str
    run_folder: str
    pins: tuple[str, ...]
    """Settings by which every stage reads those releases."""


def plan_retraining(config: PlanConfig) -> RetrainPlan:
    """Compare the newest releases with those that models were trained on.

    Raises:
        ConfigError: there are no shard sets; or one is due, but there is neither a champion nor a start.
    """
    store = Store(config.store)
    shards = Path(config.shards or store.location("shards"))
    manifests = {path.parent.name: read_manifest(path.parent) for path in sorted(shards.glob(f"*/{MANIFEST_FILE}"))}
    if not manifests:
        raise ConfigError(f"{shards} holds no shard set: run `unix shards` first")
    releases = {name: manifest.release for name, manifest in manifests.items()}
    models = list_models(store)
    champion = models.champion
    plan = RetrainPlan(
        due=False,
        reason="",
        new_studies=0,
        changed_studies=0,
        shards=str(shards),
        releases=releases,
        start="",
        champion="" if champion is None else champion.model_id,
        champion_checkpoint="" if champion is None else champion.checkpoint,
        run_folder="",
        pins=tuple(f"releases.{name}='{release}'" for name, release in releases.items()),
    )
    if covering := _covering(models, releases):
        return plan.model_copy(update={"reason": f"the newest releases are those that {covering} was trained on"})
    new, changed = _news(store, shards, manifests, _last_covered(models))
    counts = {"new_studies": new, "changed_studies": changed}
    if new + changed < config.min_new_studies:
        reason = f"{new} new and {changed} changed studies, fewer than {config.min_new_studies}"
        return plan.model_copy(update={**counts, "reason": reason})
    start = plan.champion_checkpoint or config.start
    if not start:
        raise ConfigError("there is no champion to start from: promote a model, or name a checkpoint with --from")
    freeze_at_first_use(store, config.test_set, str(shards), config.test_limit)
    start = str(checkpoint_folder(start))
    identity = [start, releases, config.preset, config.settings]
    return plan.model_copy(
        update={
            **counts,
            "due": True,
            "reason": f"{new} new and {changed} changed studies since the last covered release",
            "start": start,
            "run_folder": str(Path(config.runs, json_digest(identity)[:12]).absolute()),
        }
    )


def _covering(models: Models, releases: dict[str, str]) -> str | None:
    """A model that was trained on these releases, and on no other."""
    for model in models.models:
        trained = model.parents.releases()
        if trained and all(releases.get(name) == release for name, release in trained.items()):
            return model.model_id
    return None


def _last_covered(models: Models) -> dict[str, str]:
    """The releases that the newest model with known ones was trained on."""
    return next((trained for model in models.models if (trained := model.parents.releases())), dict[str, str]())


def _news(store: Store, shards: Path, manifests: dict[str, Manifest], covered: dict[str, str]) -> tuple[int, int]:
    """New and changed studies since the covered releases: of the set that has most; all where nothing is covered."""
    most = (0, 0)
    names = [name for name in manifests if name in covered] or list(manifests)
    for name in names:
        if not manifests[name].parents.tables:
            continue  # latents: their pictures' set tells
        now = released_images(store, manifests[name])
        path = shards / name / RELEASES_FOLDER / f"{covered.get(name)}.json"
        then = released_images(store, read_release(shards / name, path.stem)) if path.is_file() else now.clear()
        new = now.join(then, on=_STUDY, how="anti").select(_STUDY).n_unique()
        other = now.join(then, on=now.columns, how="anti", nulls_equal=True)
        changed = other.join(then, on=_STUDY, how="semi").select(_STUDY).n_unique()
        most = max(most, (new, changed), key=sum)
    return most
