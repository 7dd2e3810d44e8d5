"""What a run writes down of each step, and its copy for TensorBoard."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from unix.training.metrics import MetricsFile, read_metrics
from unix.training.run import train

EVERY_ROW = {
    "step",
    "loss",
    "cross_entropy",
    "grad_norm",
    "learning_rate",
    "tokens_per_second",
    "data_wait_seconds",
    "seconds",
    "memory_gb",
    "model_flops_utilisation",
}


def events(folder: Path) -> Iterator[Event]:
    """Of all files, oldest first: records of a length, its checksum, the event, its checksum."""
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            yield Event.FromString(data[at + 12 : at + 12 + length])
            at += 12 + length + 4


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Name -> step -> value, as TensorBoard shows them: a restart takes back what comes after it."""
    found: dict[str, dict[int, float]] = {}
    for event in events(folder):
        if event.session_log.status == event.session_log.START:
            found = {n: {s: v for s, v in row.items() if s < event.step} for n, row in found.items()}
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_a_row_holds_what_is_promised(configure, warm, tmp_path):
    train(configure("stage1", tmp_path, from_checkpoint=warm.checkpoint))
    for row in read_metrics(tmp_path):
        assert row.keys() == EVERY_ROW
        assert 0 <= row["data_wait_seconds"] < row["seconds"]
        assert 0 < row["model_flops_utilisation"] < 1
        assert 0.05 < row["memory_gb"] < 50


def test_a_given_peak_is_what_utilisation_is_measured_against(configure, warm, tmp_path):
    engine = {"peak_tflops": 1e-3}
    train(configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, engine=engine))
    ratios = {
        row["model_flops_utilisation"] * row["seconds"] / row["tokens_per_second"] / row["seconds"]
        for row in read_metrics(tmp_path)
    }
    per_token = [ratio * 1e9 for ratio in ratios]
    assert max(per_token) < 1.2 * min(per_token)  # FLOPs of a token, whatever time a step took


def test_scalars_are_the_rows_also_after_a_resume(configure, warm, tmp_path):
    config = configure("stage1", tmp_path, from_checkpoint=warm.checkpoint, tensorboard=True, steps=5)
    train(config.model_copy(update={"steps": 3}))
    with MetricsFile(tmp_path, 3, tensorboard=True) as metrics:  # a run that was killed after its step 4
        metrics.write(4, {"loss": 1000.0})
    train(config.model_copy(update={"resume": True}))
    rows, shown = read_metrics(tmp_path), scalars(tmp_path)
    assert shown.keys() == EVERY_ROW - {"step"}
    for name, values in shown.items():
        assert list(values) == [1, 2, 3, 4, 5]
        assert list(values.values()) == pytest.approx([row[name] for row in rows], rel=1e-6)


def test_a_number_that_is_not_finite_is_null_in_the_file(tmp_path):
    with MetricsFile(tmp_path, 0) as metrics:
        metrics.write(1, {"loss": math.inf, "part": "text"})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "part": "text"}
