"""The job that turns splits into shard sets: plan, write partitions in parallel, publish manifests last.

A build that is killed goes on where it stopped, and ends with the same bytes; so does one with another number of
processes. A build with nothing new to do writes nothing. The three steps are public, so that an orchestrator can run
the partitions elsewhere.
"""

import fcntl
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from unix.config import Config, json_digest
from unix.data.approved import pin_cleaning
from unix.data.engines import EngineName, spread
from unix.data.images import PREPROCESSING, PictureEncoding
from unix.data.partition import Exclusion, PartitionResult, image_members, read_result, write_partition
from unix.data.shard_card import write_card
from unix.data.shard_index import index_file
from unix.data.shard_plan import (
    BUILD_FOLDER,
    PARENT_TABLES,
    BuildPlan,
    SetPlan,
    drop_plan,
    make_plan,
    parse_set,
    read_offer,
)
from unix.data.shard_verify import VerifySummary, verify_shards
from unix.errors import ConfigError, ShardError
from unix.manifest import Manifest, Parents, code_revision, find_manifest, publish_manifest, read_release
from unix.progress import Progress
from unix.records import Rejection, Split
from unix.store import Store

__all__ = [
    "SetSummary",
    "ShardsConfig",
    "ShardsSummary",
    "VerifySummary",
    "build_shards",
    "plan_shards",
    "publish_shards",
    "verify_shards",
]


class ShardsConfig(Config):
    """Which sets to build from which store."""

    store: str
    sets: tuple[str, ...] = ("understanding-384", "generation-256", "generation-512")
    out: str | None = None
    """Folder of the sets; None: the store's `shards/`."""
    prompt_version: str | None = None
    """Together with `model`, whose cleaned reports count; None: the only ones in the store."""
    model: str | None = None
    unattended: bool = False
    """Nobody is there to choose where several fit: then those that answer the most studies count."""
    samples_per_shard: int = Field(default=1000, ge=1)
    picture: PictureEncoding = PictureEncoding()
    workers: int | None = Field(default=None, ge=1)
    """Partitions at a time; None: one per core that this process, or the Ray cluster, may use."""
    engine: EngineName = "local"
    """Where partitions are written; "ray": as tasks of a Ray cluster whose nodes share the folders. Neither this nor
    `workers` changes a byte.
    """

    @property
    def out_folder(self) -> Path:
        """The folder of the sets.

        Raises:
            ConfigError: it would lie in an object store.
        """
        out = self.out or Store(self.store).location("shards")
        if "://" in out:
            raise ConfigError(f"shards are written to local folders, not to {out}: set out (--out) to a folder")
        return Path(out)

    def content_digest(self) -> str:
        """Digest of the settings that decide what the sets hold."""
        settings = self.model_dump(mode="json", exclude={"store", "out", "workers", "engine", "unattended"})
        return json_digest({**settings, "preprocessing": PREPROCESSING})


class SetSummary(Config):
    """One set after the build: considered = samples + sum of excluded."""

    release: str
    parent_release: str | None
    considered: int
    samples: int
    """Live samples."""
    splits: dict[str, int]
    excluded: dict[str, int]
    shards: int
    bytes: int
    added_samples: int
    superseded_samples: int


class ShardsSummary(Config):
    """What `build_shards` did."""

    out: str
    prompt_version: str
    model: str
    images_decoded: int
    """Source images tried in this release."""
    changed: bool
    """Whether any set has a new release."""
    sets: dict[str, SetSummary]


def build_shards(config: ShardsConfig) -> ShardsSummary:
    """Bring the shard sets up to what the store holds.

    Raises:
        ConfigError: a set's name, the output or the cleaning to use is not clear.
        ShardError: another build is at work in the same folder, a worker died, or a set cannot be published.
    """
    out = config.out_folder
    with _only_builder(out):
        plan = plan_shards(config)
        _write_partitions(config, plan)
        return publish_shards(config, plan)


def plan_shards(config: ShardsConfig) -> BuildPlan:
    """Find out what has to be done and write it down in the build folder."""
    specs = tuple(parse_set(name) for name in dict.fromkeys(config.sets))
    if not specs:
        raise ConfigError("sets is empty: name at least one set, such as understanding-384")
    store = Store(config.store)
    versions = store.versions(*PARENT_TABLES)
    if versions["splits"] is None:
        raise ConfigError(
            f"{store.uri} has no splits: run `unix splits` first; where it kept no image, its table rejections says why"
        )
    cleaning = pin_cleaning(store, config.prompt_version, config.model, config.unattended)
    parents = Parents(
        tables=versions,
        prompt_version=cleaning.prompt_version,
        prompt_digests=cleaning.prompt_digests,
        model=cleaning.model,
        code_revision=code_revision(),
        configuration_digest=config.content_digest(),
    )
    offer = read_offer(store, cleaning, versions, config.picture)
    return make_plan(offer, specs, config.out_folder, config.samples_per_shard, parents)


def publish_shards(config: ShardsConfig, plan: BuildPlan) -> ShardsSummary:
    """Publish a release of every set that changed, once all partitions are written.

    Raises:
        ShardError: a partition is not finished.
    """
    out = config.out_folder
    build = out / BUILD_FOLDER
    results: list[PartitionResult] = []
    for partition in plan.partitions:
        result = read_result(build, partition)
        if result is None:
            raise ShardError(f"partition {partition.name} below {out} is not finished: run `unix shards` again")
        results.append(result)
    store = Store(config.store)
    summaries: dict[str, SetSummary] = {}
    changed = False
    for each in plan.sets:
        name = each.spec.name
        unreadable = [refused for result in results for refused in result.unreadable.get(name, ())]
        manifest, is_new = _release(out / name, each, results, unreadable, plan.parents, image_members(config.picture))
        changed |= is_new
        _remove_strays(out / name, manifest)
        write_card(out / name, manifest)
        excluded = [*each.excluded, *unreadable]
        store.replace_rejections(
            f"shards-{name}", [Rejection(f"shards-{name}", e.source, e.image_id, e.reason, e.detail) for e in excluded]
        )
        summaries[name] = _summary(manifest, each.considered, excluded, is_new)
    drop_plan(build)
    return ShardsSummary(
        out=str(out),
        prompt_version=str(plan.parents.prompt_version),
        model=str(plan.parents.model),
        images_decoded=sum(partition.num_images for partition in plan.partitions),
        changed=changed,
        sets=summaries,
    )


def _write_partitions(config: ShardsConfig, plan: BuildPlan) -> None:
    out = config.out_folder.resolve()
    parts = [(out / BUILD_FOLDER, out, partition, plan.specs, config.picture) for partition in plan.partitions]
    with Progress("shards: images", sum(partition.num_images for partition in plan.partitions)) as progress:
        for num_images in spread(
            config.engine, write_partition, parts, config.workers, f"writing shards below {out}", ShardError
        ):
            progress.advance(num_images)


def _release(
    folder: Path,
    plan: SetPlan,
    results: list[PartitionResult],
    unreadable: list[Exclusion],
    parents: Parents,
    members: tuple[str, ...],
) -> tuple[Manifest, bool]:
    """Publish the set's next release, or return the present one where nothing changed; and whether it is new."""
    name = plan.spec.name
    parent = None if plan.parent_release is None else read_release(folder, plan.parent_release)
    added = tuple(result.shards[name] for result in results if name in result.shards)
    if parent is not None and not added and not plan.superseded:
        return parent, False
    kept = tuple(
        shard.model_copy(
            update={"superseded": tuple(sorted({*shard.superseded, *plan.superseded.get(shard.file, ())}))}
        )
        for shard in (() if parent is None else parent.shards)
    )
    order = list(Split)
    shards = sorted((*kept, *added), key=lambda shard: (order.index(shard.split), shard.file))
    manifest = Manifest(
        set=name,
        task=plan.spec.task,
        size=plan.spec.size,
        members=members,
        parents=parents,
        parent_release=plan.parent_release,
        added_shards=tuple(shard.file for shard in added),
        superseded_samples=sum(len(keys) for keys in plan.superseded.values()),
        considered=plan.considered,
        excluded=_by_reason([*plan.excluded, *unreadable]),
        shards=tuple(shards),
    ).sealed()
    present = find_manifest(folder)
    if present is not None and present.release == manifest.release:
        return present, True  # published before the build was interrupted
    return publish_manifest(folder, manifest), True


def _summary(manifest: Manifest, considered: int, excluded: list[Exclusion], is_new: bool) -> SetSummary:
    added = frozenset(manifest.added_shards if is_new else ())
    return SetSummary(
        release=manifest.release,
        parent_release=manifest.parent_release,
        considered=considered,
        samples=manifest.live,
        splits={split.value: sum(shard.live for shard in manifest.split_shards(split)) for split in Split},
        excluded=_by_reason(excluded),
        shards=len(manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        added_samples=sum(shard.samples for shard in manifest.shards if shard.file in added),
        superseded_samples=manifest.superseded_samples if is_new else 0,
    )


def _by_reason(excluded: list[Exclusion]) -> dict[str, int]:
    return dict(sorted(Counter(each.reason for each in excluded).items()))


def _remove_strays(folder: Path, manifest: Manifest) -> None:
    """Remove what killed or abandoned builds left behind; a shard that any release names is no stray."""
    named = {shard.file for shard in manifest.shards}
    named |= {index_file(file) for file in named}
    for pattern in ("*.tar", "*.index.json", ".*.tmp"):
        for path in folder.glob(pattern):
            if path.name not in named:
                path.unlink()


@contextmanager
def _only_builder(out: Path) -> Generator[None]:
    """Hold the output for one build at a time; the lock goes with the process, however it ends."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ShardError(f"another build is writing shards below {out}: wait for it, or set another out") from error
        yield
