"""How predictions are made, as configuration; free of torch, so that a job can be set up without it."""

import hashlib
import os
from pathlib import Path

from pydantic import Field

from unix.config import Config, read_yaml

CONFIGURATION_FILE = "configuration.json"


class PredictorConfig(Config):
    """Which model predicts, and how."""

    checkpoint: str
    """A run's folder (its newest step) or a step's folder."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Longer reports are cut."""
    temperature: float = Field(default=0.0, ge=0)
    """0 writes the most likely report; above, tokens are drawn from softmax(logits / temperature)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Tokens are drawn from the most likely alone, as few as hold this much probability."""
    seed: int = 0
    """Of what is drawn at random."""
    max_caption_tokens: int = Field(default=256, ge=1)
    """Longer captions are cut, and a warning says how many were."""
    num_steps: int = Field(default=50, ge=1)
    """Euler steps per drawn image."""
    guidance: float = 2.0
    """Classifier-free guidance on the caption; 1 or less is none."""
    batch: int = Field(default=64, ge=1)
    """Samples in one forward pass."""


class CheckpointFacts(Config):
    """What a checkpoint says about itself."""

    resolution: int
    """Side of the images that it draws unless told otherwise: those it was last trained to draw; where it never was,
    those of the latent grid whose positions are whole numbers."""


def trained_on(step: Path) -> str:
    """Name of the shard set that the checkpoint in a step's folder was last trained on; "" where it does not say."""
    path = step / CONFIGURATION_FILE
    return str(read_yaml(path).get("data_set", "")) if path.is_file() else ""


def sample_seed(seed: int, key: str) -> int:
    """A seed below 2^63 for sample `key`: the same whatever batch, process or order it is met in."""
    digest = hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def default_processes() -> int:
    """One process per GPU of this machine; without one, a process per processor core that may be used."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return gpus or cores
