"""Predicting a split: what is done is not done again, and neither batches nor processes nor kills change a byte."""

import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from unix.errors import EvaluationError
from unix.evaluation import predict_split as job
from unix.evaluation.predict_split import generated_images, predict_split, reconstructed_images
from unix.evaluation.results import EvaluateConfig
from unix.evaluation.settings import sample_seed
from unix.records import Task

QUICK = {"max_new_tokens": 6, "num_steps": 2, "processes": 1}


@pytest.fixture
def config(checkpoint: Path, shard_sets: Path, tmp_path: Path) -> EvaluateConfig:
    settings = {"checkpoint": str(checkpoint), "shards": str(shard_sets), "out": str(tmp_path / "out"), **QUICK}
    return EvaluateConfig.build(settings)


def test_rows_hold_what_was_asked_said_and_true(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    split = predict_split(config, Task.UNDERSTANDING)
    (row, *_) = split.rows.iter_rows(named=True)
    assert (row["prompt"], row["reference_impression"]) == ("Describe the image.", "Small left pleural effusion.")
    assert row["seed"] == sample_seed(0, "test-00") and row["latency_ms"] > 0
    assert split.rows["image_id"].to_list() == [split.reader.keys[index] for index in split.indices]
    # once all is there, no worker starts and no weight is loaded
    monkeypatch.setattr(job, "PredictorPool", None)
    assert predict_split(config, Task.UNDERSTANDING).rows.equals(split.rows)


def test_what_is_done_is_not_done_again(config: EvaluateConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "_LEAST_IN_PART", 2)
    batched = config.model_copy(update={"batch": 2})
    whole = predict_split(batched, Task.UNDERSTANDING)
    parts = sorted((whole.folder / "parts").iterdir())
    assert len(parts) == 4
    written = {part: part.stat().st_mtime_ns for part in parts}
    parts[1].unlink()
    again = predict_split(batched, Task.UNDERSTANDING)
    assert again.rows.drop("latency_ms").equals(whole.rows.drop("latency_ms"))
    assert {part for part in parts if part.stat().st_mtime_ns == written[part]} == {*parts} - {parts[1]}
    # a run may go on with another batch
    parts[2].unlink()
    assert predict_split(config, Task.UNDERSTANDING).rows.drop("latency_ms").equals(whole.rows.drop("latency_ms"))


def test_another_checkpoint_in_the_same_place_is_another_run(
    config: EvaluateConfig, checkpoint: Path, tmp_path: Path
) -> None:
    predict_split(config, Task.UNDERSTANDING)
    copy = tmp_path / "run" / "step-3"
    copy.mkdir(parents=True)
    for file in (checkpoint / "step-3").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    moved = config.model_copy(update={"checkpoint": str(copy)})
    predict_split(moved, Task.UNDERSTANDING)
    (copy / "preprocessing.json").write_text('{"prompts": ["Describe another image."]}')
    with pytest.raises(EvaluationError, match="weights"):
        predict_split(moved, Task.UNDERSTANDING)


def test_a_drawing_that_is_gone_or_changed_stops_the_run(config: EvaluateConfig) -> None:
    split = predict_split(config, Task.GENERATION)
    assert len(list(generated_images(split))) == len(list(reconstructed_images(split))) == 8
    first, second = (split.folder / "generated" / f"test-0{number}.png" for number in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(EvaluationError, match=r"test-00\.png is not the image that was drawn"):
        list(generated_images(split))
    first.unlink()
    with pytest.raises(EvaluationError, match=r"cannot read the image .*test-00\.png"):
        list(generated_images(split))
    first.write_bytes(content)
    assert len(list(generated_images(split))) == 8


def test_results_lie_beside_the_step_they_are_of(config: EvaluateConfig, checkpoint: Path) -> None:
    anywhere = config.model_copy(update={"out": None})
    assert anywhere.folder(Task.GENERATION) == checkpoint / "evaluation" / "step-3" / "generation"
    step = anywhere.model_copy(update={"checkpoint": str(checkpoint / "step-3")})
    assert step.folder(Task.GENERATION) == checkpoint / "step-3" / "evaluation" / "generation"


@pytest.mark.slow
@pytest.mark.parametrize("task", Task)
def test_a_run_killed_at_any_moment_ends_as_if_it_had_not_been(
    task: Task, checkpoint: Path, shard_sets: Path, tmp_path: Path, repository: Path
) -> None:
    """Killed three times with -9, parts of two samples: the rows and drawings are those of an undisturbed run."""
    code = (
        "import sys; from unix.evaluation import predict_split as job; from unix.evaluation.results import "
        "EvaluateConfig; from unix.records import Task; job._LEAST_IN_PART = 2\n"
        "if __name__ == '__main__':\n    job.predict_split(EvaluateConfig.build(dict(checkpoint=sys.argv[2], "
        "shards=sys.argv[3], out=sys.argv[4], max_new_tokens=200, num_steps=40, processes=2, batch=2)), "
        "Task(sys.argv[1]))"
    )
    frames: list[pl.DataFrame] = []
    for name, kills in (("whole", 0), ("killed", 3)):
        out = tmp_path / name
        command = [sys.executable, "-c", code, task, str(checkpoint), str(shard_sets), str(out)]
        for expected in range(1, kills + 1):
            with subprocess.Popen(command, cwd=repository, stderr=subprocess.DEVNULL) as process:
                while process.poll() is None and len(list(out.glob("parts/*.parquet"))) < expected:
                    time.sleep(0.002)
                process.kill()
        subprocess.run(command, cwd=repository, check=True, stderr=subprocess.DEVNULL)
        frames.append(pl.concat([pl.read_parquet(part) for part in sorted(out.glob("parts/*.parquet"))]))
    assert frames[0].drop("latency_ms").equals(frames[1].drop("latency_ms"))
    drawings = [sorted((tmp_path / name).glob("generated/*.png")) for name in ("whole", "killed")]
    assert [file.read_bytes() for file in drawings[0]] == [file.read_bytes() for file in drawings[1]]
