"""Checks finished shard sets byte by byte: manifest, digests, indexes, tar headers, every member's CRC32C."""

import hashlib
from pathlib import Path

from unix.config import Config
from unix.data.shard_index import ShardIndex, checksum, index_file, read_index
from unix.data.tar import BLOCK, END_OF_ARCHIVE, member_header, padding
from unix.errors import ShardError
from unix.manifest import MANIFEST_FILE, Manifest, ShardEntry, check_counts, read_manifest, read_release
from unix.progress import Progress


class VerifySummary(Config):
    """What `verify_shards` found; the sets are sound when `problems` is empty."""

    sets: int
    shards: int
    samples: int
    bytes: int
    problems: tuple[str, ...]
    """One line each, naming the set, the shard and, where it can be told, the member."""


def verify_shards(folder: str | Path) -> VerifySummary:
    """Check the set in `folder`, or every set below it.

    Raises:
        ShardError: there is no finished set.
    """
    root = Path(folder)
    folders = (
        [root] if (root / MANIFEST_FILE).exists() else sorted(path.parent for path in root.glob(f"*/{MANIFEST_FILE}"))
    )
    if not folders:
        raise ShardError(f"{root} holds no shard set: no {MANIFEST_FILE} in it or in a folder of it")
    problems: list[str] = []
    shards: list[ShardEntry] = []
    for each in folders:
        try:
            manifest = read_manifest(each)
            problems += _check_manifest(each, manifest)
        except ShardError as error:
            problems.append(str(error))
            continue
        with Progress(f"verify {each.name}", len(manifest.shards)) as progress:
            for shard in manifest.shards:
                problems += (f"{each.name}/{shard.file}: {problem}" for problem in _check_shard(each, shard))
                progress.advance()
        shards += manifest.shards
    return VerifySummary(
        sets=len(folders),
        shards=len(shards),
        samples=sum(shard.samples for shard in shards),
        bytes=sum(shard.bytes for shard in shards),
        problems=tuple(problems),
    )


def _check_manifest(folder: Path, manifest: Manifest) -> list[str]:
    problems: list[str] = []
    try:
        check_counts(manifest)
        if read_release(folder, manifest.release) != manifest:
            problems.append(f"{folder.name}: {MANIFEST_FILE} differs from its release {manifest.release}")
    except ShardError as error:
        problems.append(str(error))
    return problems


def _check_shard(folder: Path, shard: ShardEntry) -> list[str]:
    try:
        index_bytes = (folder / index_file(shard.file)).read_bytes()
        content = (folder / shard.file).read_bytes()
    except OSError as error:
        return [f"cannot be read: {error.strerror} ({Path(error.filename).name})"]
    if hashlib.sha256(index_bytes).hexdigest() != shard.index_sha256:
        return ["its index has been changed (SHA-256 differs from the manifest's)"]
    index = read_index(folder, shard.file)
    problems: list[str] = []
    if unknown := set(shard.superseded) - set(index.keys):
        problems.append(f"{len(unknown)} superseded samples are not in it, such as {min(unknown)}")
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        problems += _locate_damage(content, index) or [f"{len(content)} bytes with another SHA-256 than the manifest's"]
    return problems


def _locate_damage(content: bytes, index: ShardIndex) -> list[str]:
    """Which members of a damaged shard are damaged, and how."""
    if len(content) != index.bytes:
        return [f"has {len(content)} bytes instead of {index.bytes}"]
    problems: list[str] = []
    for place, key in enumerate(index.keys):
        for number, extension in enumerate(index.members):
            name = f"{key}.{extension}"
            start, length = index.offsets[number][place], index.lengths[number][place]
            end = start + length
            if content[start - BLOCK : start] != member_header(name, length):
                problems.append(f"member {name}: its header is damaged")
            if checksum(content[start:end]) != index.crc32c[number][place]:
                problems.append(f"member {name}: its content is damaged (CRC32C differs)")
            if content[end : end + len(padding(length))] != padding(length):
                problems.append(f"member {name}: its padding is damaged")
    if content[-len(END_OF_ARCHIVE) :] != END_OF_ARCHIVE:
        problems.append("the end of the archive is damaged")
    return problems
