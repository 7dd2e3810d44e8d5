"""The demo's end on a small store: summary, funnel and page agree with what the jobs left."""

import json
from pathlib import Path

import polars as pl
import pytest

from unix.data.ingest import IngestConfig, ingest
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.phantom.truth import read_truth
from unix.errors import ConfigError
from unix.evaluation.curation_view import cleaning_examples, funnel
from unix.evaluation.demo_report import DemoRun, report_demo
from unix.evaluation.generation import EvaluateGenerationConfig, evaluate_generation
from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding
from unix.records import Rejection
from unix.store import SCHEMAS, Store, now

STUDIES = 20


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, shard_sets: Path) -> DemoRun:
    """A phantom whose first study was rejected by cleaning and second flagged, and the rest cleaned to the truth."""
    work = tmp_path_factory.mktemp("demo")
    phantom, store = work / "phantom", Store(work / "store")
    write_phantom(PhantomConfig(studies=STUDIES, out=str(phantom), image_size=64, workers=1))
    ingest(IngestConfig(store=store.uri, source="phantom", root=str(phantom)))
    store.upsert("cleaned_reports", _cleaned(store, phantom))
    store.reject([Rejection("splits-generation", "phantom", "image", "not_frontal")])
    config = {"checkpoint": str(checkpoint), "shards": str(shard_sets), "max_new_tokens": 6, "num_steps": 2}
    config |= {"resamples": 20, "processes": 1}
    evaluations = {
        "u.json": evaluate_understanding(EvaluateUnderstandingConfig.build({**config, "out": str(work / "u")})),
        "g.json": evaluate_generation(EvaluateGenerationConfig.build({**config, "out": str(work / "g")})),
    }
    for name, evaluation in evaluations.items():
        (work / name).write_text(evaluation.model_dump_json())
    return DemoRun(
        store=store.uri,
        phantom=str(phantom),
        shards=str(shard_sets),
        runs=(str(checkpoint),),
        understanding=str(work / "u.json"),
        generation=str(work / "g.json"),
        step_seconds={"phantom": 1.0, "ingest": 2.5},
        seconds=3.5,
        seed=0,
        page=str(work / "report.html"),
    )


def test_the_summary_has_the_numbers_that_others_rely_on(demo: DemoRun) -> None:
    summary = json.loads(report_demo(demo).model_dump_json())
    assert summary["seconds"] == 3.5 and Path(summary["report_html"]).is_file()
    assert summary["cleaning"]["noise_removed"] == 1.0
    assert summary["cleaning"]["accepted_share"] == pytest.approx((STUDIES - 2) / STUDIES)
    assert 0.8 < summary["cleaning"]["clean_token_recall"] < 1.0, "the rejected report counts as nothing kept"
    generation = json.loads(Path(demo.generation).read_text())
    assert summary["generation"]["effusion_auc"] == generation["metrics"]["effusion_auc"]["value"]
    assert summary["generation"]["shuffled_readback_micro_f1_14"] is not None
    assert all(value is not None for value in summary["understanding"].values())


def test_the_page_shows_the_run_and_is_the_same_again(demo: DemoRun) -> None:
    report_demo(demo)
    html = Path(demo.page).read_text(encoding="utf-8")
    for part in (
        "Synthetic data",
        "A warm start.",
        "rejected: finding_flipped",
        "not_frontal",
        "generation-32",
        "stage3",
    ):
        assert part in html, part
    report_demo(demo)
    assert Path(demo.page).read_text(encoding="utf-8") == html


def test_a_demo_that_went_on_does_not_claim_the_time_of_its_last_run_for_all(demo: DemoRun) -> None:
    report_demo(demo)
    assert "all in 0.1 minutes" in Path(demo.page).read_text(encoding="utf-8")
    report_demo(demo.model_copy(update={"continued": True}))
    html = Path(demo.page).read_text(encoding="utf-8")
    assert "went on from an earlier one, took 0.1 minutes" in html and "all in" not in html


def test_every_step_of_the_funnel_balances(demo: DemoRun) -> None:
    steps = funnel(Store(demo.store), demo.shards, ["generation-32"])
    assert [step.name for step in steps] == ["ingest", "clean", "splits", "splits", "shards"]
    for step in steps:
        assert step.total == step.kept + sum(step.reasons.values())
    assert (steps[1].total, steps[1].kept) == (STUDIES, STUDIES - 2)


def test_examples_of_cleaning_show_doubtful_ones_too(demo: DemoRun) -> None:
    examples = cleaning_examples(Store(demo.store), 4)
    assert [example.status for example in examples[:3]] == ["accepted"] * 3
    assert examples[3].status in ("flagged", "rejected")
    assert len({span.category for span in examples[0].removed}) >= 3
    assert all(span.text in examples[0].raw for span in examples[0].removed if "\n" not in span.text)


def test_an_evaluation_that_is_not_there_is_named(demo: DemoRun) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json"):
        report_demo(demo.model_copy(update={"understanding": "nowhere.json"}))
    with pytest.raises(ConfigError, match="unix evaluate"):
        report_demo(demo.model_copy(update={"generation": str(Path(demo.shards) / "generation-32" / "manifest.json")}))


def _cleaned(store: Store, phantom: Path) -> pl.DataFrame:
    truth = read_truth(phantom).select("study_id", "findings", "impression", removed="noise")
    rows = store.read("studies", ["source", "study_id", "report_sha256"]).join(truth, on="study_id").sort("study_id")
    number = pl.int_range(pl.len())
    status = pl.when(number == 0).then(pl.lit("rejected")).when(number == 1).then(pl.lit("flagged"))
    flags = pl.when(number == 0).then(pl.lit(["finding_flipped"])).otherwise(pl.lit([], dtype=pl.List(pl.String)))
    constants = {"prompt_version": "v1", "prompt_digest": "d", "model": "rules", "parameters_digest": "p"}
    zeros = ("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "latency_ms", "attempts")
    return rows.with_columns(
        *(pl.lit(value).alias(name) for name, value in constants.items()),
        *(pl.lit(0).alias(name) for name in zeros),
        endpoint=pl.lit("embedded"),
        status=status.otherwise(pl.lit("accepted")),
        flags=flags,
        created_at=now(),
    ).select(SCHEMAS["cleaned_reports"].names())
