"""The index beside a shard: where each member lies and its CRC32C, so that readers need no tar parsing.

`train-000000.tar` has `train-000000.index.json`, in columns: `keys[i]` is the i-th sample; `offsets[m][i]`,
`lengths[m][i]` and `crc32c[m][i]` describe its m-th member, whose extension is `members[m]`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import google_crc32c
from pydantic import ValidationError

from unix.config import Config, describe
from unix.errors import ShardError


class ShardIndex(Config):
    """Index of one shard."""

    file: str
    samples: int
    bytes: int
    sha256: str
    members: tuple[str, ...]
    keys: list[str]
    digests: list[str]
    """What each sample was made from, as one digest; a builder compares it to find changed samples. "" = unknown."""
    offsets: list[list[int]]
    lengths: list[list[int]]
    crc32c: list[list[int]]


def index_file(shard_file: str) -> str:
    """Name of a shard's index."""
    return shard_file.removesuffix(".tar") + ".index.json"


def read_index(folder: Path, shard_file: str) -> ShardIndex:
    """The index of a shard in a local folder.

    Raises:
        ShardError: it is missing, malformed, or its columns differ in length.
    """
    path = folder / index_file(shard_file)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ShardError(f"cannot read the index {path}: {error.strerror}") from error
    return parse_index(content, str(path))


def parse_index(content: bytes, path: str) -> ShardIndex:
    """The index in a file's content; `path` names it in errors.

    Raises:
        ShardError: it is malformed, or its columns differ in length.
    """
    try:
        index = ShardIndex.model_validate_json(content)
    except ValidationError as error:
        raise ShardError(f"{path} is not a shard index: {describe(error)}") from error
    columns = [index.keys, index.digests, *index.offsets, *index.lengths, *index.crc32c]
    per_member = {len(index.offsets), len(index.lengths), len(index.crc32c)}
    if {len(column) for column in columns} != {index.samples} or per_member != {len(index.members)}:
        raise ShardError(f"{path}: its columns do not all describe {index.samples} samples")
    return index


checksum = cast(Callable[[bytes], int], google_crc32c.value)  # pyright: ignore[reportUnknownMemberType]
"""CRC32C of a member's content."""
