"""What a build of shard sets has to do: compare what the store wants with what the sets hold.

Nothing is ever rewritten. A sample that is wanted and not held, or held in another form, goes into a new partition; a
held one that is no longer wanted, or changed, is superseded where it lies. The first build is the case where nothing is
held. A plan is written down before anything else, so that a killed build goes on with the same plan.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from unix.config import Config, json_digest
from unix.data.approved import PinnedCleaning, report_outcomes, unusable_text
from unix.data.images import PREPROCESSING, PictureEncoding
from unix.data.partition import Exclusion, Partition, PartitionImage, SampleRecord, SetSpec, write_inputs
from unix.data.shard_index import read_index
from unix.data.shard_writer import member_order, parse_shard_file
from unix.errors import ConfigError, ShardError
from unix.manifest import Manifest, Parents, find_manifest, write_atomically
from unix.records import Split, Task
from unix.store import Store

BUILD_FOLDER = ".build"
PARENT_TABLES = ("studies", "images", "cleaned_reports", "reviews", "splits")
_PLAN = "plan.json"
_SET_NAME = re.compile(r"(understanding|generation)-(\d+)")
_SMALLEST, _LARGEST = 8, 4096


class SetPlan(Config):
    """What happens to one set."""

    spec: SetSpec
    parent_release: str | None
    superseded: dict[str, tuple[str, ...]]
    """Shard -> keys that stop counting."""
    considered: int
    excluded: tuple[Exclusion, ...]
    """Candidates that are not even tried."""


class BuildPlan(Config):
    """What a build has to do. `wanted` is the digest of what it was asked for."""

    wanted: str
    parents: Parents
    sets: tuple[SetPlan, ...]
    partitions: tuple[Partition, ...]

    @property
    def specs(self) -> tuple[SetSpec, ...]:
        """The sets to be built."""
        return tuple(each.spec for each in self.sets)


class Candidates(Config):
    """What the store offers for one task."""

    considered: int
    kept: tuple[str, ...]
    excluded: tuple[Exclusion, ...]


class Offer(Config):
    """What the store offers: every image that any task can use, and which task can use which."""

    images: dict[str, PartitionImage]
    """Image id -> its input; `sets` is empty as yet."""
    tasks: dict[Task, Candidates]


def parse_set(name: str) -> SetSpec:
    """The set that a name such as `generation-256` stands for.

    Raises:
        ConfigError: it names none.
    """
    match = _SET_NAME.fullmatch(name)
    if not match or not _SMALLEST <= int(match[2]) <= _LARGEST:
        raise ConfigError(
            f"set {name!r} must be understanding-<size> or generation-<size>, size {_SMALLEST} to {_LARGEST}"
        )
    return SetSpec(name=name, task=Task(match[1]), size=int(match[2]))


def make_plan(
    offer: Offer, specs: tuple[SetSpec, ...], out: Path, samples_per_shard: int, parents: Parents
) -> BuildPlan:
    """The plan for `specs` below `out`: the unfinished one of an earlier run if it wanted the same, else a new one."""
    wanted = json_digest(
        {
            "samples_per_shard": samples_per_shard,
            "digests": {key: image.made_from for key, image in offer.images.items()},
            "sets": {spec.name: offer.tasks[spec.task].kept for spec in specs},
        }
    )
    build = out / BUILD_FOLDER
    present = {spec.name: find_manifest(out / spec.name) for spec in specs}
    unfinished = read_plan(build)
    if unfinished is not None and unfinished.wanted == wanted and _continues(unfinished, present):
        return unfinished
    sets: list[SetPlan] = []
    missing: dict[str, list[str]] = defaultdict(list)
    for spec in specs:
        manifest, candidates = present[spec.name], offer.tasks[spec.task]
        held = {} if manifest is None else _held(out / spec.name, manifest)
        kept = set(candidates.kept)
        gone: dict[str, list[str]] = defaultdict(list)
        for key, (file, digest) in held.items():
            if key not in kept or offer.images[key].made_from != digest:
                gone[file].append(key)
        for key in candidates.kept:
            if key not in held or held[key][1] != offer.images[key].made_from:
                missing[key].append(spec.name)
        sets.append(
            SetPlan(
                spec=spec,
                parent_release=None if manifest is None else manifest.release,
                superseded={file: tuple(sorted(keys)) for file, keys in sorted(gone.items())},
                considered=candidates.considered,
                excluded=candidates.excluded,
            )
        )
    inputs = [offer.images[key].model_copy(update={"sets": tuple(names)}) for key, names in missing.items()]
    if build.exists():
        drop_plan(build)  # of a build that wanted something else
    partitions = partition_images(inputs, samples_per_shard, _next_numbers(present.values()))
    for partition, images in partitions:
        write_inputs(build, partition, images)
    plan = BuildPlan(wanted=wanted, parents=parents, sets=tuple(sets), partitions=tuple(p for p, _ in partitions))
    write_atomically(build / _PLAN, plan.model_dump_json().encode())
    return plan


def partition_images(
    images: Iterable[PartitionImage], samples_per_shard: int, first_numbers: dict[Split, int]
) -> list[tuple[Partition, list[PartitionImage]]]:
    """Cut images into partitions of one split each, spread by a hash of their ids, in member order within each."""
    of_split: dict[Split, list[PartitionImage]] = defaultdict(list)
    for image in images:
        of_split[image.record.split].append(image)
    partitions: list[tuple[Partition, list[PartitionImage]]] = []
    for split in Split:
        # Spread, so that a subject's images do not share a shard and a group of shards shuffles well.
        spread = sorted(of_split[split], key=lambda image: hashlib.sha256(image.record.image_id.encode()).digest())
        for place in range(0, len(spread), samples_per_shard):
            chunk = sorted(spread[place : place + samples_per_shard], key=lambda i: member_order(i.record.image_id))
            number = first_numbers.get(split, 0) + place // samples_per_shard
            partitions.append((Partition(split=split, number=number, num_images=len(chunk)), chunk))
    return partitions


def read_plan(build: Path) -> BuildPlan | None:
    """The plan of an unfinished build, None where there is none."""
    path = build / _PLAN
    return BuildPlan.model_validate_json(path.read_bytes()) if path.exists() else None


def drop_plan(build: Path) -> None:
    """Forget a build; the plan goes first, so that what a kill leaves behind means nothing."""
    for path in (build / _PLAN, *sorted(build.glob("*"))):
        path.unlink(missing_ok=True)
    build.rmdir()


def read_offer(
    store: Store, cleaning: PinnedCleaning, versions: dict[str, int | None], encoding: PictureEncoding
) -> Offer:
    """What the store's rows, at `versions`, offer for each task.

    Raises:
        ShardError: an image id occurs in two sources, or an image in two splits.
    """
    rows = _split_rows(store, cleaning, versions)
    images: dict[str, PartitionImage] = {}
    tasks: dict[Task, Candidates] = {}
    for task in Task:
        reason = pl.coalesce(
            pl.when(pl.col("path").is_null() | pl.col("withdrawn")).then(pl.lit("withdrawn")), unusable_text(task)
        )
        of_task = rows.filter(pl.col("task") == task.value).with_columns(reason=reason)
        excluded = of_task.filter(pl.col("reason").is_not_null()).select("source", "image_id", "reason")
        kept = of_task.filter(pl.col("reason").is_null())
        for row in kept.select(*SampleRecord.model_fields, "path").iter_rows(named=True):
            image = _input(row.pop("path"), SampleRecord.model_validate(row), encoding)
            if images.setdefault(image.record.image_id, image) != image:
                raise ShardError(
                    f"image id {image.record.image_id} stands for two things in {store.uri}: "
                    f"{images[image.record.image_id].record.source} and {image.record.source}, or two splits"
                )
        tasks[task] = Candidates(
            considered=of_task.height,
            kept=tuple(kept["image_id"]),
            excluded=tuple(Exclusion(source=s, image_id=i, reason=r) for s, i, r in excluded.iter_rows()),
        )
    return Offer(images=images, tasks=tasks)


def _split_rows(store: Store, cleaning: PinnedCleaning, versions: dict[str, int | None]) -> pl.DataFrame:
    outcomes = report_outcomes(store, cleaning.prompt_version, cleaning.model, versions)
    images = store.scan("images", versions.get("images")).select(
        "source", "image_id", "path", "view_position", "labels", "withdrawn"
    )
    return (
        store.scan("splits", versions.get("splits"))
        .join(images, on=("source", "image_id"), how="left")
        .join(outcomes, on=("source", "study_id"), how="left")
        .with_columns(withdrawn=pl.col("withdrawn").fill_null(False) | pl.col("outcome").is_null())
        .sort("source", "image_id", "task")
        .collect()
    )


def _input(path: str, record: SampleRecord, encoding: PictureEncoding) -> PartitionImage:
    """A source image with the digest of what its samples are made from.

    The file enters with its size alone: reading every file on every run would cost as much as building, and paths and
    times differ between machines that hold the same files.
    """
    file = Path(path)
    size = file.stat().st_size if file.exists() else None
    quality = encoding.quality if encoding.format == "jpg" else encoding.format
    made_from = {
        "record": record.model_dump(mode="json"),
        "bytes": size,
        "quality": quality,
        "preprocessing": PREPROCESSING,
    }
    return PartitionImage(path=path, sets=(), made_from=json_digest(made_from)[:32], record=record)


def _held(folder: Path, manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Key -> (shard, digest) of every live sample of a set."""
    held: dict[str, tuple[str, str]] = {}
    for shard in manifest.shards:
        index, gone = read_index(folder, shard.file), frozenset(shard.superseded)
        held.update(
            (key, (shard.file, digest))
            for key, digest in zip(index.keys, index.digests, strict=True)
            if key not in gone
        )
    return held


def _continues(plan: BuildPlan, present: dict[str, Manifest | None]) -> bool:
    """Whether no set has moved on, but for having been published by this very plan."""
    for each in plan.sets:
        manifest = present.get(each.spec.name)
        release = None if manifest is None else manifest.release
        if each.parent_release != release and (manifest is None or manifest.parent_release != each.parent_release):
            return False
    return {each.spec.name for each in plan.sets} == set(present)


def _next_numbers(manifests: Iterable[Manifest | None]) -> dict[Split, int]:
    numbers = dict.fromkeys(Split, 0)
    for manifest in manifests:
        for shard in manifest.shards if manifest is not None else ():
            parsed = parse_shard_file(shard.file)
            if parsed is not None:
                numbers[parsed[0]] = max(numbers[parsed[0]], parsed[1] + 1)
    return numbers
