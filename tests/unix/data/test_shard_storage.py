"""Reading shards from an object store: ranges, retries, a bounded cache, faults that name the object."""

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from unix.data.shard_storage import CacheConfig, open_storage
from unix.data.stream import ShardReader, stream
from unix.errors import ConfigError, DamagedSampleError, ShardError
from unix.manifest import ShardEntry
from unix.records import Split

CONTENT = bytes(range(256)) * 40
ENTRY = ShardEntry(
    file="train-000000.tar", split=Split.TRAIN, samples=1, bytes=len(CONTENT), sha256="ab", index_sha256="cd"
)


class FaultyHandler(SimpleHTTPRequestHandler):
    """Serves ranges of a folder's files; answers 503 as often as `faults` says, and notes every request."""

    faults = 0
    requests: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        kind = type(self)
        kind.requests.append(self.headers.get("Range", "whole"))
        if kind.faults:
            kind.faults -= 1
            self.send_error(503)
            return
        path = Path(self.directory) / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if "Range" in self.headers:
            first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
            last = min(last, len(content) - 1)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(content[first : last + 1])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """The URI of a folder with one shard, behind a server that can be told to fail."""
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ENTRY.file).write_bytes(CONTENT)
    FaultyHandler.faults, FaultyHandler.requests = 0, []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(FaultyHandler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/set"
        server.shutdown()
        thread.join()


def cache(folder: Path, blocks: int = 16) -> CacheConfig:
    return CacheConfig(folder=str(folder / "cache"), bytes=blocks * 512, block_bytes=512)


def test_a_range_is_fetched_and_nothing_else(served: str) -> None:
    assert open_storage(served).read_range(ENTRY, 100, 300) == CONTENT[100:400]
    assert FaultyHandler.requests == ["bytes=100-399"]


def test_failed_requests_are_tried_again(served: str) -> None:
    FaultyHandler.faults = 2
    assert open_storage(served).read_range(ENTRY, 0, 10) == CONTENT[:10]
    assert len(FaultyHandler.requests) == 3


def test_what_was_read_is_read_from_the_cache_next_time_by_any_reader(served: str, tmp_path: Path) -> None:
    first = open_storage(served, cache(tmp_path))
    assert first.read_range(ENTRY, 600, 1000) == CONTENT[600:1600]
    again = open_storage(served, cache(tmp_path))
    assert again.read_range(ENTRY, 520, 1500) == CONTENT[520:2020]
    assert FaultyHandler.requests == ["bytes=512-2047"]


def test_only_missing_blocks_are_fetched_and_fresh_reading_fetches_all(served: str, tmp_path: Path) -> None:
    storage = open_storage(served, cache(tmp_path))
    storage.read_range(ENTRY, 0, 512)
    assert storage.read_range(ENTRY, 0, 2048) == CONTENT[:2048]
    storage.read_range(ENTRY, 0, 512, fresh=True)
    assert FaultyHandler.requests == ["bytes=0-511", "bytes=512-2047", "bytes=0-511"]


def test_a_shard_is_read_to_its_end_and_not_beyond(served: str, tmp_path: Path) -> None:
    for storage in (open_storage(served), open_storage(served, cache(tmp_path))):
        assert storage.read_range(ENTRY, len(CONTENT) - 5, 100) == CONTENT[-5:]
        assert storage.read_range(ENTRY, len(CONTENT), 100) == b""


def test_the_cache_stays_within_its_bound_and_keeps_what_was_read_last(served: str, tmp_path: Path) -> None:
    storage = open_storage(served, cache(tmp_path))
    for number in range(20):
        storage.read_range(ENTRY, number * 512, 512)
        os.utime(max((tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_ctime_ns), (number, number))
        assert sum(path.stat().st_size for path in (tmp_path / "cache").iterdir()) <= 16 * 512
    FaultyHandler.requests.clear()
    storage.read_range(ENTRY, 19 * 512, 512)
    assert FaultyHandler.requests == []
    storage.read_range(ENTRY, 0, 512)
    assert len(FaultyHandler.requests) == 1


def test_a_cache_that_holds_too_little_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bytes=1000 must be at least 16 x block_bytes=512"):
        CacheConfig.build({"folder": str(tmp_path), "bytes": 1000, "block_bytes": 512})


def test_what_is_not_there_is_named(served: str) -> None:
    storage = open_storage(served)
    missing = ENTRY.model_copy(update={"file": "train-000007.tar"})
    with pytest.raises(ShardError, match=r"/set/train-000007\.tar is not there"):
        storage.read_range(missing, 0, 10)
    with pytest.raises(ShardError, match=r"/set/manifest\.json is not there"):
        storage.read_file("manifest.json")


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ShardError, match="cannot be opened as an object store"):
        open_storage("gopher://bucket/shards")


def upload(folder: Path, prefix: str) -> None:
    import boto3

    client = boto3.client("s3", region_name="us-east-1")
    for path in folder.rglob("*"):
        if path.is_file():
            client.put_object(Bucket="shards", Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())


def test_a_set_in_a_bucket_is_streamed_like_the_folder_it_came_from(
    bucket: str, shard_set: Path, tmp_path: Path
) -> None:
    upload(shard_set, "set")
    local = ShardReader(shard_set, "train")
    caching = CacheConfig(folder=str(tmp_path / "cache"))
    for reader in (
        ShardReader(f"{bucket}/set", "train"),
        ShardReader(Path(f"{bucket}/set"), "train", cache=caching),  # pathlib takes a slash away
        ShardReader(f"{bucket}/set", "train", release=local.manifest.release, cache=caching),
    ):
        assert (reader.fingerprint, reader.keys) == (local.fingerprint, local.keys)
        ours, theirs = stream(reader, 3, 4, workers=2), stream(local, 3, 4)
        for _ in range(6):
            (samples, state), (expected, expected_state) = next(ours), next(theirs)
            assert state == expected_state
            assert [sample.image_id for sample in samples] == [sample.image_id for sample in expected]
            assert all((a.image == b.image).all() for a, b in zip(samples, expected, strict=True))


def test_a_damaged_cached_block_is_fetched_again(bucket: str, shard_set: Path, tmp_path: Path) -> None:
    upload(shard_set, "whole")
    reader = ShardReader(f"{bucket}/whole", "train", cache=CacheConfig(folder=str(tmp_path / "cache")))
    expected = reader.read_members(0)
    for block in (tmp_path / "cache").iterdir():
        block.write_bytes(bytes(block.stat().st_size))
    assert reader.read_members(0) == expected
    assert reader.read_members(0) == expected


def test_damage_in_the_bucket_itself_is_named(bucket: str, shard_set: Path, tmp_path: Path) -> None:
    for path in shard_set.glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    upload(shard_set, "damaged")
    with pytest.raises(DamagedSampleError, match=r"s3://shards/damaged/train-00000\d\.tar: member .* is damaged"):
        ShardReader(f"{bucket}/damaged", "train").read(0)
