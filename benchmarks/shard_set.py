"""A shard set for the benchmarks: many samples over a few pictures, published like any other."""

import json
from pathlib import Path

_PICTURES = 48


def write_set(folder: Path, samples: int, size: int, samples_per_shard: int = 1000) -> list[Path]:
    """Write and publish a set of `samples` samples of `size` x `size` pixels; returns its tars."""
    import numpy as np
    from PIL import Image

    from unix.data.images import encode_jpeg
    from unix.data.shard_writer import ShardWriter
    from unix.manifest import Manifest, Parents, publish_manifest
    from unix.records import Split, Task, no_labels

    draw = np.random.default_rng(0)
    jpegs: list[bytes] = []
    for _ in range(_PICTURES):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 12), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float64)
        grain = draw.normal(0, 3, (size, size))
        jpegs.append(encode_jpeg((smooth + grain).clip(0, 255).astype(np.uint8)))
    entries = []
    for number, first in enumerate(range(0, samples, samples_per_shard)):
        with ShardWriter(folder, Split.TRAIN, number, ("jpg", "json")) as writer:
            for sample in range(first, min(first + samples_per_shard, samples)):
                key = f"{sample:08d}"
                record = {
                    "image_id": key,
                    "study_id": f"s{key}",
                    "subject_id": f"p{key}",
                    "source": "benchmark",
                    "split": "train",
                    "findings": f"Sample {sample}. " + "The heart is of normal size and the lungs are clear. " * 5,
                    "impression": "No acute process.",
                    "caption": "No acute process.",
                    "labels": no_labels(),
                    "view_position": "PA",
                    "prompt_version": "v1",
                    "model": "rules",
                    "report_sha256": "0" * 64,
                }
                writer.add(key, {"jpg": jpegs[sample % _PICTURES], "json": json.dumps(record).encode()})
            entries.append(writer.finish())
    publish_manifest(
        folder,
        Manifest(
            set=f"generation-{size}",
            task=Task.GENERATION,
            size=size,
            members=("jpg", "json"),
            parents=Parents(code_revision="benchmark", configuration_digest="benchmark"),
            parent_release=None,
            added_shards=tuple(entry.file for entry in entries),
            superseded_samples=0,
            considered=samples,
            excluded={},
            shards=tuple(entries),
        ),
    )
    return sorted(folder.glob("*.tar"))
