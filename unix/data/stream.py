"""Shards -> samples, in an exact order: random access by offsets, and an endless stream that resumes at any batch.

A set's index of global sample numbers counts the live samples of one split, shard by shard. The stream's order within
an epoch comes from `unix.data.order`; global batch k of an epoch is the k-th slice of that order, and a rank takes its
part of the slice. So a position is an integer, and it means the same for any number of ranks and workers.

Workers are threads: reading, checking and decoding happen outside the interpreter's lock, there is nothing to start or
to hand over, and the state that comes with a batch knows nothing of what they read ahead.
"""

import functools
import logging
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt
import orjson
from pydantic import Field

from unix.config import Config
from unix.data.images import Pixels, decode
from unix.data.order import epoch_order
from unix.data.shard_file import ShardFile
from unix.data.shard_storage import CacheConfig, open_storage
from unix.errors import ConfigError, DamagedSampleError, ImageError, ResumeError
from unix.manifest import MANIFEST_FILE, RELEASES_FOLDER, Manifest, parse_manifest, read_manifest
from unix.records import Labels, Split, Task

logger = logging.getLogger(__name__)

LastBatch = Literal["drop", "keep", "pad"]
"""What becomes of an epoch's last, smaller batch: left out, served as it is, or filled up with marked copies."""
_BATCHES_AHEAD = 2


class LoaderConfig(Config):
    """How a run reads its shards. None of it changes the order, nor, where no sample is damaged, what is read."""

    workers: int = Field(default=2, ge=0)
    """Threads that read ahead; some twenty hide an object store's latency."""
    on_corrupt: Literal["raise", "skip"] = "raise"
    """Whether a damaged sample stops the run, or is left out and counted."""
    cache: CacheConfig | None = None
    """Local copy of what is read from an object store."""


@dataclass(frozen=True, slots=True)
class SampleMeta:
    """Where a sample comes from."""

    source: str
    subject_id: str
    study_id: str
    split: Split
    view_position: str
    report_sha256: str
    prompt_version: str
    model: str
    """The model that cleaned the report."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its text."""

    image_id: str
    image: Pixels
    """uint8 [S, S] grayscale."""
    findings: str
    impression: str
    caption: str
    """What a drawing model is asked for; "" in understanding sets."""
    labels: Labels | None
    """CheXpert-14 labels where the source gives them."""
    meta: SampleMeta
    task: Task
    """What its set is for."""
    padding: bool = False
    """A copy that only fills up an epoch's last batch: losses and metrics must leave it out."""


@dataclass(frozen=True, slots=True)
class LoaderState:
    """Where a stream stands after a batch. Hand it back to `stream` to continue with the next one."""

    epoch: int
    position: int
    """Samples of the epoch that are behind."""
    seed: int
    n: int
    """Samples in an epoch."""
    fingerprint: str
    """Of the shards read: an order is only resumed over the very samples it was made for."""


class SampleSource(Protocol):
    """What can be streamed: one split of a set, or a mixture of several."""

    fingerprint: str

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        ...

    def epoch_order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """The epoch's samples in order: int64 [samples], for `read_many`."""
        ...

    def read_many(self, indices: Sequence[int]) -> list[Sample]:
        """The samples at `indices`, in that order."""
        ...


class ShardReader:
    """The live samples of one split of the shard set at `folder`, by global index 0 .. samples - 1.

    Args:
        folder: a local folder or a URI of an object store.
        split: which split.
        release: an earlier release to read; None: the present one.
        on_corrupt: whether a damaged sample is an error, or is left out, counted in `skipped` and logged.
        cache: where to keep what was read from an object store; None: nowhere.
    """

    def __init__(
        self,
        folder: str | Path,
        split: Split | str,
        *,
        release: str | None = None,
        on_corrupt: Literal["raise", "skip"] = "raise",
        cache: CacheConfig | None = None,
    ) -> None:
        self._storage = open_storage(folder, cache)
        self.location = self._storage.location
        """The folder or URI, as text."""
        self.folder = Path(self.location)
        self.split = Split(split)
        self.manifest: Manifest = self._manifest(release)
        self.fingerprint = self.manifest.fingerprint(self.split)
        self.skipped: Counter[int] = Counter()
        """Global index of each damaged sample that was left out -> how often it was met, by workers ahead too."""
        self._skip = on_corrupt == "skip"
        entries = self.manifest.split_shards(self.split)
        self._shards = [ShardFile(self._storage, entry) for entry in entries]
        self.samples_per_shard: npt.NDArray[np.int64] = np.array([entry.live for entry in entries], dtype=np.int64)
        self._starts: list[int] = [0, *np.cumsum(self.samples_per_shard).tolist()]
        """Global index of each shard's first sample, and the end; bisected, as that costs a tenth of numpy's search."""

    def _manifest(self, release: str | None) -> Manifest:
        if release is None and self.folder.exists():
            return read_manifest(self.folder)
        name = MANIFEST_FILE if release is None else f"{RELEASES_FOLDER}/{release}.json"
        return parse_manifest(self._storage.read_file(name), f"{self.location}/{name}")

    @property
    def samples(self) -> int:
        """How many live samples there are."""
        return self._starts[-1]

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """Image ids in the order of global indices."""
        return tuple(key for shard in self._shards for key in shard.keys)

    def epoch_order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Every global index once, in the order of an epoch: int64 [samples]."""
        return epoch_order(self.samples_per_shard, seed, epoch)

    def read_members(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Key and members (extension -> content) of the sample at `index`; content is checked against its CRC.

        Raises:
            IndexError: there is no such sample.
            DamagedSampleError: the sample is damaged or cut short; the message names shard and member.
            ShardError: the shard or its index is missing or unusable.
        """
        if not 0 <= index < self._starts[-1]:
            raise self._no_such(index)
        shard = bisect_right(self._starts, index) - 1
        return self._shards[shard].read(index - self._starts[shard])

    def read_member(self, index: int, extension: str) -> bytes:
        """One member of the sample at `index`, such as its `json`. Raises as `read_members`."""
        if not 0 <= index < self._starts[-1]:
            raise self._no_such(index)
        shard = bisect_right(self._starts, index) - 1
        return self._shards[shard].read_member(index - self._starts[shard], extension)

    def _no_such(self, index: int) -> IndexError:
        return IndexError(f"sample {index} of {self.samples} in {self.location} ({self.split})")

    def read(self, index: int) -> Sample:
        """The decoded sample at `index`. Raises as `read_members`, and DamagedSampleError where it is no image."""
        key, members = self.read_members(index)
        try:
            record = orjson.loads(members["json"])
            image = decode(members["jpg"] if "jpg" in members else members["png"])
            return _to_sample(image, record, self.manifest.task)
        except (KeyError, TypeError, ValueError, ImageError) as error:
            raise DamagedSampleError(
                f"{self.location}: sample {key} is no image sample: {type(error).__name__}"
            ) from error

    def read_many(self, indices: Sequence[int]) -> list[Sample]:
        """The decoded samples at `indices`, in that order; without the damaged ones where those are to be skipped."""
        if not self._skip:
            return [self.read(index) for index in indices]
        samples: list[Sample] = []
        for index in indices:
            try:
                samples.append(self.read(index))
            except DamagedSampleError:
                self.skipped[index] += 1
                logger.warning("%s: damaged sample %d of %s left out", self.location, index, self.split)
        return samples

    def close(self) -> None:
        """Close every shard; reading again reopens them."""
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"the {self.split} split of {self.location}"


def stream(
    source: SampleSource,
    seed: int,
    global_batch: int,
    position: LoaderState | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    last: LastBatch = "drop",
    workers: int = 0,
) -> Generator[tuple[list[Sample], LoaderState]]:
    """Yield this rank's part of every global batch, without end, with the state that follows the batch.

    `position` continues after the batch that came with that state, also on another number of ranks or workers. Damaged
    samples that `source` skips make a batch smaller; everything else keeps its place. With "drop", the samples left
    out differ from epoch to epoch; `epoch_counts` says how many they are.

    Args:
        source: a `ShardReader`, or a `Mixture` of them.
        seed: decides the order, with the epoch.
        global_batch: samples of all ranks together.
        position: where to go on; None: at the start of epoch 0.
        rank: of this process, below `world_size`.
        world_size: number of processes that share the batches; it must divide `global_batch`.
        last: what becomes of an epoch's last, smaller batch.
        workers: threads that read the next two batches ahead; 0 reads each batch when it is asked for.

    Raises:
        ConfigError: the batch is larger than the split (and `last` is "drop"), or does not divide among the ranks.
        ResumeError: `position` belongs to another seed or other shards.
    """
    batches = index_stream(source, seed, global_batch, position, rank=rank, world_size=world_size, last=last)
    if workers == 0:
        for indices, state in batches:
            yield _read(source, indices), state
        return
    ahead: deque[tuple[list[Future[list[Sample]]], LoaderState]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="shards") as pool:
        try:
            for indices, state in batches:
                # Every worker reads a piece of the batch, so that the first batch is there as soon as can be.
                pieces = [
                    indices[w * len(indices) // workers : (w + 1) * len(indices) // workers] for w in range(workers)
                ]
                ahead.append(([pool.submit(_read, source, piece) for piece in pieces], state))
                if len(ahead) > _BATCHES_AHEAD:
                    done, state_after = ahead.popleft()
                    yield [sample for piece in done for sample in piece.result()], state_after
        finally:
            pool.shutdown(cancel_futures=True)


def index_stream(
    source: SampleSource,
    seed: int,
    global_batch: int,
    position: LoaderState | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    last: LastBatch = "drop",
) -> Generator[tuple[list[int], LoaderState]]:
    """As `stream`, but yields sample indices: the order alone, without reading. `~i` stands for a padding copy of i."""
    n, fingerprint = source.samples, source.fingerprint
    _check_batch(source, global_batch, rank, world_size, last)
    start = position or LoaderState(epoch=0, position=0, seed=seed, n=n, fingerprint=fingerprint)
    if (start.seed, start.n, start.fingerprint) != (seed, n, fingerprint):
        raise ResumeError(
            f"the saved position belongs to seed {start.seed} and shards {start.fingerprint} ({start.n} samples), this "
            f"run has seed {seed} and shards {fingerprint} ({n} samples): resume with those, or start a new run"
        )
    epoch, done = start.epoch, start.position
    while True:
        order = source.epoch_order(seed, epoch)
        while n - done >= (global_batch if last == "drop" else 1):
            batch = order[done : done + global_batch]
            done += len(batch)
            if last == "pad":
                batch = np.concatenate([batch, ~np.resize(order, global_batch - len(batch))])
            mine = batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]
            yield mine.tolist(), LoaderState(epoch, done, seed, n, fingerprint)
        epoch, done = epoch + 1, 0


@dataclass(frozen=True, slots=True)
class EpochCounts:
    """What one epoch of a stream comes to, over all ranks: samples served + dropped = samples of the source."""

    batches: int
    dropped: int
    padding: int


def epoch_counts(samples: int, global_batch: int, last: LastBatch) -> EpochCounts:
    """Batches, dropped samples and padding copies in every epoch of a stream."""
    whole, rest = divmod(samples, global_batch)
    if rest == 0 or last == "drop":
        return EpochCounts(whole, dropped=rest, padding=0)
    return EpochCounts(whole + 1, dropped=0, padding=global_batch - rest if last == "pad" else 0)


def _read(source: SampleSource, indices: Sequence[int]) -> list[Sample]:
    split = next((place for place, index in enumerate(indices) if index < 0), len(indices))
    copies = source.read_many([~index for index in indices[split:]])
    return source.read_many(indices[:split]) + [replace(sample, padding=True) for sample in copies]


def _check_batch(source: SampleSource, global_batch: int, rank: int, world_size: int, last: LastBatch) -> None:
    if source.samples == 0:
        raise ConfigError(f"{source} has no samples: nothing to stream")
    if global_batch < 1 or not 0 <= rank < world_size:
        raise ConfigError(f"global_batch={global_batch} must be >= 1 and rank={rank} within world_size={world_size}")
    if global_batch % world_size:
        raise ConfigError(f"global_batch={global_batch} does not divide among world_size={world_size} ranks")
    if last == "drop" and global_batch > source.samples:
        raise ConfigError(f"global_batch={global_batch} is more than the {source.samples} samples of {source}")


def _to_sample(image: Pixels, record: dict[str, Any], task: Task) -> Sample:
    return Sample(
        image_id=record["image_id"],
        image=image,
        findings=record["findings"],
        impression=record["impression"],
        caption=record.get("caption", ""),
        labels=record["labels"],
        meta=SampleMeta(
            source=record["source"],
            subject_id=record["subject_id"],
            study_id=record["study_id"],
            split=Split(record["split"]),
            view_position=record["view_position"],
            report_sha256=record["report_sha256"],
            prompt_version=record["prompt_version"],
            model=record["model"],
        ),
        task=task,
    )
