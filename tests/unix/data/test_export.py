"""Exported reports: one row per study, what each row says, filters, and the balance of the summary."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from unix.data.export import ExportReportsConfig, export_reports
from unix.errors import ConfigError


@pytest.fixture
def store(curated: Any) -> str:
    """Studies a (accepted, test), b (flagged), c (never cleaned) and d (withdrawn)."""
    for study_id in "abcd":
        curated.study(study_id, report_raw=f"Raw of {study_id}.", withdrawn=study_id == "d")
        curated.image(f"image-{study_id}", study_id)
    curated.cleaned("a", minutes=1, findings="Newer.")
    curated.cleaned("a", minutes=0, findings="Older.", parameters_digest="other")
    curated.cleaned("b", status="flagged", flags=["label_lost", "too_short"])
    curated.cleaned("d")
    curated.commit()
    split = dict(source="phantom", image_id="image-a", study_id="a", subject_id="a", split="test")
    curated.store.append("splits", pl.DataFrame([{**split, "task": task} for task in ("understanding", "generation")]))
    return curated.store.uri


def test_one_row_per_study_with_everything_known_about_it(store: str, tmp_path: Path) -> None:
    summary = export_reports(ExportReportsConfig(store=store, out=str(tmp_path / "reports.parquet")))
    rows = {row["study_id"]: row for row in pl.read_parquet(tmp_path / "reports.parquet").iter_rows(named=True)}
    assert list(rows) == ["a", "b", "c"]
    assert (rows["a"]["report_raw"], rows["a"]["findings"], rows["a"]["split"]) == ("Raw of a.", "Newer.", "test")
    assert (rows["b"]["status"], rows["b"]["outcome"]) == ("flagged", "flagged_unreviewed")
    assert rows["b"]["flags"] == ["label_lost", "too_short"]
    assert (rows["c"]["status"], rows["c"]["findings"], rows["c"]["outcome"]) == (None, None, "not_cleaned")
    assert (rows["a"]["Edema"], rows["a"]["Fracture"], rows["a"]["Pneumonia"]) == (1, -1, None)
    assert summary.statuses == {"accepted": 1, "flagged": 1, "not_cleaned": 1}
    assert summary.studies == summary.rows + summary.filtered_out == 3


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({"status": "flagged"}, ["b"]),
        ({"flag": "too_short"}, ["b"]),
        ({"split": "test"}, ["a"]),
        ({"source": "mimic-cxr"}, []),
        ({"status": "accepted", "split": "train"}, []),
    ],
)
def test_filters(store: str, tmp_path: Path, filters: dict[str, Any], left: list[str]) -> None:
    out = tmp_path / "reports.csv"
    summary = export_reports(ExportReportsConfig(store=store, out=str(out), **filters))
    assert pl.read_csv(out, infer_schema=False)["study_id"].to_list() == left
    assert summary.filtered_out == 3 - len(left)


def test_flags_are_json_in_a_csv(store: str, tmp_path: Path) -> None:
    out = tmp_path / "reports.csv"
    export_reports(ExportReportsConfig(store=store, out=str(out), status="flagged"))
    assert json.loads(pl.read_csv(out)["flags"].item()) == ["label_lost", "too_short"]


def test_a_store_without_cleaned_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unix clean"):
        export_reports(ExportReportsConfig(store=str(tmp_path / "store"), out=str(tmp_path / "x.csv")))
