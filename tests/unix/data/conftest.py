"""Published sets of shards for the tests of their reader."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from unix.data.images import encode_jpeg
from unix.data.shard_writer import ShardWriter, member_order
from unix.manifest import Manifest, Parents, ShardEntry, publish_manifest
from unix.records import Split, Task, no_labels


def sample_record(key: str) -> dict[str, object]:
    return {
        "image_id": key,
        "study_id": f"study-{key}",
        "subject_id": f"subject-{key}",
        "source": "phantom",
        "split": "train",
        "findings": f"Findings {key}.",
        "impression": "",
        "caption": f"Caption {key}.",
        "labels": {**no_labels(), "Edema": 1},
        "view_position": "PA",
        "prompt_version": "v1",
        "model": "rules",
        "report_sha256": "sha",
    }


def write_set(folder: Path, shards: list[int], superseded: dict[int, int] | None = None) -> Path:
    """A published set of `shards[i]` samples in shard i, of which the first `superseded[i]` no longer count."""
    entries: list[ShardEntry] = []
    for number, count in enumerate(shards):
        keys = sorted((f"{number}-{i}" for i in range(count)), key=member_order)
        with ShardWriter(folder, Split.TRAIN, number, ("jpg", "json")) as writer:
            for key in keys:
                image = np.full((8, 8), len(entries) * 10 + 5, np.uint8)
                writer.add(key, {"jpg": encode_jpeg(image), "json": json.dumps(sample_record(key)).encode()})
            entry = writer.finish()
        gone = tuple(sorted(keys[: (superseded or {}).get(number, 0)]))
        entries.append(entry.model_copy(update={"superseded": gone}))
    manifest = Manifest(
        set="generation-8",
        task=Task.GENERATION,
        size=8,
        members=("jpg", "json"),
        parents=Parents(code_revision="c", configuration_digest="d"),
        parent_release=None,
        added_shards=tuple(entry.file for entry in entries),
        superseded_samples=0,
        considered=sum(entry.live for entry in entries),
        excluded={},
        shards=tuple(entries),
    )
    publish_manifest(folder, manifest)
    return folder


@pytest.fixture(scope="session", name="write_set")
def write_set_fixture() -> Callable[..., Path]:
    """`write_set(folder, shards, superseded)`."""
    return write_set


@pytest.fixture
def shard_set(tmp_path: Path) -> Path:
    """A small published set of 20 live training samples in five shards."""
    return write_set(tmp_path / "generation-8", [5, 1, 7, 6, 3], {0: 1, 1: 1})


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket of moto's S3 server on loopback, and the environment that points there."""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_REGION", "us-east-1")
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="shards")
        yield "s3://shards"
        server.stop()
