"""Writes one shard: a plain ustar tar, which stock WebDataset reads, and its index.

The same samples give the same bytes. Members may be anything (`jpg` + `json`, or `npy` for latents); every sample of a
shard has the same ones.
"""

import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from unix.data.shard_index import ShardIndex, checksum, index_file
from unix.data.tar import END_OF_ARCHIVE, member_header, padding
from unix.errors import ShardError
from unix.manifest import ShardEntry, write_atomically
from unix.records import Split

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
_SHARD_FILE = re.compile(r"(train|validate|test)-(\d{6})\.tar")


def shard_file(split: Split, number: int) -> str:
    """Name of a shard, such as `train-000000.tar`."""
    return f"{split}-{number:06d}.tar"


def parse_shard_file(name: str) -> tuple[Split, int] | None:
    """Split and number of a shard's file name; None for any other name."""
    match = _SHARD_FILE.fullmatch(name)
    return (Split(match[1]), int(match[2])) if match else None


def member_order(key: str) -> str:
    """Sort key under which samples lie in a shard: then member names are in byte order and each sample's adjacent."""
    return f"{key}."


class ShardWriter:
    """A shard being written; use as a context manager, `add` samples in `member_order`, then `finish`.

    The tar appears under its name only when finished; leaving early removes what was written.
    """

    def __init__(self, folder: Path, split: Split, number: int, members: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._split, self._file = folder, split, shard_file(split, number)
        self._aside = folder / f".{self._file}.{uuid.uuid4().hex}.tmp"  # a lost node's task may still be writing
        self._tar = self._aside.open("wb")
        self._sha256 = hashlib.sha256()
        self._position = 0
        self._members = tuple(sorted(members))
        self._keys: list[str] = []
        self._digests: list[str] = []
        self._offsets: list[list[int]] = [[] for _ in members]
        self._lengths: list[list[int]] = [[] for _ in members]
        self._crc32c: list[list[int]] = [[] for _ in members]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._tar.close()
        self._aside.unlink(missing_ok=True)

    @property
    def samples(self) -> int:
        """Samples added so far."""
        return len(self._keys)

    def add(self, key: str, members: Mapping[str, bytes], digest: str = "") -> None:
        """Append one sample; `digest` says what it was made from.

        Raises:
            ShardError: the key or the extensions are not as they must be, or the key is out of order or repeated.
        """
        if not KEY_PATTERN.fullmatch(key):
            raise ShardError(f"sample key {key!r} must match {KEY_PATTERN.pattern}: WebDataset cuts names at dots")
        if self._keys and member_order(key) <= member_order(self._keys[-1]):
            raise ShardError(f"{self._file}: sample {key} after {self._keys[-1]}; add each key once, in member_order")
        if tuple(sorted(members)) != self._members:
            raise ShardError(f"{self._file}: sample {key} has members {sorted(members)}, the shard {self._members}")
        for number, extension in enumerate(self._members):
            content = members[extension]
            self._append(member_header(f"{key}.{extension}", len(content)))
            self._offsets[number].append(self._position)
            self._lengths[number].append(len(content))
            self._crc32c[number].append(checksum(content))
            self._append(content + padding(len(content)))
        self._keys.append(key)
        self._digests.append(digest)

    def finish(self) -> ShardEntry:
        """Write the end of the archive, publish tar and index, and describe the shard for the manifest."""
        self._append(END_OF_ARCHIVE)
        self._tar.flush()
        os.fsync(self._tar.fileno())
        self._tar.close()
        index = ShardIndex(
            file=self._file,
            samples=len(self._keys),
            bytes=self._position,
            sha256=self._sha256.hexdigest(),
            members=self._members,
            keys=self._keys,
            digests=self._digests,
            offsets=self._offsets,
            lengths=self._lengths,
            crc32c=self._crc32c,
        )
        content = index.model_dump_json().encode()
        write_atomically(self._folder / index_file(self._file), content)
        self._aside.replace(self._folder / self._file)
        return ShardEntry(
            file=self._file,
            split=self._split,
            samples=index.samples,
            bytes=index.bytes,
            sha256=index.sha256,
            index_sha256=hashlib.sha256(content).hexdigest(),
        )

    def _append(self, content: bytes) -> None:
        self._tar.write(content)
        self._sha256.update(content)
        self._position += len(content)
