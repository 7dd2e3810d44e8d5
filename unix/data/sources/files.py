"""Files below a source's root: found with one directory walk, never outside the root, never more than they may hold."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from unix.data.sources.base import RefusedReport, StudyFault
from unix.errors import SourceError

MAX_REPORT_BYTES = 1_000_000
"""Largest report read; MIMIC-CXR's longest has about 10 kB."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file below the root."""

    path: str
    """Relative to the root, forward slashes."""
    size: int
    modified: int
    """Nanoseconds since 1970."""

    @property
    def fingerprint(self) -> str:
        """Path, size and time of change."""
        return f"{self.path}:{self.size}:{self.modified}"

    def read(self, root: Path) -> bytes:
        """The content, where it is a report's: at most `MAX_REPORT_BYTES`.

        Raises:
            RefusedReport: it is too large or cannot be read.
        """
        if self.size > MAX_REPORT_BYTES:
            raise RefusedReport(StudyFault.TOO_LARGE, f"{self.size} bytes, at most {MAX_REPORT_BYTES} are read")
        try:
            with (root / self.path).open("rb") as file:
                return file.read(MAX_REPORT_BYTES)
        except OSError as error:
            raise RefusedReport(StudyFault.UNREADABLE, error.strerror or "cannot be read") from error


@dataclass(slots=True)
class Walk:
    """What lies below a folder."""

    files: list[FoundFile] = field(default_factory=list[FoundFile])
    outside: set[str] = field(default_factory=set[str])
    """Links, to files or folders, whose target is not below the root; they are not followed."""

    def leads_outside(self, path: str) -> bool:
        """Whether the path is such a link, or lies beyond one."""
        return bool(self.outside) and any(path[:end] in self.outside for end in (*_slashes(path), len(path)))


def walk(root: Path, folder: str, suffixes: tuple[str, ...]) -> Walk:
    """Walk `root/folder` for files with one of the suffixes (lower case, with dot). `root` must be resolved.

    Links are followed while they stay below the root; sockets, pipes and broken links are no files.

    Raises:
        SourceError: a folder cannot be read; going on would take what is in it for withdrawn.
    """
    found = Walk()
    top = root / folder
    if not top.is_dir():
        raise SourceError(f"missing folder {top}")
    if not top.resolve().is_relative_to(root):
        raise SourceError(f"{top} is a link that leaves {root}; put the folder itself there")
    pending = [(str(top), folder)]
    entered: set[str] = set()
    while pending:
        absolute, relative = pending.pop()
        try:
            with os.scandir(absolute) as entries:
                for entry in entries:
                    path = f"{relative}/{entry.name}"
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        if not Path(target).is_relative_to(root):
                            found.outside.add(path)
                            continue
                        if entry.is_dir():
                            if target in entered or top.is_relative_to(target):
                                continue  # a circle
                            entered.add(target)
                    if entry.is_dir():
                        pending.append((entry.path, path))
                    elif entry.name.lower().endswith(suffixes) and entry.is_file():
                        status = entry.stat()
                        found.files.append(FoundFile(path, status.st_size, status.st_mtime_ns))
        except OSError as error:
            raise SourceError(f"cannot read the folder {absolute}: {error.strerror}") from error
    return found


def _slashes(path: str) -> Iterator[int]:
    return (index for index, character in enumerate(path) if character == "/")
