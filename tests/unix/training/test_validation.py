"""Looking at a run: what is written, that it repeats, and that the training does not notice."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unix.runs import MACHINE_COLUMNS
from unix.training.metrics import read_metrics
from unix.training.run import train


def without_looks(run_dir: Path) -> list[dict[str, Any]]:
    return [
        {
            name: value
            for name, value in row.items()
            if name not in MACHINE_COLUMNS and not name.startswith("validation_")
        }
        for row in read_metrics(run_dir)
    ]


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_looking_changes_nothing_and_repeats(stage, configure, read, tmp_path):
    look = {"every": 3, "samples": 6, "shown": 2, "num_steps": 2}
    for name, changes in (("blind", {}), ("seen", {"validation": look}), ("again", {"validation": look})):
        train(configure(stage, tmp_path / name, from_checkpoint=read.checkpoint, **changes))
    assert without_looks(tmp_path / "seen") == without_looks(tmp_path / "blind")
    rows, again = read_metrics(tmp_path / "seen"), read_metrics(tmp_path / "again")
    looks = [(row["step"], row["validation_loss"]) for row in rows if "validation_loss" in row]
    assert [step for step, _ in looks] == [3, 6]
    assert looks == [(row["step"], row["validation_loss"]) for row in again if "validation_loss" in row]
    folder = tmp_path / "seen" / "samples" / "step-6"
    if stage == "stage1":
        written = [json.loads(line) for line in (folder / "reports.jsonl").read_text().splitlines()]
        assert all("pleural effusion" in row["true"] for row in written)
        assert all(isinstance(row["report"], str) for row in written)
    else:
        written = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
        with Image.open(folder / f"{written[0]['image_id']}.png") as picture:
            assert picture.size == (64, 32)
    assert len(written) == 2


def test_a_sharded_run_is_looked_at_without_samples(configure, read, tmp_path):
    looked = {"validation": {"every": 6, "samples": 6}, "engine": {"sharding": "full"}, "processes": 2}
    train(configure("stage2", tmp_path, from_checkpoint=read.checkpoint, **looked))
    assert "validation_loss" in read_metrics(tmp_path)[-1]
    assert not (tmp_path / "samples").exists()
