"""Pages of evaluations, and evaluations side by side; predictions are made in this process."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import polars as pl
import pytest

from unix.errors import EvaluationError
from unix.evaluation import predict_split as job
from unix.evaluation.compare import CompareConfig, compare_evaluations
from unix.evaluation.generation import EvaluateGenerationConfig, evaluate_generation
from unix.evaluation.predictor import Predictor
from unix.evaluation.results import EvaluationSummary
from unix.evaluation.settings import PredictorConfig
from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding


class InThisProcess:
    """Stands in for the pool of workers."""

    def __init__(self, config: PredictorConfig, processes: int) -> None:
        self._predictor = Predictor.load(config, "cpu")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def each(self, function: Callable[[Any, Any], int], jobs: Sequence[Any], total: int, label: str) -> None:
        assert sum(function(self._predictor, one) for one in jobs) == total


@pytest.fixture(scope="module")
def evaluations(
    checkpoint: Path, shard_sets: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, EvaluationSummary]:
    """Two evaluations of each task, of the same checkpoint."""
    config = {"checkpoint": str(checkpoint), "shards": str(shard_sets), "max_new_tokens": 6, "num_steps": 2}
    config |= {"resamples": 20, "training_images": 12}
    out = tmp_path_factory.mktemp("evaluations")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "PredictorPool", InThisProcess)
        found: dict[str, EvaluationSummary] = {}
        for name in ("one", "two"):
            reading = EvaluateUnderstandingConfig.build({**config, "out": str(out / f"understanding-{name}")})
            found[f"understanding-{name}"] = evaluate_understanding(reading)
            drawing = EvaluateGenerationConfig.build({**config, "out": str(out / f"generation-{name}")})
            found[f"generation-{name}"] = evaluate_generation(drawing)
    return found


def folder(summary: EvaluationSummary) -> str:
    return str(Path(summary.predictions).parent)


def test_a_page_and_a_json_stand_beside_the_predictions(evaluations: dict[str, EvaluationSummary]) -> None:
    for summary in evaluations.values():
        html = Path(summary.report_html).read_text(encoding="utf-8")
        for part in ("Synthetic data", "Worst", "Best", "What is taken for what", "Class by class", summary.release):
            assert part in html, part
        assert "http" not in html and "<script" not in html
        held = json.loads((Path(folder(summary)) / "evaluation.json").read_text())
        assert EvaluationSummary.model_validate(held) == summary
        assert {"task", "checkpoint", "protocol", "n", "failures", "metrics", "per_class", "baselines"} <= held.keys()


def test_baselines_and_distances_are_there(evaluations: dict[str, EvaluationSummary]) -> None:
    reading, drawing = evaluations["understanding-one"], evaluations["generation-one"]
    for baseline in ("best_constant", "most_frequent_report", "nearest_image"):
        assert 0 <= reading.baselines[f"{baseline}_micro_f1_14"] <= 1
    assert {"most_frequent_report_rouge_l", "shuffled_bleu_4", "nearest_image_rouge_l"} <= reading.baselines.keys()
    distance = drawing.metrics["frechet_distance"]
    assert distance.n == 8 and distance.floor is not None and distance.low <= distance.value <= distance.high
    assert drawing.encoder == "tower" and drawing.memorisation is not None
    assert drawing.memorisation.n_training == 12


@pytest.mark.parametrize("task", ["understanding", "generation"])
def test_a_model_does_not_differ_from_itself(
    task: str, evaluations: dict[str, EvaluationSummary], tmp_path: Path
) -> None:
    folders = tuple(folder(evaluations[f"{task}-{name}"]) for name in ("one", "two"))
    summary = compare_evaluations(CompareConfig(folders=folders, out=str(tmp_path / "out"), resamples=20))
    first, second = summary.models
    assert first.differences == {} and second.differences
    assert all(one.value == one.low == one.high == 0 and not one.separated for one in second.differences.values())
    assert "not told apart" in summary.verdict
    html = Path(summary.report_html).read_text(encoding="utf-8")
    assert f"{task}-two" in html and "http" not in html
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["n"] == 8


def test_evaluations_of_other_samples_are_refused(evaluations: dict[str, EvaluationSummary], tmp_path: Path) -> None:
    one, other = (Path(folder(evaluations[f"understanding-{name}"])) for name in ("one", "two"))
    moved = tmp_path / "fewer"
    moved.mkdir()
    (moved / "evaluation.json").write_bytes((other / "evaluation.json").read_bytes())
    pl.read_parquet(other / "predictions.parquet").head(7).write_parquet(moved / "predictions.parquet")
    with pytest.raises(EvaluationError, match=r"has 8 samples and .* 7, not the same ones"):
        compare_evaluations(CompareConfig(folders=(str(one), str(moved)), out=str(tmp_path / "out")))
    drawn = folder(evaluations["generation-one"])
    with pytest.raises(EvaluationError, match="not comparable: task is understanding there and generation here"):
        compare_evaluations(CompareConfig(folders=(str(one), drawn), out=str(tmp_path / "out")))
    other = tmp_path / "other"
    other.mkdir()
    (other / "predictions.parquet").write_bytes((one / "predictions.parquet").read_bytes())
    for name, value in (("labeler", "chexbert 1"), ("protocol", "unix-paper")):
        told = json.loads((one / "evaluation.json").read_text()) | {name: value}
        (other / "evaluation.json").write_text(json.dumps(told))
        with pytest.raises(EvaluationError, match=f"not comparable: {name} is .* there and {value} here"):
            compare_evaluations(CompareConfig(folders=(str(one), str(other)), out=str(tmp_path / "out")))
    with pytest.raises(EvaluationError, match="cannot read"):
        compare_evaluations(CompareConfig(folders=(str(one), str(tmp_path)), out=str(tmp_path / "out")))
