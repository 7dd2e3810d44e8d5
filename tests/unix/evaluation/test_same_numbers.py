"""Equal numbers whatever batch size and process count, on a model that has learned to tell left from right."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from tests.unix.training.conftest import OPTIMIZER
from tests.unix.training.conftest import configure as configure
from tests.unix.training.conftest import one_thread as one_thread
from tests.unix.training.conftest import shards as shards
from tests.unix.training.conftest import warm as warm
from unix.evaluation.generation import EvaluateGenerationConfig, evaluate_generation
from unix.evaluation.results import EvaluationSummary
from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding
from unix.training.run import TrainSummary, train
from unix.training.stages import TrainConfig

WAYS = ({"batch": 24, "processes": 1}, {"batch": 1, "processes": 2}, {"batch": 5, "processes": 3})
TOLD = {"seconds", "predictions", "report_html"}
"""What tells time and place."""


@pytest.fixture(scope="module")
def trained(configure: Callable[..., TrainConfig], warm: TrainSummary, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("trained")
    optimizer = {**OPTIMIZER, "learning_rate": 5e-3}
    config = configure("stage1", run, from_checkpoint=warm.checkpoint, steps=150, optimizer=optimizer)
    return train(config).checkpoint


def evaluated(
    trained: str, shards: Path, out: Path, way: dict[str, int]
) -> tuple[EvaluationSummary, EvaluationSummary]:
    settings = {"checkpoint": trained, "shards": str(shards), "max_new_tokens": 24, "resamples": 100, **way}
    reading = EvaluateUnderstandingConfig.build({**settings, "out": str(out / "u"), "temperature": 0.7})
    drawing = {**settings, "out": str(out / "g"), "data_set": "generation-32", "num_steps": 3}
    return evaluate_understanding(reading), evaluate_generation(EvaluateGenerationConfig.build(drawing))


@pytest.mark.slow
def test_batches_and_processes_change_no_number(trained: str, shards: Path, tmp_path: Path) -> None:
    first, *others = [evaluated(trained, shards, tmp_path / str(place), way) for place, way in enumerate(WAYS)]
    rows = [pl.read_parquet(summary.predictions).drop("latency_ms") for summary in first]
    # the numbers are worth comparing: texts differ from image to image, and are right more often than by chance
    assert rows[0]["prediction"].n_unique() > 4 and rows[1]["read_back"].n_unique() > 1
    assert first[0].metrics["rouge_l"].value > 0.5
    for other in others:
        for one, two, table in zip(first, other, rows, strict=True):
            assert one.model_dump(exclude=TOLD) == two.model_dump(exclude=TOLD)
            assert table.equals(pl.read_parquet(two.predictions).drop("latency_ms"))
