"""Files below a source's root, found with one walk that never leaves the root."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import polars as pl

from unix.errors import SourceError

FILES = pl.Schema({"path": pl.String, "size": pl.Int64, "modified": pl.Int64})
"""Path relative to the root with forward slashes, bytes, nanoseconds since 1970."""


_SCANNERS = 8  # threads where nearly all of the time is waiting, as on a network disk
_WAITING = 3  # wall seconds per CPU second that tell such a disk; on a local one threads only contend: half the speed
_FOLDERS_PER_TASK = 500


@dataclass(frozen=True, slots=True)
class Walk:
    """What lies below a folder."""

    files: pl.DataFrame
    """`FILES`, a row per regular file."""
    outside: frozenset[str]
    """Links, to files or folders, whose target is not below the root; they are not followed."""

    def leads_outside(self, path: str) -> bool:
        """Whether the path is such a link, or lies beyond one."""
        return bool(self.outside) and any(prefix in self.outside for prefix in _prefixes(path))


def walk(root: Path, folder: str, suffixes: tuple[str, ...]) -> Walk:
    """Walk `root/folder` for files with one of the suffixes. `root` must be resolved.

    Links are followed while they stay below the root; sockets, pipes and broken links are no files.

    Raises:
        SourceError: a folder is missing or cannot be read; going on would take what is in it for withdrawn.
    """
    top = root / folder
    if not top.is_dir():
        raise SourceError(f"missing folder {top}")
    if not top.resolve().is_relative_to(root):
        raise SourceError(f"{top} is a link that leaves {root}; put the folder itself there")
    whole, entered = _Scan(), set[str]()
    level: list[str] = [folder]
    scan = partial(_scan, root, suffixes)
    wall, busy = time.monotonic(), time.thread_time()
    with ThreadPoolExecutor(_SCANNERS) as scanners:
        while level:
            waits = time.monotonic() - wall > _WAITING * (time.thread_time() - busy)
            parts = [level[start : start + _FOLDERS_PER_TASK] for start in range(0, len(level), _FOLDERS_PER_TASK)]
            level = list[str]()
            for part in scanners.map(scan, parts) if waits else map(scan, parts):
                whole.extend(part)
                level += part.folders
                for link, target in part.links:
                    if target not in entered and not top.is_relative_to(target):  # else a circle
                        entered.add(target)
                        level.append(link)
    return Walk(pl.DataFrame([whole.paths, whole.sizes, whole.times], schema=FILES), frozenset(whole.outside))


def no_files() -> Walk:
    """A walk that found nothing."""
    return Walk(pl.DataFrame(schema=FILES), frozenset())


def file_mark() -> pl.Expr:
    """Changes when a row of `FILES` does."""
    return pl.format("{}:{}:{}", "path", "size", "modified")


@dataclass(slots=True)
class _Scan:
    """Entries of some folders."""

    paths: list[str] = field(default_factory=list[str])
    sizes: list[int] = field(default_factory=list[int])
    times: list[int] = field(default_factory=list[int])
    folders: list[str] = field(default_factory=list[str])
    links: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Links to folders below the root, and their targets."""
    outside: list[str] = field(default_factory=list[str])

    def extend(self, other: "_Scan") -> None:
        """Add the other's files and outside links."""
        self.paths += other.paths
        self.sizes += other.sizes
        self.times += other.times
        self.outside += other.outside


def _scan(root: Path, suffixes: tuple[str, ...], folders: list[str]) -> _Scan:
    """List folders, one level deep."""
    found = _Scan()
    for folder in folders:
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}"
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        if not Path(target).is_relative_to(root):
                            found.outside.append(path)
                            continue
                        if entry.is_dir():
                            found.links.append((path, target))
                            continue
                    if entry.name.endswith(suffixes):
                        if entry.is_file():
                            status = entry.stat()
                            found.paths.append(path)
                            found.sizes.append(status.st_size)
                            found.times.append(status.st_mtime_ns)
                    elif entry.is_dir():
                        found.folders.append(path)
        except OSError as error:
            raise SourceError(f"cannot read the folder {root / folder}: {error.strerror}") from error
    return found


def _prefixes(path: str) -> Iterator[str]:
    yield path
    yield from (path[:index] for index, character in enumerate(path) if character == "/")
