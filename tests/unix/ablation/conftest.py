"""The training tests' invented shards and smallest model, and a store with what their reports said before cleaning."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.unix.training.conftest import MODEL, PACKING, SAMPLES
from tests.unix.training.conftest import configure as configure
from tests.unix.training.conftest import one_thread as one_thread
from tests.unix.training.conftest import read as read
from tests.unix.training.conftest import shards as shards
from tests.unix.training.conftest import warm as warm
from unix.records import Split
from unix.store import SCHEMAS, Store, now

NOISE = "Comparison is made to the prior study from ___."

SETTINGS = (
    f"model={json.dumps(MODEL)}",
    f"understanding={json.dumps(PACKING)}",
    "data_set=understanding-32",
    "steps=4",
    "global_batch=8",
    "micro_batch=4",
    "processes=1",
    "optimizer.decay_steps=0",
)
"""Of stage 1, in place of the preset's."""


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Every sample's study, with noise in front of its findings."""
    held = Store(tmp_path_factory.mktemp("store"))
    held.append("studies", _studies(lambda number: f" {NOISE}\n There is an effusion ({number})."))
    return held


def _studies(findings: Callable[[int], str]) -> pl.DataFrame:
    rows = [
        {
            "source": "phantom",
            "subject_id": f"{split}-{number}",
            "study_id": f"{split}-{number}",
            "report_raw": f"FINDINGS: {findings(number)}",
            "report_sha256": "0" * 64,
            "findings_raw": findings(number),
            "impression_raw": "",
            "sections": "{}",
            "fingerprint": "",
            "withdrawn": False,
        }
        for split in Split
        for number in range(SAMPLES)
    ]
    return pl.DataFrame(rows).with_columns(ingested_at=now()).select(SCHEMAS["studies"].names())


@pytest.fixture
def training_set(shards: Path) -> Path:
    """The cleaned set."""
    return shards / "understanding-32"
