"""The manifest of a shard set: what it holds, made from what, in which release. Read, verified, published atomically.

A set's folder holds the shards, their indexes, `releases/<release>.json` for every release there ever was, and
`manifest.json`, a copy of the present one that is written last: a folder without it is unfinished. Shards are never
rewritten. A later release names its parent, the shards it adds and the samples it supersedes.
"""

import functools
import os
import subprocess
import uuid
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from unix.config import Config, describe, json_digest
from unix.errors import ShardError
from unix.records import Split, Task

MANIFEST_FILE = "manifest.json"
RELEASES_FOLDER = "releases"


class Parents(Config):
    """What a set was made from."""

    tables: dict[str, int | None] = Field(default={})
    """Store table -> version read."""
    prompt_version: str | None = None
    prompt_digests: tuple[str, ...] = ()
    model: str | None = None
    """The model whose cleaned reports were used."""
    code_revision: str
    configuration_digest: str
    artifacts: dict[str, str] = Field(default={})
    """Other parents by name, such as `vae` or `images`, with their digest or release."""


class ShardEntry(Config):
    """One shard; `samples` counts all its samples, superseded ones included."""

    file: str
    split: Split
    samples: int
    bytes: int
    sha256: str
    index_sha256: str
    superseded: tuple[str, ...] = ()
    """Keys, sorted, that no longer count: changed (and written anew in a later shard), withdrawn or rejected."""

    @property
    def live(self) -> int:
        """How many samples readers see."""
        return self.samples - len(self.superseded)


class Manifest(Config):
    """One release of a shard set."""

    release: str = ""
    """Name of the release, from its content (`sealed`), so that the same content has the same name everywhere."""
    set: str
    task: Task
    size: int
    """Side of the square pictures in pixels, also where the set holds their latents."""
    members: tuple[str, ...]
    """File extensions of every sample's members, in the shards' order."""
    parents: Parents
    parent_release: str | None
    added_shards: tuple[str, ...]
    superseded_samples: int
    """How many samples this release, not an earlier one, took out."""
    considered: int
    """Candidates: live samples + everything excluded."""
    excluded: dict[str, int]
    """Reason -> candidates without a live sample."""
    shards: tuple[ShardEntry, ...]

    def sealed(self) -> Self:
        """The same manifest with its release named."""
        return self.model_copy(update={"release": self._release_name()})

    @model_validator(mode="after")
    def _must_be_as_sealed(self) -> Self:
        if self.release and self.release != self._release_name():
            raise ValueError(f"the content is not that of release {self.release}: it was changed after its publication")
        return self

    def _release_name(self) -> str:
        return json_digest(self.model_dump(mode="json", exclude={"release"}))[:16]

    @property
    def live(self) -> int:
        """Samples that readers see."""
        return sum(shard.live for shard in self.shards)

    def split_shards(self, split: Split | str) -> tuple[ShardEntry, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def fingerprint(self, split: Split | str) -> str:
        """Digest of everything that decides the order and content of a split's live samples."""
        return json_digest([(s.file, s.sha256, s.index_sha256, s.superseded) for s in self.split_shards(split)])[:16]


def read_manifest(folder: str | Path) -> Manifest:
    """The present release of the set in `folder`.

    Raises:
        ShardError: there is none (the set is unfinished, or this is no set), or it is not a manifest.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.exists():
        raise ShardError(f"{folder} holds no {MANIFEST_FILE}: not a finished shard set; run `unix shards`")
    return _read(path)


def read_release(folder: str | Path, release: str) -> Manifest:
    """An earlier (or the present) release of the set in `folder`, by name."""
    return _read(Path(folder) / RELEASES_FOLDER / f"{release}.json")


def find_manifest(folder: str | Path) -> Manifest | None:
    """The present release, or None where nothing has been published in `folder` yet."""
    return read_manifest(folder) if (Path(folder) / MANIFEST_FILE).exists() else None


def publish_manifest(folder: str | Path, manifest: Manifest) -> Manifest:
    """Seal `manifest` and make it the present release; every file it names must be in place already.

    Raises:
        ShardError: a shard that it names is missing or has another size, or its counts do not balance.
    """
    check_counts(manifest)
    for shard in manifest.shards:
        path = Path(folder) / shard.file
        size = path.stat().st_size if path.exists() else None
        if size != shard.bytes:
            raise ShardError(f"cannot publish {manifest.set}: {path} has {size} bytes instead of {shard.bytes}")
    sealed = manifest.sealed()
    content = (sealed.model_dump_json(indent=1) + "\n").encode()
    write_atomically(Path(folder) / RELEASES_FOLDER / f"{sealed.release}.json", content)
    write_atomically(Path(folder) / MANIFEST_FILE, content)
    return sealed


def check_counts(manifest: Manifest) -> None:
    """Candidates must equal live samples + excluded.

    Raises:
        ShardError: they do not.
    """
    excluded = sum(manifest.excluded.values())
    if manifest.considered != manifest.live + excluded:
        raise ShardError(
            f"{manifest.set}: {manifest.considered} candidates, but {manifest.live} samples + {excluded} excluded"
        )


def write_atomically(path: Path, content: bytes) -> None:
    """Write aside, flush to disk, rename: readers see the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


@functools.cache
def code_revision() -> str:
    """The git commit of the running code, `+changed` where files differ from it; else the installed version."""
    here = Path(__file__).resolve()
    # An installed copy may lie inside somebody else's checkout: only a commit that tracks this file is ours.
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is not None:
        commit = _git(here.parent, "rev-parse", "HEAD")
        if commit:
            changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
            return f"{commit}+changed" if changed else commit
    try:
        return f"unix-cxr {version('unix-cxr')}"
    except PackageNotFoundError:
        from unix import __version__

        return f"unix-cxr {__version__}"


def _git(folder: Path, *arguments: str) -> str | None:
    command: Sequence[str] = ("git", "-C", str(folder), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def parse_manifest(content: bytes, path: str) -> Manifest:
    """The manifest in a file's content; `path` names it in errors.

    Raises:
        ShardError: it is none.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ShardError(f"{path} is not a manifest of this version: {describe(error)}") from error


def _read(path: Path) -> Manifest:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ShardError(f"cannot read {path}: {error.strerror}") from error
    return parse_manifest(content, str(path))
