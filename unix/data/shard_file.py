"""One shard as readers see it: its live samples, found by the index and checked against their CRC32C."""

import functools

from unix.data.shard_index import ShardIndex, checksum, index_file, parse_index
from unix.data.shard_storage import Storage
from unix.errors import DamagedSampleError, ShardError
from unix.manifest import ShardEntry


class ShardFile:
    """A shard of `storage`; its index is read when first needed."""

    def __init__(self, storage: Storage, entry: ShardEntry) -> None:
        self._storage, self._entry = storage, entry

    @functools.cached_property
    def _index(self) -> ShardIndex:
        name = index_file(self._entry.file)
        index = parse_index(self._storage.read_file(name), f"{self._storage.location}/{name}")
        if (index.sha256, index.samples) != (self._entry.sha256, self._entry.samples):
            raise ShardError(
                f"{self._storage.location}: the index of {self._entry.file} is not the one that the manifest names"
            )
        return index

    @functools.cached_property
    def _live(self) -> list[int]:
        gone = frozenset(self._entry.superseded)
        return [place for place, key in enumerate(self._index.keys) if key not in gone]

    @functools.cached_property
    def _columns(self) -> list[tuple[str, list[int], list[int], list[int]]]:
        """Extension, offsets, lengths and checksums of each member."""
        index = self._index
        return list(zip(index.members, index.offsets, index.lengths, index.crc32c, strict=True))

    @property
    def keys(self) -> list[str]:
        """Keys of the live samples, in order."""
        return [self._index.keys[place] for place in self._live]

    def read(self, number: int) -> tuple[str, dict[str, bytes]]:
        """Key and members (extension -> content) of the live sample `number`.

        Raises:
            DamagedSampleError: a member is not what the index says, also when read a second time.
            ShardError: the shard or its index is missing or unusable.
        """
        place = self._live[number]
        try:
            return self._index.keys[place], self._read(place, False)
        except DamagedSampleError:
            return self._index.keys[place], self._read(place, True)

    def read_member(self, number: int, extension: str) -> bytes:
        """One member of the live sample `number`, without reading the others. Raises as `read`, and KeyError."""
        columns = {name: columns for name, *columns in self._columns}
        offsets, lengths, sums = columns[extension]
        place = self._live[number]
        content = self._storage.read_range(self._entry, offsets[place], lengths[place])
        if checksum(content) != sums[place]:
            return self.read(number)[1][extension]  # which reads again, and names the damage
        return content

    def _read(self, place: int, fresh: bool) -> dict[str, bytes]:
        # A sample's members are adjacent: one read serves them all.
        offsets, lengths = self._index.offsets, self._index.lengths
        at, end = offsets[0][place], offsets[-1][place] + lengths[-1][place]
        content = self._storage.read_range(self._entry, at, end - at, fresh)
        members: dict[str, bytes] = {}
        for extension, starts, sizes, sums in self._columns:
            begin, length = starts[place] - at, sizes[place]
            member = content[begin : begin + length]
            if checksum(member) != sums[place] or len(member) != length:
                key, location = self._index.keys[place], self._storage.location
                raise DamagedSampleError(
                    f"{location}/{self._entry.file}: member {key}.{extension} is damaged "
                    f"(CRC32C differs); `unix shards verify {location}` finds all such members"
                )
            members[extension] = member
        return members
