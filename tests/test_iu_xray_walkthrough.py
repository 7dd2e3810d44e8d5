"""The commands of docs/iu_xray.md, run in order on an imitation of the collection."""

import csv
import json
import re
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unix.cli import run

REPORTS = (  # every text is invented
    ("The XXXX are clear. Heart size is normal. No pleural effusion.", "No acute disease."),
    ("Small left pleural effusion. The XXXX is stable. No pneumothorax.", "Small effusion."),
    ("Cardiomegaly. Mild pulmonary edema. XXXX XXXX were called at XXXX.", "Edema with cardiomegaly."),
    ("Right lower lobe opacity, compared to XXXX.", "Possible pneumonia."),
    ("", "No acute cardiopulmonary abnormality."),
    ("", ""),
)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """A folder with 30 reports, a frontal and a lateral image each."""
    root = tmp_path / "iu-xray"
    (root / "images" / "images_normalized").mkdir(parents=True)
    generator = np.random.default_rng(0)
    with (
        (root / "indiana_reports.csv").open("w", newline="") as reports,
        (root / "indiana_projections.csv").open("w", newline="") as projections,
    ):
        write_report, write_projection = csv.writer(reports).writerow, csv.writer(projections).writerow
        write_report(("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression"))
        write_projection(("uid", "filename", "projection"))
        for uid in range(1, 31):
            findings, impression = REPORTS[uid % len(REPORTS)]
            write_report((uid, "normal", "normal", "Xray Chest PA and Lateral", "Cough", "", findings, impression))
            for index, projection in enumerate(("Frontal", "Lateral")):
                name = f"{uid}_IM-{uid:04d}-{index + 1}001.dcm.png"
                write_projection((uid, name, projection))
                pixels = generator.integers(0, 255, (60, 48), np.uint8)
                Image.fromarray(pixels).save(root / "images" / "images_normalized" / name)
    return root


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
def test_the_walkthrough_leads_to_shards(repository: Path, collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (repository / "docs" / "iu_xray.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("unix ")]
    monkeypatch.chdir(collection.parent)
    monkeypatch.setenv("UNIX_STORE", "store")
    assert len(commands) >= 7
    for command in commands:
        assert run(command) == 0, f"unix {' '.join(command)}"

    reports = pl.read_csv("reports.csv")
    assert reports.filter(pl.col("status") == "accepted").height >= 20
    assert not reports["findings"].fill_null("").str.contains("XXXX").any()
    manifest = json.loads(Path("store/shards/understanding-384/manifest.json").read_text())
    assert manifest
    tars = sorted(Path("store/shards/understanding-384").glob("train-*.tar"))
    with tarfile.open(tars[0]) as tar:
        names = tar.getnames()
    assert {Path(name).suffix for name in names} == {".jpg", ".json"}
