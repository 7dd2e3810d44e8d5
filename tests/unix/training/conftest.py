"""A shard folder of invented samples and a model of a few thousand weights, so that whole runs take a second."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unix.data.shard_writer import ShardWriter, member_order
from unix.manifest import Manifest, Parents, publish_manifest
from unix.records import CHEXPERT_14, Split, Task
from unix.training.run import TrainSummary, train
from unix.training.stages import TrainConfig

SAMPLES = 24
MODEL: dict[str, Any] = {
    "decoder": {
        "vocabulary_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 2,
        "num_heads": 2,
        "num_key_value_heads": 2,
        "initial_deviation": 0.1,
    },
    "vision": {
        "image_size": 32,
        "patch_size": 16,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_layers": 1,
        "num_heads": 2,
        "stem_channels": [8, 16, 16],
    },
    "latent": {"channels": 16, "max_side": 8, "positions": "interpolated", "base_side": 2},
    "tokens": {"bos": 0, "eos": 1, "boi": 2, "eoi": 3},
}
PACKING = {"prompts": ["Report:", "Describe this."], "shift_pixels": 1, "gain_spread": 0.1}
OPTIMIZER = {"learning_rate": 1e-3, "warmup_steps": 2, "eps": 1e-8}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads would make sums depend on the machine."""
    torch.set_num_threads(1)


def _write_set(folder: Path, task: Task, size: int, seed: int = 0) -> None:
    """Invented samples: a bright square on the left or the right, and a report that says so."""
    rng = np.random.default_rng(seed)
    entries = []
    for split in Split:
        rows: dict[str, dict[str, bytes]] = {}
        for number in range(SAMPLES):
            side = "left" if number % 2 else "right"
            pixels = rng.integers(20, 60, (size, size), dtype=np.uint8)
            start = 0 if side == "right" else size // 2
            pixels[size // 2 :, start : start + size // 2] += 120
            picture = io.BytesIO()
            Image.fromarray(pixels).save(picture, "JPEG", quality=95)
            key = f"{split}-{number}"
            record = {
                "image_id": key,
                "study_id": key,
                "subject_id": key,
                "source": "phantom",
                "split": str(split),
                "findings": f"There is a {side} pleural effusion." + " The heart is normal." * (number % 3),
                "impression": f"{side.capitalize()} pleural effusion.",
                "caption": f"{side.capitalize()} pleural effusion.",
                "labels": dict.fromkeys(CHEXPERT_14),
                "view_position": "PA",
                "prompt_version": "v1",
                "model": "rules",
                "report_sha256": "0" * 64,
            }
            rows[key] = {"jpg": picture.getvalue(), "json": json.dumps(record).encode()}
        with ShardWriter(folder, split, 0, ("jpg", "json")) as writer:
            for key in sorted(rows, key=member_order):
                writer.add(key, rows[key])
            entries.append(writer.finish())
    publish_manifest(
        folder,
        Manifest(
            set=folder.name,
            task=task,
            size=size,
            members=("jpg", "json"),
            parents=Parents(code_revision="test", configuration_digest="test"),
            parent_release=None,
            added_shards=tuple(entry.file for entry in entries),
            superseded_samples=0,
            considered=SAMPLES * len(entries),
            excluded={},
            shards=tuple(entries),
        ),
    )


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shard sets `understanding-32`, `generation-32` and `generation-48`."""
    folder = tmp_path_factory.mktemp("shards")
    _write_set(folder / "understanding-32", Task.UNDERSTANDING, 32)
    _write_set(folder / "generation-32", Task.GENERATION, 32)
    _write_set(folder / "generation-48", Task.GENERATION, 48)
    return folder


@pytest.fixture(scope="session")
def write_set() -> Callable[..., None]:
    """Writes another set: `write_set(folder, task, size, seed)`."""
    return _write_set


Configure = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def configure(shards: Path) -> Configure:
    """Configurations of every stage for these shards; keyword arguments replace top-level settings."""

    def build(stage: str, run_dir: Path, **changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "stage": stage,
            "steps": 6,
            "seed": 3,
            "global_batch": 8,
            "micro_batch": 4,
            "checkpoint_every": 3,
            "shards": str(shards),
            "run_dir": str(run_dir),
            "model": MODEL,
            "optimizer": OPTIMIZER,
        }
        values |= {
            "stage0": {
                "data_set": "understanding-32",
                "understanding": PACKING,
                "warm_start": {
                    "text": {"steps": 2, "learning_rate": 1e-3},
                    "tower": {"steps": 2, "learning_rate": 1e-3},
                    "autoencoder": {"steps": 2, "learning_rate": 1e-3},
                    "codec": {"fine_channels": 8, "coarse_channels": 16, "num_blocks": 1},
                    "autoencoder_set": "generation-48",
                    "autoencoder_sizes": [32, 48],
                },
            },
            "stage1": {"data_set": "understanding-32", "understanding": PACKING},
            "stage2": {
                "data_set": "generation-32",
                "generation": {
                    "latents": "memory",
                    "remember_captions": True,
                    "copy_understanding": True,
                    "alignment": {"layer": 1, "projector_width": 16},
                },
                "optimizer": {**OPTIMIZER, "average_decay": 0.9},
            },
            "stage3": {"data_set": "generation-48", "generation": {"latents": "loop"}},
            "joint": {
                "data_set": "generation-32",
                "mixture": {"understanding": 1, "generation": 1, "understanding_set": "understanding-32"},
                "understanding": PACKING,
                "generation": {
                    "latents": "memory",
                    "copy_understanding": True,
                    "freeze_understanding": False,
                    "alignment": {"layer": 1, "projector_width": 16},
                },
            },
        }[stage]
        return TrainConfig.build(values | changes)

    return build


@pytest.fixture(scope="session")
def warm(configure: Configure, tmp_path_factory: pytest.TempPathFactory) -> TrainSummary:
    """Stage 0, run once."""
    return train(configure("stage0", tmp_path_factory.mktemp("warm")))


@pytest.fixture(scope="session")
def read(configure: Configure, warm: TrainSummary, tmp_path_factory: pytest.TempPathFactory) -> TrainSummary:
    """Stage 1 after it."""
    return train(configure("stage1", tmp_path_factory.mktemp("read"), from_checkpoint=warm.checkpoint))
