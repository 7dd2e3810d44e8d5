"""A small curated store for the tests of approved texts, splits, shards and their reader."""

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unix.data.images import encode_jpeg
from unix.data.shard_writer import ShardWriter, member_order
from unix.manifest import Manifest, Parents, ShardEntry, publish_manifest
from unix.records import Split, Task, no_labels
from unix.store import SCHEMAS, Store

EARLY = datetime(2024, 1, 1, tzinfo=UTC)


def smooth_picture(columns: int, rows: int, seed: int = 0) -> np.ndarray:
    """A smooth uint8 picture [rows, columns] with grey everywhere, so that padding is told from content."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:rows, 0:columns] / max(columns, rows)
    waves = sum(np.sin(7 * (a * x + b * y) + c) for a, b, c in generator.uniform(0.5, 4, (4, 3)))
    return (128 + 25 * waves).clip(30, 255).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str = "JPEG") -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


class CuratedStore:
    """Writes rows straight into a store's tables, with defaults for every column that a test does not care about."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self._rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}

    def study(self, study_id: str, subject_id: str | None = None, *, source: str = "phantom", **changes: Any) -> None:
        defaults = dict(
            source=source,
            subject_id=subject_id or study_id,
            study_id=study_id,
            report_raw="",
            report_sha256=f"sha-{study_id}",
            findings_raw="",
            impression_raw="",
            sections="{}",
            fingerprint="",
            ingested_at=EARLY,
            withdrawn=False,
        )
        self._rows["studies"].append({**defaults, **changes})

    def image(
        self, image_id: str, study_id: str, subject_id: str | None = None, *, source: str = "phantom", **changes: Any
    ) -> Path:
        path = self.root / "images" / f"{image_id}.jpg"
        defaults = dict(
            source=source,
            subject_id=subject_id or study_id,
            study_id=study_id,
            image_id=image_id,
            path=str(path),
            view_position="PA",
            rows=90,
            columns=120,
            labels={**no_labels(), "Edema": 1, "Fracture": -1},
            official_split=None,
            withdrawn=False,
        )
        self._rows["images"].append({**defaults, **changes})
        return path

    def cleaned(self, study_id: str, *, source: str = "phantom", minutes: int = 0, **changes: Any) -> None:
        defaults = dict(
            source=source,
            study_id=study_id,
            report_sha256=f"sha-{study_id}",
            prompt_version="v1",
            prompt_digest="prompt",
            model="rules",
            parameters_digest="parameters",
            endpoint="embedded",
            status="accepted",
            findings=f"Findings of {study_id}.",
            impression=f"Impression of {study_id}.",
            removed=[],
            flags=[],
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            cost_usd=0.0,
            latency_ms=0.0,
            attempts=1,
            created_at=EARLY + timedelta(minutes=minutes),
        )
        self._rows["cleaned_reports"].append({**defaults, **changes})

    def review(self, study_id: str, decision: str, *, minutes: int = 0, **changes: Any) -> None:
        defaults = dict(
            source="phantom",
            study_id=study_id,
            report_sha256=f"sha-{study_id}",
            prompt_version="v1",
            model="rules",
            decision=decision,
            findings="",
            impression="",
            reviewer="somebody",
            note="",
            created_at=EARLY + timedelta(minutes=minutes),
        )
        self._rows["reviews"].append({**defaults, **changes})

    def complete_study(self, study_id: str, subject_id: str | None = None, *, images: int = 1, **changes: Any) -> None:
        """A study with a cleaned report and image files `<study_id>-<n>`, their split as `changes` says."""
        self.study(study_id, subject_id)
        self.cleaned(study_id)
        for number in range(images):
            path = self.image(f"{study_id}-{number}", study_id, subject_id, **changes)
            path.parent.mkdir(parents=True, exist_ok=True)
            seed = int.from_bytes(path.name.encode()) % 2**32
            path.write_bytes(encode(smooth_picture(120, 90, seed)))

    def commit(self) -> str:
        """Write the rows gathered so far; returns the store's URI."""
        for table, rows in self._rows.items():
            if rows:
                frame = pl.DataFrame(rows, schema=SCHEMAS[table])
                (self.store.append if table == "reviews" else self.store.upsert)(table, frame)
                rows.clear()
        return self.store.uri


@pytest.fixture
def curated(tmp_path: Path) -> CuratedStore:
    """An empty store to fill with curated rows."""
    return CuratedStore(tmp_path)


@pytest.fixture(name="smooth_picture")
def smooth_picture_fixture() -> Callable[..., np.ndarray]:
    """`smooth_picture(columns, rows, seed)`."""
    return smooth_picture


@pytest.fixture(name="encode")
def encode_fixture() -> Callable[..., bytes]:
    """`encode(pixels, kind)`."""
    return encode


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
