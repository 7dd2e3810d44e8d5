"""Files below a source's root, found with one walk that never leaves the root."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unix.errors import SourceError

FILES = pl.Schema({"path": pl.String, "size": pl.Int64, "modified": pl.Int64})
"""Path relative to the root with forward slashes, bytes, nanoseconds since 1970."""


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
    paths: list[str] = []
    sizes: list[int] = []
    times: list[int] = []
    outside: set[str] = set()
    entered: set[str] = set()
    pending = [(str(top), folder)]
    while pending:
        absolute, relative = pending.pop()
        try:
            with os.scandir(absolute) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        if not Path(target).is_relative_to(root):
                            outside.add(f"{relative}/{entry.name}")
                            continue
                        if entry.is_dir():
                            if target in entered or top.is_relative_to(target):
                                continue  # a circle
                            entered.add(target)
                    if entry.name.endswith(suffixes):
                        if entry.is_file():
                            status = entry.stat()
                            paths.append(f"{relative}/{entry.name}")
                            sizes.append(status.st_size)
                            times.append(status.st_mtime_ns)
                    elif entry.is_dir():
                        pending.append((entry.path, f"{relative}/{entry.name}"))
        except OSError as error:
            raise SourceError(f"cannot read the folder {absolute}: {error.strerror}") from error
    return Walk(pl.DataFrame([paths, sizes, times], schema=FILES), frozenset(outside))


def no_files() -> Walk:
    """A walk that found nothing."""
    return Walk(pl.DataFrame(schema=FILES), frozenset())


def file_mark() -> pl.Expr:
    """Changes when a row of `FILES` does."""
    return pl.format("{}:{}:{}", "path", "size", "modified")


def _prefixes(path: str) -> Iterator[str]:
    yield path
    yield from (path[:index] for index, character in enumerate(path) if character == "/")
