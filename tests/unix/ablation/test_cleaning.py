"""The ablation of cleaning at its smallest: two arms, one difference, nothing done twice."""

import json
from pathlib import Path

import polars as pl
import pytest

from tests.unix.ablation.conftest import SETTINGS
from unix.ablation.arms import AblationConfig, AblationSummary
from unix.ablation.cleaning import CHART, ablate_cleaning
from unix.ablation.report import render
from unix.evaluation.bootstrap import Difference, Metric
from unix.evaluation.comparison import ModelResult
from unix.records import Split
from unix.store import Store
from unix.training.run import TrainSummary

ARM = ModelResult(name="a", title="", checkpoint="", steps=1, n=9, metrics={}, differences={})


@pytest.fixture(scope="module")
def config(warm: TrainSummary, shards: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> AblationConfig:
    return AblationConfig(
        from_checkpoint=warm.checkpoint,
        shards=str(shards),
        store=store.uri,
        out=str(tmp_path_factory.mktemp("ablation")),
        settings=SETTINGS,
        limit=8,
        processes=1,
        resamples=20,
    )


@pytest.fixture(scope="module")
def summary(config: AblationConfig) -> AblationSummary:
    return ablate_cleaning(config)


@pytest.mark.slow
def test_both_arms_are_measured_on_the_same_samples(summary: AblationSummary, config: AblationConfig) -> None:
    cleaned, raw = summary.arms
    assert [(arm.name, arm.n, arm.steps) for arm in summary.arms] == [("cleaned", 8, 4), ("raw", 8, 4)]
    assert {"micro_f1_14", "original_micro_f1_14", "noise", "rouge_l"} <= raw.metrics.keys()
    assert cleaned.differences == {} and raw.differences.keys() == raw.metrics.keys() & cleaned.metrics.keys()
    rows = [pl.read_parquet(Path(config.out) / arm.name / "understanding/predictions.parquet") for arm in summary.arms]
    assert rows[0]["reference"].equals(rows[1]["reference"])
    assert summary.baselines == {"noise_in_cleaned_references": 0.0, "noise_in_reports_as_written": 1.0}
    assert json.loads((Path(config.out) / "ablation.json").read_text())["verdict"] == summary.verdict


@pytest.mark.slow
def test_the_arms_differ_in_their_text_alone(summary: AblationSummary) -> None:
    texts = [json.loads((Path(arm.checkpoint) / "configuration.json").read_text()) for arm in summary.arms]
    different = {name for name in texts[0] if texts[0][name] != texts[1][name]}
    assert different == {"shards", "run_dir"}


@pytest.mark.slow
def test_again_it_trains_and_predicts_nothing(summary: AblationSummary, config: AblationConfig) -> None:
    made = {path: path.stat().st_mtime_ns for path in Path(config.out).rglob("parts/*.parquet")}
    made |= {path: path.stat().st_mtime_ns for path in Path(config.out).rglob("model.safetensors")}
    again = ablate_cleaning(config)
    assert again.model_dump(exclude={"seconds"}) == summary.model_dump(exclude={"seconds"})
    assert made == {path: path.stat().st_mtime_ns for path in made}


def test_the_page_shows_arms_intervals_and_verdict() -> None:
    metric = Metric(value=0.5, low=0.4, high=0.6, n=9)
    first = ARM.model_copy(update={"title": "cleaned reports", "metrics": {"micro_f1_14": metric}})
    change = Difference(value=-0.2, low=-0.3, high=-0.1, n=9, separated=True)
    second = first.model_copy(update={"title": "<b>as written</b>", "differences": {"micro_f1_14": change}})
    html = render(
        AblationSummary(
            ablation="cleaning",
            from_checkpoint="runs/stage0",
            split=Split.TEST,
            seed=0,
            arms=(first, second),
            baselines={"noise_in_cleaned_references": 0.0},
            verdict="One is worse. The other is not.",
            synthetic=True,
            page="",
            seconds=1.0,
        ),
        CHART,
    )
    for part in ("Synthetic data", "&lt;b&gt;as written", "<strong>-0.200 [-0.300, -0.100]</strong>", "[0.400, 0.600]"):
        assert part in html, part
    assert "One is worse.</p>" in html
    assert "http" not in html and "<script" not in html
