import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from unix.cli import run
from unix.errors import ConfigError, ResumeError
from unix.runs import list_runs, newest_checkpoint, read_meta

META = {
    "stage": "stage2",
    "step": 40,
    "steps": 100,
    "seed": 0,
    "loader": None,
    "configuration_digest": "c",
    "architecture_digest": "a",
    "shards_digest": "s",
    "parents": ["stage0:aa:7", "stage1:bb:30"],
    "notes": ["random weights"],
}


def write_run(folder: Path, steps: tuple[int, ...], losses: Sequence[float | None], wrote_at: float = 1e9) -> Path:
    for step in steps:
        (folder / f"step-{step}").mkdir(parents=True)
        (folder / f"step-{step}" / "meta.json").write_text(json.dumps(META | {"step": step}))
        os.utime(folder / f"step-{step}" / "meta.json", (wrote_at, wrote_at))
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": number, "loss": loss} for number, loss in enumerate(losses, start=1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "metrics.jsonl", (wrote_at, wrote_at))
    return folder


def test_a_run_is_its_newest_whole_checkpoint_and_its_last_whole_row(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "stage2", (20, 40), [3.0] * 41 + [2.5])
    (folder / "step-60").mkdir()  # no meta.json: unfinished
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 43, "lo')  # torn by a crash
    (folder / "incidents.jsonl").write_text('{"step": 3}\n{"step": 9}\n')
    (row,) = list_runs(tmp_path / "runs")
    assert (row.stage, row.checkpoint, row.step, row.steps, row.loss) == ("stage2", 40, 42, 100, 2.5)
    assert (row.incidents, row.parents, row.notes) == (2, ("stage0:aa:7", "stage1:bb:30"), ("random weights",))
    assert newest_checkpoint(folder) == folder / "step-40"


def test_the_run_that_wrote_last_comes_first_and_nested_ones_are_found(tmp_path: Path) -> None:
    write_run(tmp_path / "old", (40,), [1.0], wrote_at=1e9)
    write_run(tmp_path / "sweep" / "new", (40,), [1.0], wrote_at=2e9)
    write_run(tmp_path / "sweep" / "new" / "parts" / "text", (1,), [1.0], wrote_at=3e9)
    (tmp_path / "empty").mkdir()
    assert [Path(row.folder).name for row in list_runs(tmp_path)] == ["new", "old"]
    assert [Path(row.folder).name for row in list_runs(tmp_path / "old")] == ["old"]


def test_a_run_without_a_checkpoint_or_with_a_damaged_one_is_shown(tmp_path: Path) -> None:
    write_run(tmp_path / "begun", (), [5.0, None])
    damaged = write_run(tmp_path / "damaged", (40,), [1.0])
    (damaged / "step-40" / "meta.json").write_text("{}")
    rows = {Path(row.folder).name: row for row in list_runs(tmp_path)}
    assert (rows["begun"].stage, rows["begun"].step, rows["begun"].loss) == (None, 2, None)
    assert "step-40" in (rows["damaged"].problem or "")


def test_only_the_end_of_a_long_metrics_file_is_read(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "long", (40,), [1.0] * 20_000)
    assert (folder / "metrics.jsonl").stat().st_size > 1 << 18
    assert list_runs(folder)[0].step == 20_000


def test_no_such_folder_and_no_such_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        list_runs(tmp_path / "absent")
    with pytest.raises(ResumeError, match="step-1"):
        read_meta(tmp_path / "step-1")


def test_the_command_prints_a_table_and_writes_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "runs" / "stage2", (40,), [1.25])
    assert run(["runs", "--runs", str(tmp_path / "runs"), "--json", str(tmp_path / "runs.json")]) == 0
    shown = capsys.readouterr().out
    assert "stage1@30 < stage0@7" in shown
    written: list[dict[str, Any]] = json.loads((tmp_path / "runs.json").read_text())["runs"]
    assert (written[0]["checkpoint"], written[0]["loss"]) == (40, 1.25)
