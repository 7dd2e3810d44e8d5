"""Shards -> samples, in an exact order: random access by offsets, and an endless stream that resumes at any batch.

A set's index of global sample numbers counts the live samples of one split, shard by shard. The stream's order within
an epoch comes from `unix.data.order`; global batch k of an epoch is the k-th slice of that order, and a rank takes its
part of the slice. So a position is an integer, and it means the same for any number of ranks and workers.
"""

import functools
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from unix.data.images import Pixels
from unix.data.order import epoch_order
from unix.data.shard_index import ShardIndex, checksum, read_index
from unix.errors import ConfigError, ResumeError, ShardError
from unix.manifest import Manifest, ShardEntry, read_manifest
from unix.records import Labels, Split


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


class ShardReader:
    """The live samples of one split of the shard set in `folder`, by global index 0 .. samples - 1."""

    def __init__(self, folder: str | Path, split: Split | str) -> None:
        self.folder = Path(folder)
        self.split = Split(split)
        self.manifest: Manifest = read_manifest(folder)
        self.fingerprint = self.manifest.fingerprint(self.split)
        entries = self.manifest.split_shards(self.split)
        self._shards = [_OpenShard(self.folder, entry) for entry in entries]
        self.samples_per_shard: npt.NDArray[np.int64] = np.array([entry.live for entry in entries], dtype=np.int64)
        self._ends = np.cumsum(self.samples_per_shard)

    @property
    def samples(self) -> int:
        """How many live samples there are."""
        return int(self._ends[-1]) if self._shards else 0

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """Image ids in the order of global indices."""
        return tuple(key for shard in self._shards for key in shard.keys)

    def read_members(self, index: int) -> tuple[str, dict[str, bytes]]:
        """Key and members (extension -> content) of the sample at `index`; content is checked against its CRC.

        Raises:
            IndexError: there is no such sample.
            ShardError: the shard is missing, cut short or damaged; the message names shard and member.
        """
        if not 0 <= index < self.samples:
            raise IndexError(f"sample {index} of {self.samples} in {self.folder} ({self.split})")
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self._shards[number].read(index - int(self._ends[number] - self.samples_per_shard[number]))

    def read(self, index: int) -> Sample:
        """The decoded sample at `index`. Raises as `read_members`, and ShardError where it is no image sample."""
        key, members = self.read_members(index)
        try:
            return _to_sample(members["jpg"], json.loads(members["json"]))
        except (KeyError, ValueError, OSError) as error:
            raise ShardError(f"{self.folder}: sample {key} is no image sample: {type(error).__name__}") from error

    def read_many(self, indices: Sequence[int]) -> list[Sample]:
        """The decoded samples at `indices`, in that order."""
        return [self.read(index) for index in indices]

    def close(self) -> None:
        """Close every shard; reading again reopens them."""
        for shard in self._shards:
            shard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def stream(
    reader: ShardReader,
    seed: int,
    global_batch: int,
    position: LoaderState | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    last: Literal["drop", "keep"] = "drop",
) -> Iterator[tuple[list[Sample], LoaderState]]:
    """Yield this rank's part of every global batch, without end, with the state that follows the batch.

    `position` continues after the batch that came with that state, also on another number of ranks. The last, smaller
    batch of an epoch is dropped or kept, as `last` says; the samples dropped differ from epoch to epoch.

    Raises:
        ConfigError: the batch is larger than the split (and `last` is "drop"), or does not divide among the ranks.
        ResumeError: `position` belongs to another seed or other shards.
    """
    for indices, state in index_stream(
        reader, seed, global_batch, position, rank=rank, world_size=world_size, last=last
    ):
        yield reader.read_many(indices), state


def index_stream(
    reader: ShardReader,
    seed: int,
    global_batch: int,
    position: LoaderState | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    last: Literal["drop", "keep"] = "drop",
) -> Iterator[tuple[list[int], LoaderState]]:
    """As `stream`, but yields global sample indices: the order alone, without reading."""
    n = reader.samples
    _check_batch(reader, global_batch, rank, world_size, last)
    start = position or LoaderState(epoch=0, position=0, seed=seed, n=n, fingerprint=reader.fingerprint)
    if (start.seed, start.n, start.fingerprint) != (seed, n, reader.fingerprint):
        raise ResumeError(
            f"the saved position belongs to seed {start.seed} and shards {start.fingerprint} ({start.n} samples), this "
            f"run has seed {seed} and shards {reader.fingerprint} ({n} samples): resume with those, or start a new run"
        )
    epoch, done = start.epoch, start.position
    while True:
        order = epoch_order(reader.samples_per_shard, seed, epoch)
        while n - done >= (global_batch if last == "drop" else 1):
            batch = order[done : done + global_batch]
            done += len(batch)
            mine = batch[len(batch) * rank // world_size : len(batch) * (rank + 1) // world_size]
            yield mine.tolist(), LoaderState(epoch, done, seed, n, reader.fingerprint)
        epoch, done = epoch + 1, 0


def _check_batch(reader: ShardReader, global_batch: int, rank: int, world_size: int, last: str) -> None:
    if reader.samples == 0:
        raise ConfigError(f"{reader.folder} has no {reader.split} samples: nothing to stream")
    if global_batch < 1 or not 0 <= rank < world_size:
        raise ConfigError(f"global_batch={global_batch} must be >= 1 and rank={rank} within world_size={world_size}")
    if global_batch % world_size:
        raise ConfigError(f"global_batch={global_batch} does not divide among world_size={world_size} ranks")
    if last == "drop" and global_batch > reader.samples:
        raise ConfigError(
            f"global_batch={global_batch} is more than the {reader.samples} {reader.split} samples of {reader.folder}"
        )


def _to_sample(image: bytes, record: dict[str, Any]) -> Sample:
    return Sample(
        image_id=record["image_id"],
        image=np.asarray(Image.open(io.BytesIO(image), formats=("JPEG",))),
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
    )


class _OpenShard:
    """One shard, its index and file opened when first read."""

    def __init__(self, folder: Path, entry: ShardEntry) -> None:
        self._folder, self._entry = folder, entry
        self._file: int | None = None

    @functools.cached_property
    def _index(self) -> ShardIndex:
        index = read_index(self._folder, self._entry.file)
        if (index.sha256, index.samples) != (self._entry.sha256, self._entry.samples):
            raise ShardError(f"{self._folder}: the index of {self._entry.file} is not the one that the manifest names")
        return index

    @functools.cached_property
    def _live(self) -> list[int]:
        gone = frozenset(self._entry.superseded)
        return [place for place, key in enumerate(self._index.keys) if key not in gone]

    @property
    def keys(self) -> list[str]:
        return [self._index.keys[place] for place in self._live]

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        index, place = self._index, self._live[number]
        key, start = index.keys[place], index.offsets[0][place]
        # A sample's members are adjacent: one read serves them all.
        content = os.pread(self._open(), index.offsets[-1][place] + index.lengths[-1][place] - start, start)
        members: dict[str, bytes] = {}
        for extension, offsets, lengths, sums in zip(
            index.members, index.offsets, index.lengths, index.crc32c, strict=True
        ):
            begin = offsets[place] - start
            member = content[begin : begin + lengths[place]]
            if len(member) != lengths[place] or checksum(member) != sums[place]:
                raise ShardError(
                    f"{self._folder / self._entry.file}: member {key}.{extension} is damaged (CRC32C differs); "
                    f"`unix shards verify {self._folder}` finds all such members"
                )
            members[extension] = member
        return key, members

    def _open(self) -> int:
        if self._file is None:
            path = self._folder / self._entry.file
            try:
                self._file = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise ShardError(f"cannot open the shard {path}: {error.strerror}") from error
        return self._file

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        self.close()
