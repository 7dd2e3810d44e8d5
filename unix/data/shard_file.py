"""One shard as readers see it: its live samples, found by the index and checked against their CRC32C."""

import functools
import sys

from unix.data.shard_index import ShardIndex, checksum, index_file, parse_index
from unix.data.shard_storage import Storage
from unix.errors import DamagedSampleError, ShardError
from unix.manifest import ShardEntry

_Member = tuple[str, int, int, int]
"""Extension; begin and end within the sample's bytes; CRC32C."""
_Place = tuple[str, int, int, tuple[_Member, ...]]
"""Key of a live sample; where its bytes begin in the shard, and how many they are; its members."""


class ShardFile:
    """A shard of `storage`; its index is read when first needed."""

    def __init__(self, storage: Storage, entry: ShardEntry) -> None:
        self._storage, self._entry = storage, entry

    @functools.cached_property
    def _places(self) -> list[_Place]:
        """Of the live samples. A tuple each, as this is what every read begins with."""
        name = index_file(self._entry.file)
        index = parse_index(self._storage.read_file(name), f"{self._storage.location}/{name}")
        if (index.sha256, index.samples) != (self._entry.sha256, self._entry.samples):
            raise ShardError(
                f"{self._storage.location}: the index of {self._entry.file} is not the one that the manifest names"
            )
        gone = frozenset(self._entry.superseded)
        return [_place(index, number) for number, key in enumerate(index.keys) if key not in gone]

    @property
    def keys(self) -> list[str]:
        """Keys of the live samples, in order."""
        return [place[0] for place in self._places]

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and members (extension -> content) of the live sample `number`.

        Raises:
            DamagedSampleError: a member is not what the index says, also when read a second time.
            ShardError: the shard or its index is missing or unusable.
        """
        key, at, length, members = self._places[number]
        # A sample's members are adjacent: one read serves them all.
        content = self._storage.read_range(self._entry, at, length)
        found: dict[str, bytes] = {}
        for extension, begin, end, crc32c in members:
            member = content[begin:end]
            if checksum(member) != crc32c:
                break
            found[extension] = member
        else:
            if len(content) == length:
                return key, found
        return key, self._read_again(self._places[number])

    def read_member(self, number: int, extension: str) -> bytes:
        """One member of the live sample `number`, without reading the others. Raises as `read`, and KeyError."""
        _, at, _, members = self._places[number]
        begin, end, crc32c = {name: rest for name, *rest in members}[extension]
        content = self._storage.read_range(self._entry, at + begin, end - begin)
        if checksum(content) != crc32c:
            return self.read(number)[1][extension]  # which reads again, and names the damage
        return content

    def _read_again(self, place: _Place) -> dict[str, bytes]:
        """From where the bytes come from, not from a cache; names the member that is damaged there too."""
        key, at, length, members = place
        content = self._storage.read_range(self._entry, at, length, fresh=True)
        for extension, begin, end, crc32c in members:
            if checksum(content[begin:end]) != crc32c or len(content) < end:
                location = self._storage.location
                raise DamagedSampleError(
                    f"{location}/{self._entry.file}: member {key}.{extension} is damaged (CRC32C differs); "
                    f"`unix shards verify {location}` finds all such members"
                )
        return {extension: content[begin:end] for extension, begin, end, _ in members}


def _place(index: ShardIndex, number: int) -> _Place:
    at = index.offsets[0][number]
    members = tuple(
        (sys.intern(extension), offsets[number] - at, offsets[number] - at + lengths[number], sums[number])
        for extension, offsets, lengths, sums in zip(
            index.members, index.offsets, index.lengths, index.crc32c, strict=True
        )
    )
    return index.keys[number], at, members[-1][2], members
