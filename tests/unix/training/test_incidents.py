"""Steps that went wrong: left out and written down, or the end of the run."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unix.errors import UnixError
from unix.training.engine import Engine, Place
from unix.training.incidents import IncidentConfig, Incidents
from unix.training.metrics import read_metrics
from unix.training.run import train

SAMPLES: Any = [SimpleNamespace(image_id="b"), SimpleNamespace(image_id="a")]


def written(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / "incidents.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def watch(run_dir: Path, **settings: Any) -> Incidents:
    return Incidents(IncidentConfig(**settings), run_dir, Engine(Place()), "stage1")


@pytest.mark.parametrize(("loss", "norm"), [(math.nan, 1.0), (1.0, math.inf)])
def test_too_many_in_a_row_stop_and_name_the_samples(loss: float, norm: float, tmp_path: Path) -> None:
    incidents = watch(tmp_path, skips_in_a_row=2)
    incidents.observe(1, loss, norm, SAMPLES)
    incidents.observe(2, 1.0, 1.0, SAMPLES)  # a good one between them
    incidents.observe(3, loss, norm, SAMPLES)
    with pytest.raises(UnixError, match=r"2 times in a row, last in step 4.*incidents.jsonl"):
        incidents.observe(4, loss, norm, SAMPLES)
    assert [row["step"] for row in written(tmp_path)] == [1, 3, 4]
    assert written(tmp_path)[0]["image_ids"] == ["a", "b"]


def test_a_spike_stands_out_of_its_window_alone(tmp_path: Path) -> None:
    incidents = watch(tmp_path, spike_window=5, spike_factor=3.0)
    for step, loss in enumerate([9.0, 1.0, 1.1, 0.9, 1.0, 2.9, 3.5, 1.0]):
        incidents.observe(step, loss, 1.0, SAMPLES)
    assert [(row["step"], row["kind"]) for row in written(tmp_path)] == [(6, "spike")]


def test_a_step_that_is_not_finite_changes_no_weight(configure, warm, tmp_path, monkeypatch):
    """The run goes on as if the step's gradient had been nothing."""
    from unix.training.objectives import UnderstandingObjective

    losses = UnderstandingObjective.losses
    calls = iter(range(100))

    def poisoned(self: Any, batch: Any, num_targets: float) -> Any:
        result = losses(self, batch, num_targets)
        return result._replace(loss=result.loss * math.nan) if next(calls) == 4 else result

    monkeypatch.setattr(UnderstandingObjective, "losses", poisoned)
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint)
    train(config)
    rows = read_metrics(tmp_path)
    assert [math.isnan(row["loss"]) for row in rows] == [False, False, True, False, False, False]
    assert rows[3]["loss"] < rows[0]["loss"]
    incident = written(tmp_path)
    assert [(row["step"], row["kind"], len(row["image_ids"])) for row in incident] == [(3, "not_finite", 8)]


def test_a_run_that_diverges_stops(configure, warm, tmp_path):
    optimizer = {"learning_rate": 1e12, "eps": 1e-8, "gradient_clip": 1e12}
    config = configure(
        "stage1", tmp_path, from_checkpoint=warm.checkpoint, optimizer=optimizer, incidents={"skips_in_a_row": 3}
    )
    with pytest.raises(UnixError, match="not finite 3 times in a row"):
        train(config)
