"""`unix ablate` as it is typed, at its smallest: what each arm is trained on, one table, one page, nothing twice."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.unix.ablation.conftest import SETTINGS
from tests.unix.evaluation.test_compare import InThisProcess
from unix.ablation import joint
from unix.ablation.joint import TABLE_5
from unix.cli import run
from unix.evaluation import predict_split
from unix.records import Task
from unix.store import Store
from unix.training.run import TrainSummary

JOINT = (
    *SETTINGS,
    "data_set=generation-32",
    "mixture.understanding_set=understanding-32",
    "generation.alignment.layer=1",
    "generation.alignment.projector_width=16",
)
"""Of the joint stage, in place of the preset's."""


def words(settings: Sequence[str], shards: Path, store: Store, checkpoint: str, out: Path) -> list[str]:
    """The options that all ablations share."""
    options = ["--from", checkpoint, "--shards", str(shards), "--store", store.uri, "--out", str(out / "out")]
    options += ["--json", str(out / "summary.json"), "--limit", "8", "--processes", "1"]
    return [*options, *(word for setting in settings for word in ("--set", setting))]


@pytest.fixture
def joint_words(shards: Path, store: Store, read: TrainSummary, tmp_path: Path) -> list[str]:
    return ["ablate", "joint", "--num-steps", "2", *words(JOINT, shards, store, read.checkpoint, tmp_path)]


@pytest.fixture
def cleaning_words(shards: Path, store: Store, warm: TrainSummary, tmp_path: Path) -> list[str]:
    return ["ablate", "cleaning", *words(SETTINGS, shards, store, warm.checkpoint, tmp_path)]


class Here(InThisProcess):
    """Reads pictures back too."""

    def describe(self, images: Sequence[Any], label: str) -> list[str]:
        return self._predictor.describe(images, [0] * len(images))


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_split, "PredictorPool", Here)
    monkeypatch.setattr(joint, "PredictorPool", Here)


def made(folder: Path) -> dict[Path, int]:
    """When each weight file and each part of the predictions was written."""
    files = [*folder.rglob("model.safetensors"), *folder.rglob("parts/*.parquet")]
    return {path: path.stat().st_mtime_ns for path in files}


def check_joint(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert [arm["name"] for arm in summary["arms"]] == [row.name for row in TABLE_5]
    for row, arm in zip(TABLE_5, summary["arms"], strict=True):
        trained = json.loads((Path(arm["checkpoint"]) / "configuration.json").read_text())
        mixture, generation = trained["mixture"], trained["generation"]
        assert (mixture["understanding"], mixture["generation"]) == (row.understanding, row.generation)
        assert generation["freeze_understanding"] is row.frozen
        assert (arm["n"], arm["steps"]) == (8, 4)
        wanted = {"micro_f1_14", "frechet_distance", "kernel_distance", "fixed_readback_micro_f1_14"}
        assert wanted <= arm["metrics"].keys()
        for metric in arm["metrics"].values():
            assert metric["low"] <= metric["high"] and metric["n"] == 8
        samples = [pl.read_parquet(out / "out" / row.name / task / "predictions.parquet")["image_id"] for task in Task]
        assert sorted(samples[0]) == sorted(samples[1])
    first, *others = summary["arms"]
    assert first["differences"] == {} and all("micro_f1_14" in arm["differences"] for arm in others)
    assert summary["verdict"].count("Report micro-F1-14") == len(others)
    html = (out / "out" / "report.html").read_text(encoding="utf-8")
    assert all(row.title in html for row in TABLE_5) and "http" not in html and "<script" not in html


def check_cleaning(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert [(arm["name"], arm["n"]) for arm in summary["arms"]] == [("cleaned", 8), ("raw", 8)]
    assert summary["baselines"]["noise_in_reports_as_written"] == 1.0
    assert {"micro_f1_14", "noise", "original_rouge_l"} <= summary["arms"][1]["differences"].keys()
    assert json.loads((out / "out" / "ablation.json").read_text())["verdict"] == summary["verdict"]
    assert "invented noise of any kind" in (out / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("in_this_process")
def test_cleaning_is_measured_and_told_and_nothing_is_done_twice(cleaning_words: list[str], tmp_path: Path) -> None:
    assert run(cleaning_words) == 0
    check_cleaning(tmp_path)
    before = made(tmp_path / "out")
    assert before and run(cleaning_words) == 0 and made(tmp_path / "out") == before


@pytest.mark.usefixtures("in_this_process")
def test_all_five_rows_of_the_joint_ablation_are_measured(joint_words: list[str], tmp_path: Path) -> None:
    assert run(joint_words) == 0
    check_joint(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "check"), [("cleaning_words", check_cleaning), ("joint_words", check_joint)])
def test_the_same_in_processes_of_its_own(
    name: str, check: Callable[[Path], None], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "unix", *request.getfixturevalue(name)]
    subprocess.run(command, check=True, capture_output=True)
    check(tmp_path)


def test_an_ablation_of_no_checkpoint_says_so(
    shards: Path, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ablate", "joint", *words(JOINT, shards, store, str(tmp_path / "none"), tmp_path)]) == 1
    assert "no checkpoint" in capsys.readouterr().err
