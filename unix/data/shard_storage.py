"""Where a shard set's files are read from: a local folder, or an object store by ranges, through a bounded cache.

An object store is addressed by URI (`s3://bucket/shards/generation-256`, `gs://`, `az://`, `http(s)://`) and configured
by the environment variables that delta-rs reads too (`AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, ...). Every request is tried
again after connection faults, 429 and 5xx answers, with exponential back-off.
"""

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from pydantic import Field, model_validator

from unix.config import Config
from unix.errors import ShardError
from unix.manifest import ShardEntry

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_URI = re.compile(r"[a-z][a-z0-9+.]+:/{1,2}[^/]")
_SLACK = 16
"""The cache is trimmed after each such part of its bound that is written."""


class CacheConfig(Config):
    """A local copy of what was read from an object store; may be shared by the processes of a machine."""

    folder: str
    bytes: int = Field(default=64 * 2**30, ge=1)
    """Bound; every further process that shares the folder may exceed it by a sixteenth."""
    block_bytes: int = Field(default=2**20, ge=1)
    """What is fetched and evicted at once; a sample costs whole blocks."""

    @model_validator(mode="after")
    def _must_hold_some_blocks(self) -> Self:
        if self.bytes < _SLACK * self.block_bytes:
            raise ValueError(f"bytes={self.bytes} must be at least {_SLACK} x block_bytes={self.block_bytes}")
        return self


class Storage(Protocol):
    """The files of one shard set."""

    location: str

    def read_file(self, name: str) -> bytes:
        """A whole small file, such as an index. Raises ShardError where it cannot be read."""
        ...

    def read_range(self, shard: ShardEntry, start: int, length: int, fresh: bool = False) -> bytes:
        """`length` bytes of a shard, fewer where it ends before; `fresh` leaves out every cached copy.

        Raises:
            ShardError: the shard cannot be opened or read.
        """
        ...

    def close(self) -> None:
        """Give back open files; reading again reopens them."""
        ...


def open_storage(location: str | Path, cache: CacheConfig | None = None) -> Storage:
    """The storage at a local folder or at a URI; `cache` is for URIs, local files are read where they lie."""
    if _URI.match(str(location)):
        # pathlib folds the two slashes of a URI into one.
        return _ObjectFolder(re.sub(r"^([a-z0-9+.]+):/+", r"\1://", str(location)), cache)
    return _LocalFolder(Path(location))


class _LocalFolder:
    """Files read in place, by pread: any thread may read any part at any time."""

    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self._folder = folder
        self._files: dict[str, int] = {}
        self._opening = threading.Lock()

    def read_file(self, name: str) -> bytes:
        path = self._folder / name
        try:
            return path.read_bytes()
        except OSError as error:
            raise ShardError(f"cannot read {path}: {error.strerror}") from error

    def read_range(self, shard: ShardEntry, start: int, length: int, fresh: bool = False) -> bytes:
        return os.pread(self._files.get(shard.file) or self._open(shard.file), length, start)

    def _open(self, name: str) -> int:
        with self._opening:
            if name not in self._files:
                path = self._folder / name
                try:
                    self._files[name] = os.open(path, os.O_RDONLY)
                except OSError as error:
                    raise ShardError(f"cannot open the shard {path}: {error.strerror}") from error
            return self._files[name]

    def close(self) -> None:
        with self._opening:
            while self._files:
                os.close(self._files.popitem()[1])

    def __del__(self) -> None:
        self.close()


class _ObjectFolder:
    """Objects below a URI."""

    def __init__(self, uri: str, cache: CacheConfig | None) -> None:
        self.location = uri
        self._cache = None if cache is None else _BlockCache(cache)
        self._store = _object_store(uri)

    def read_file(self, name: str) -> bytes:
        import obstore

        with _named(f"{self.location}/{name}"):
            return bytes(obstore.get(self._store, name).bytes())

    def read_range(self, shard: ShardEntry, start: int, length: int, fresh: bool = False) -> bytes:
        stop = min(start + length, shard.bytes)
        if stop <= start:
            return b""
        if self._cache is None:
            return self._fetch(shard, start, stop)
        size = self._cache.block_bytes
        first = start // size
        blocks = b"".join(self._blocks(self._cache, shard, range(first, -(-stop // size)), fresh))
        return blocks[start - first * size : stop - first * size]

    def _blocks(self, cache: "_BlockCache", shard: ShardEntry, wanted: range, fresh: bool) -> Iterator[bytes]:
        """The blocks, in order; neighbours that the cache does not hold are fetched by one request."""
        held = {number: None if fresh else cache.get(shard.sha256, number) for number in wanted}
        missing = [number for number in wanted if held[number] is None]
        if missing:
            begin = missing[0] * cache.block_bytes
            content = self._fetch(shard, begin, min((missing[-1] + 1) * cache.block_bytes, shard.bytes))
            for number in range(missing[0], missing[-1] + 1):
                at = number * cache.block_bytes - begin
                held[number] = content[at : at + cache.block_bytes]
                cache.put(shard.sha256, number, held[number] or b"")
        for number in wanted:
            yield held[number] or b""

    def _fetch(self, shard: ShardEntry, start: int, stop: int) -> bytes:
        import obstore

        with _named(f"{self.location}/{shard.file}"):
            return bytes(obstore.get_range(self._store, shard.file, start=start, end=stop))

    def close(self) -> None:
        """Connections close by themselves."""


class _BlockCache:
    """Blocks of shards as files named by the shard's digest, so that nothing in it is ever out of date."""

    def __init__(self, config: CacheConfig) -> None:
        self.block_bytes = config.block_bytes
        self._folder = Path(config.folder)
        self._bound = config.bytes
        self._step = config.bytes // _SLACK
        self._unaccounted = self._step  # what is there already is measured at the first write
        self._counting = threading.Lock()
        # What it holds is as confidential as its source.
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def get(self, digest: str, number: int) -> bytes | None:
        path = self._path(digest, number)
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return content

    def put(self, digest: str, number: int, content: bytes) -> None:
        with self._counting:
            self._unaccounted += len(content)
            if self._unaccounted > self._step:
                self._trim()
                self._unaccounted = len(content)
        aside = tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False)  # noqa: SIM115
        with aside:
            aside.write(content)
        Path(aside.name).replace(self._path(digest, number))

    def _path(self, digest: str, number: int) -> Path:
        name = hashlib.sha256(f"{digest}/{self.block_bytes}/{number}".encode()).hexdigest()[:32]
        return self._folder / f"{name}.block"

    def _trim(self) -> None:
        """Remove the blocks that were not read for longest, until a step's worth of room is free."""
        blocks: list[tuple[int, int, str]] = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process trims too
                    status = entry.stat()
                    blocks.append((status.st_mtime_ns, status.st_size, entry.path))
        total = sum(size for _, size, _ in blocks)
        for _, size, path in sorted(blocks):
            if total <= self._bound - self._step:
                return
            with suppress(FileNotFoundError):
                Path(path).unlink()
            total -= size


@contextmanager
def _named(what: str) -> Generator[None]:
    """Turn an object store's errors into ones that name what was being read."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        raise ShardError(f"{what} is not there") from error
    except (BaseError, OSError) as error:
        raise ShardError(f"cannot read {what}: {type(error).__name__}, also after retries") from error


def _object_store(uri: str) -> "ObjectStore":
    # Imported here, as local sets need none of it.
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    try:
        return from_url(
            uri,
            client_options={"allow_http": True} if uri.startswith("http://") else None,
            retry_config={
                "max_retries": 8,
                "retry_timeout": timedelta(minutes=3),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=15),
                    "base": 2,
                },
            },
        )
    except (BaseError, ValueError) as error:
        raise ShardError(f"{uri} cannot be opened as an object store: {type(error).__name__}") from error
