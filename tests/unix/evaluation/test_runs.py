import json
from pathlib import Path

import pytest

from unix.errors import WeightsError
from unix.evaluation.runs import loss_series, read_run


def test_a_run_is_its_newest_whole_step(tmp_path: Path) -> None:
    for step in (2, 10):
        (tmp_path / f"step-{step}").mkdir()
        meta = {"stage": "stage2", "step": step, "seed": 3, "configuration_digest": "abc", "notes": ["a warm start"]}
        (tmp_path / f"step-{step}" / "meta.json").write_text(json.dumps(meta))
    (tmp_path / "step-99").mkdir()
    rows = [{"step": 1, "loss": 2.0, "flow": 1.5, "repa": 0.5, "grad_norm": 9.0}, {"step": 2, "loss": 1.0, "flow": 0.7}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = read_run(tmp_path)
    assert (run.steps, run.seed, run.notes, run.folder.name) == (10, 3, ("a warm start",), "step-10")
    assert [(one.name, one.values) for one in run.losses[""]] == [
        ("loss", [2.0, 1.0]),
        ("flow", [1.5, 0.7]),
        ("repa", [0.5]),
    ]


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=str(tmp_path)):
        read_run(tmp_path)


def test_parts_of_a_stage_have_curves_of_their_own_and_a_lone_term_is_drawn_once() -> None:
    rows = [
        {"step": 1, "part": "text", "loss": 3.0, "cross_entropy": 3.0},
        {"step": 2, "part": "tower", "loss": 0.5, "cross_entropy": 0.5},
    ]
    curves = {part: [one.name for one in series] for part, series in loss_series(rows).items()}
    assert curves == {"text": ["cross_entropy"], "tower": ["cross_entropy"]}
