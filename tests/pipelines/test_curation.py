"""`curate` with its own commands, on a store in which another model cleaned before."""

from pathlib import Path

import polars as pl
import pytest

from pipelines import curation
from unix.cli import run
from unix.data.cleaning.server import MODEL
from unix.manifest import read_manifest
from unix.store import Store

SETS = ["understanding-64", "generation-48"]

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.mark.usefixtures("in_this_process")
def test_a_changed_cleaner_takes_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phantom, store = tmp_path / "phantom", Store(tmp_path / "store")
    assert run(["phantom", "--studies", "12", "--out", str(phantom), "--image-size", "64"]) == 0
    curation.curate("phantom", str(phantom), store.uri, sets=SETS)
    answers = store.read("cleaned_reports")
    store.replace("cleaned_reports", answers.with_columns(model=pl.lit("rules-2"), findings=pl.lit("Other words.")))

    summary = curation.curate("phantom", str(phantom), store.uri, sets=SETS)
    assert set(store.read("cleaned_reports")["model"]) == {"rules-2", MODEL}
    releases = [read_manifest(Path(summary.values["out"], name)) for name in SETS]
    assert [release.parents.model for release in releases] == [MODEL, MODEL]
    assert not curation.curate("phantom", str(phantom), store.uri, sets=SETS).values["changed"]

    assert curation.build_splits(store.uri, model="rules-2").values["model"] == "rules-2"
    assert curation.build_splits(store.uri).values["model"] == MODEL, "of two that answer all, the later one"
    capsys.readouterr()
    assert run(["splits", "--store", store.uri]) == 2
    assert "several cleanings fit" in capsys.readouterr().err
