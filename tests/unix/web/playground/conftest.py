"""Two small, untrained runs to play with, and pages over the phantom store that offer them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.unix.evaluation.conftest import checkpoint
from tests.unix.web.conftest import ORIGIN, Reader
from unix.runs import META_FILE, Meta
from unix.store import Store
from unix.web.app import ServeConfig, create_app

__all__ = ["checkpoint"]


@pytest.fixture(scope="session")
def runs(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs `stage1` and `stage3`."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in ("stage1", "stage3"):
        shutil.copytree(checkpoint, folder / stage)
        meta = Meta(
            stage=stage,
            step=3,
            steps=3,
            seed=0,
            loader=None,
            configuration_digest="0" * 64,
            architecture_digest="0" * 64,
            shards_digest="0" * 64,
        )
        (folder / stage / "step-3" / META_FILE).write_text(meta.model_dump_json())
    return folder


@pytest.fixture
def player(store: Store, runs: Path) -> Iterator[Reader]:
    """A client of pages that offer the runs."""
    app = create_app(ServeConfig(store=store.uri, reviewer="Ada", runs=str(runs)))
    with TestClient(app, base_url=ORIGIN) as client:
        yield Reader(client)
