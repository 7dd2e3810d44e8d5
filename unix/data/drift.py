"""How a release of the shard sets differs from the one before it: numbers alone, from the store's tables.

Every release names the versions of the tables that it was made from, and earlier versions stay readable, so both sides
are counted from tables and no shard is opened.
"""

from pathlib import Path

import polars as pl

from unix.config import Config
from unix.data.approved import report_outcomes, unusable_text
from unix.errors import ConfigError
from unix.manifest import MANIFEST_FILE, Manifest, read_manifest, read_release
from unix.records import CHEXPERT_14, Status, Task
from unix.store import Store

_STUDY = ("source", "study_id")


class DriftConfig(Config):
    """Which sets to look at."""

    store: str
    shards: str | None = None
    """Folder of the sets; None: the store's `shards/`."""


class Population(Config):
    """The samples of one release, in shares of its images or studies."""

    images: int
    studies: int
    words_per_report: float
    """Mean over studies, of findings and impression."""
    flagged: float
    """Share of the cleaned reports of live studies, usable or not; likewise `rejected`."""
    rejected: float
    views: dict[str, float]
    labels: dict[str, float]
    """Class -> share of images whose source's label is positive; empty where the source gives none."""


class Drift(Config):
    """One task's newest release beside its parent."""

    data_set: str
    release: str
    parent_release: str | None
    new_studies: int
    changed_studies: int
    """With other text, views or labels."""
    withdrawn_studies: int
    now: Population
    before: Population | None
    words_per_report: float
    """Now over before; 1 where there is no before."""
    flagged: float
    """Now minus before; likewise `rejected`."""
    rejected: float
    view_mix: float
    """Share of images that would have to change their view for the mixes to be equal (total variation)."""
    label_balance: float
    """Largest change of a class's share."""


class DriftSummary(Config):
    """What changed with the newest releases."""

    new_studies: int
    """The largest number over tasks; likewise the others."""
    changed_studies: int
    withdrawn_studies: int
    tasks: dict[Task, Drift]


def drift(config: DriftConfig) -> DriftSummary:
    """Compare the newest release of each task with its parent.

    Raises:
        ConfigError: there are no sets.
        ShardError: a manifest is damaged.
    """
    store = Store(config.store)
    shards = Path(config.shards or store.location("shards"))
    newest: dict[Task, Manifest] = {}
    for path in sorted(shards.glob(f"*/{MANIFEST_FILE}")):
        manifest = read_manifest(path.parent)
        # latents follow their pictures, and sets of one task hold the same samples
        if manifest.parents.tables and manifest.size >= newest.get(manifest.task, manifest).size:
            newest[manifest.task] = manifest
    if not newest:
        raise ConfigError(f"{shards} holds no shard set: run `unix shards` first")
    tasks = {
        task: _drift(store, manifest, _parent(shards / manifest.set, manifest)) for task, manifest in newest.items()
    }
    return DriftSummary(
        new_studies=max(each.new_studies for each in tasks.values()),
        changed_studies=max(each.changed_studies for each in tasks.values()),
        withdrawn_studies=max(each.withdrawn_studies for each in tasks.values()),
        tasks=tasks,
    )


def released_images(store: Store, manifest: Manifest) -> pl.DataFrame:
    """The images that a release was offered: source, study_id, image_id, view, text, labels.

    From the versions of the tables that it names. Images whose file turned out unreadable are among them.
    """
    parents, versions = manifest.parents, manifest.parents.tables
    outcomes = report_outcomes(store, parents.prompt_version or "", parents.model or "", versions)
    images = store.scan("images", versions.get("images")).filter(~pl.col("withdrawn").fill_null(False))
    return (
        store.scan("splits", versions.get("splits"))
        .filter(pl.col("task") == manifest.task.value)
        .select("source", "image_id")
        .join(images.select("source", "study_id", "image_id", "view_position", "labels"), on=("source", "image_id"))
        .join(outcomes, on=_STUDY)
        .filter(unusable_text(manifest.task).is_null())
        .select(*_STUDY, "image_id", "view_position", "findings", "impression", "labels")
        .sort("source", "image_id")
        .collect()
    )


def _parent(folder: Path, manifest: Manifest) -> Manifest | None:
    return None if manifest.parent_release is None else read_release(folder, manifest.parent_release)


def _drift(store: Store, manifest: Manifest, parent: Manifest | None) -> Drift:
    images = released_images(store, manifest)
    now, before = _population(store, manifest, images), None
    earlier = images.clear()
    if parent is not None:
        earlier = released_images(store, parent)
        before = _population(store, parent, earlier)
    studies, then = _studies(images), _studies(earlier)
    known = studies.join(then, on=_STUDY, suffix="_then")
    base = before or now
    return Drift(
        data_set=manifest.set,
        release=manifest.release,
        parent_release=manifest.parent_release,
        new_studies=studies.height - known.height,
        changed_studies=known.filter(pl.col("content") != pl.col("content_then")).height,
        withdrawn_studies=then.height - known.height,
        now=now,
        before=before,
        words_per_report=now.words_per_report / base.words_per_report if base.words_per_report else 1.0,
        flagged=now.flagged - base.flagged,
        rejected=now.rejected - base.rejected,
        view_mix=sum(abs(change) for change in _changes(now.views, base.views)) / 2,
        label_balance=max((abs(change) for change in _changes(now.labels, base.labels)), default=0.0),
    )


def _studies(images: pl.DataFrame) -> pl.DataFrame:
    content = pl.struct("image_id", "view_position", "findings", "impression", "labels").hash(seed=0)
    return images.with_columns(content=content).group_by(_STUDY).agg(pl.col("content").sort().hash(seed=1).sum())


def _population(store: Store, manifest: Manifest, images: pl.DataFrame) -> Population:
    studies = images.unique(_STUDY, maintain_order=True)
    words = pl.concat_str("findings", "impression", separator=" ").str.count_matches(r"\S+")
    views = images["view_position"].value_counts(sort=True).rows()
    labelled = images.filter(pl.col("labels").is_not_null())
    positive = [(pl.col("labels").struct.field(name) == 1).fill_null(False).mean().alias(name) for name in CHEXPERT_14]
    answers = _answers(store, manifest)
    return Population(
        images=images.height,
        studies=studies.height,
        words_per_report=_number(studies.select(words.mean()).item()),
        flagged=_number((answers["status"] == Status.FLAGGED).mean()),
        rejected=_number((answers["status"] == Status.REJECTED).mean()),
        views={str(view): count / images.height for view, count in views},
        labels=labelled.select(positive).row(0, named=True) if labelled.height else {},
    )


def _answers(store: Store, manifest: Manifest) -> pl.DataFrame:
    """The status of every present report, as of the release."""
    parents, versions = manifest.parents, manifest.parents.tables
    present = store.scan("studies", versions.get("studies")).filter(~pl.col("withdrawn").fill_null(False))
    return (
        store.scan("cleaned_reports", versions.get("cleaned_reports"))
        .filter(pl.col("prompt_version") == parents.prompt_version, pl.col("model") == parents.model)
        .join(present.select(*_STUDY, "report_sha256"), on=(*_STUDY, "report_sha256"), how="semi")
        .select("status")
        .collect()
    )


def _changes(now: dict[str, float], before: dict[str, float]) -> list[float]:
    return [now.get(name, 0.0) - before.get(name, 0.0) for name in {*now, *before}]


def _number(value: object) -> float:
    """A mean as a number; 0 where there was nothing to average."""
    return float(value) if isinstance(value, int | float) else 0.0
