from pathlib import Path

import polars as pl
import pytest

from unix.errors import EvaluationError
from unix.evaluation.predictions import SCHEMAS, PredictionFolder, PredictionRun, checked
from unix.records import Split, Task

RUN = PredictionRun(
    task=Task.UNDERSTANDING,
    weights="a" * 64,
    data_set="understanding-32",
    release="r",
    split=Split.TEST,
    limit=None,
    seed=0,
    settings={"max_new_tokens": 6, "temperature": 0.0},
)
KEYS = ["a", "b", "c", "d"]


def rows(*keys: str, prediction: str | None = "FINDINGS: Clear.") -> pl.DataFrame:
    texts = {name: ["x"] * len(keys) for name, kind in SCHEMAS[RUN.task].items() if kind == pl.String}
    values = {**texts, "image_id": list(keys), "prediction": [prediction] * len(keys)}
    return pl.DataFrame({**values, "seed": [1] * len(keys), "latency_ms": [2.5] * len(keys)})


def test_parts_in_any_order_give_the_samples_in_theirs(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path, RUN)
    assert folder.done() == set()
    folder.write_part("00000002-2", rows("c", "d"))
    assert folder.done() == {"c", "d"}
    PredictionFolder(tmp_path, RUN).write_part("00000000-2", rows("b", "a"))
    assert folder.read(KEYS)["image_id"].to_list() == KEYS


def test_a_part_half_written_does_not_count(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path, RUN)
    folder.write_part("00000000-2", rows("a", "b"))
    (tmp_path / "parts" / ".00000002-2.partial").write_bytes(b"PAR1")
    assert folder.done() == {"a", "b"}


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        (("a", "b", "c"), "1 of 4 samples have no prediction"),
        (("a", "b", "c", "d", "e"), r"1 predictions have no sample.*such as e"),
        (("a", "b", "c", "d", "b"), r"1 are there twice \(such as b\)"),
    ],
)
def test_predictions_that_are_not_those_of_the_split_stop_the_run(predicted: tuple[str, ...], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        checked(rows(*predicted), KEYS, "here")


def test_a_prediction_that_is_null_stops_the_run_and_an_empty_one_does_not() -> None:
    with pytest.raises(EvaluationError, match="the prediction of a is null"):
        checked(rows(*KEYS, prediction=None), KEYS, "here")
    assert checked(rows(*KEYS, prediction=""), KEYS, "here")["prediction"].to_list() == [""] * 4


def test_an_unreadable_part_is_named(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path, RUN)
    folder.write_part("00000000-4", rows(*KEYS))
    part = tmp_path / "parts" / "00000000-4.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(EvaluationError, match=r"00000000-4\.parquet is unreadable"):
        folder.done()


def test_predictions_of_another_run_are_neither_mixed_in_nor_replaced(tmp_path: Path) -> None:
    PredictionFolder(tmp_path, RUN).write_part("00000000-4", rows(*KEYS))
    other = RUN.model_copy(update={"seed": 3, "settings": {**RUN.settings, "temperature": 1.0}})
    with pytest.raises(EvaluationError, match=r"seed 0 there, 3 asked, temperature 0\.0 there, 1\.0 asked"):
        PredictionFolder(tmp_path, other)
    assert PredictionFolder(tmp_path, RUN).done() == set(KEYS)
