"""The demo at smoke size: the whole chain in one command, again in the same folder, and what it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo import SETS, SETTINGS, STAGES, Size
from unix.cli import run
from unix.training.stages import load_stage


def demo(repository: Path, work: Path, summary: Path, *words: str) -> dict[str, Any]:
    result = subprocess.run(
        [sys.executable, "-m", "unix", "demo", "--smoke", "--work", str(work), "--json", str(summary), *words],
        cwd=work.parent,
        env={**os.environ, "PYTHONPATH": str(repository), "PREFECT_API_URL": "http://127.0.0.1:9/api"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads(summary.read_text())


@pytest.mark.slow
def test_the_chain_ends_in_a_report_and_a_second_run_keeps_what_is_done(repository: Path, tmp_path: Path) -> None:
    """The user's PREFECT_API_URL, which leads nowhere here, is not used."""
    work = tmp_path / "demo"
    first = demo(repository, work, tmp_path / "first.json")
    page = Path(first["report_html"])
    assert page.is_relative_to(work)
    assert "</html>" in page.read_text()
    assert first["seconds"] > 0
    assert set(first["cleaning"]) >= {"clean_token_recall", "noise_removed", "accepted_share"}
    assert set(first["understanding"]) >= {
        *("micro_f1_14", "macro_f1_14", "best_constant_micro_f1_14", "shuffled_micro_f1_14"),
    }
    assert set(first["generation"]) >= {
        *("readback_micro_f1_14", "shuffled_readback_micro_f1_14", "reconstruction_readback_micro_f1_14"),
        *("cardiomegaly_auc", "effusion_auc", "side_accuracy"),
    }
    assert first["cleaning"]["clean_token_recall"] > 0.9

    weights = sorted(work.glob("runs/*/step-*/model.safetensors"))
    assert len(weights) == 4
    written = [path.stat().st_mtime_ns for path in weights]
    second = demo(repository, work, tmp_path / "second.json")
    assert [path.stat().st_mtime_ns for path in weights] == written
    for part in ("cleaning", "understanding", "generation"):
        assert second[part] == first[part]


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert run(["demo", "--work", str(tmp_path)]) == 2
    assert "holds no demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("mark", [json.dumps({"seed": 1, "size": "normal", "version": "0.1.0"}), "{damaged"])
def test_another_demo_in_the_same_folder_is_refused(
    mark: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo.json").write_text(mark)
    assert run(["demo", "--work", str(tmp_path), "--seed", "2"]) == 2
    assert "another demo" in capsys.readouterr().err


def test_two_sizes_at_once_are_refused(tmp_path: Path) -> None:
    assert run(["demo", "--work", str(tmp_path / "demo"), "--long", "--smoke"]) == 2


@pytest.mark.parametrize("size", SETTINGS)
def test_every_size_is_a_valid_configuration_on_the_sets_that_are_built(size: Size) -> None:
    for stage in STAGES:
        places = ["shards=shards", "run_dir=run", *(["from_checkpoint=start"] if stage != STAGES[0] else [])]
        config = load_stage(stage, preset="tiny", overrides=[*places, *SETTINGS[size].get(stage, [])])
        assert config.data_set in SETS
