"""A phantom store with a good and a sloppy cleaning of every report, and clients that look at it."""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fastapi.testclient import TestClient

from unix.data.cleaning.guards import Pair, judge
from unix.data.cleaning.run import CleanConfig, clean
from unix.data.ingest import IngestConfig, ingest
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.splits import SplitsConfig, build_splits
from unix.data.text_labels import label_texts
from unix.records import CleanedReport
from unix.store import Store
from unix.web.app import ServeConfig, create_app

ORIGIN = "http://127.0.0.1"
SLOPPY = "sloppy-1"

_SLIPS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: text,
    lambda text: text.replace("left", "right") if "left" in text else text.replace("right", "left"),
    lambda text: f"{text} There is a large mass." if text else text,
    lambda text: f"{text} Discussed with Dr. ___ at 10:15." if text else text,
    lambda text: text.partition(". ")[2],
    lambda text: text.replace("No ", "", 1),
)


def build_store(folder: Path, studies: int, image_size: int = 128) -> Store:
    """Phantom studies, cleaned by the rules and by a seeded model that makes one slip in most reports."""
    write_phantom(PhantomConfig(out=str(folder / "phantom"), studies=studies, image_size=image_size))
    store = Store(folder / "store")
    ingest(IngestConfig(store=store.uri, source="phantom", root=str(folder / "phantom")))
    clean(CleanConfig(store=store.uri))
    build_splits(SplitsConfig(store=store.uri))
    raw = store.read("studies", ["study_id", "report_raw"])
    good = store.read("cleaned_reports").sort("study_id").join(raw, on="study_id")
    chance = random.Random(0)
    store.upsert(
        "cleaned_reports",
        pl.DataFrame([_sloppy(row, chance) for row in good.iter_rows(named=True)], good.drop("report_raw").schema),
    )
    label_texts(store)
    return store


def _sloppy(row: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    slip = chance.choice(_SLIPS)
    text = CleanedReport(slip(row["findings"] or ""), row["impression"] or "")
    verdict = judge(Pair(row.pop("report_raw"), text))
    changed = {"findings": text.findings, "status": verdict.status.value, "flags": list(verdict.flags)}
    return row | changed | {"model": SLOPPY, "endpoint": "local"}


class Reader:
    """A client with the CSRF token of its pages."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.library = client.app.state.library
        self.token = re.search(r'name="csrf_token" value="(\w+)"', client.get("/").text)[1]

    def get(self, path: str, **parameters: str) -> str:
        answer = self.client.get(path, params=parameters)
        assert answer.status_code == 200, answer.status_code
        return answer.text

    def post(self, path: str, **fields: str):
        return self.client.post(path, data={"csrf_token": self.token, **fields}, follow_redirects=False)

    def studies(self, **condition: Any) -> list[str]:
        """`source/study_id` of the sloppy model's rows that meet a condition."""
        rows = self.library.view(model=SLOPPY).rows.filter(**condition)
        return [f"phantom/{study}" for study in rows["study_id"]]

    def row(self, study: str) -> dict[str, Any]:
        return self.library.view(model=SLOPPY).rows.row(by_predicate=pl.col("study_id") == study[8:], named=True)


@pytest.fixture(scope="session")
def phantom_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Sixty studies; tests that write use `reader`, which works on a copy."""
    return build_store(tmp_path_factory.mktemp("web"), 60)


@pytest.fixture
def store(phantom_store: Store, tmp_path: Path) -> Store:
    """A copy of the phantom store."""
    import shutil

    shutil.copytree(phantom_store.uri, tmp_path / "store")
    return Store(tmp_path / "store")


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with TestClient(create_app(ServeConfig(store=store.uri, reviewer="Ada")), base_url=ORIGIN) as client:
        yield client


@pytest.fixture
def reader(client: TestClient) -> Reader:
    return Reader(client)
