"""The jobs with a tiny, untrained model: what they write and count, and that processes and batches change nothing."""

import csv
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unix.data.images import encode_jpeg
from unix.errors import ConfigError, SourceError, WeightsError
from unix.evaluation import results
from unix.evaluation.generation import EvaluateGenerationConfig, evaluate_generation
from unix.evaluation.predict import DescribeConfig, GenerateConfig, describe_images, generate_images
from unix.evaluation.results import EvaluateConfig, EvaluationSummary
from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding
from unix.records import Task

QUICK = {"max_new_tokens": 6, "num_steps": 2, "resamples": 20}


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.fixture(scope="module")
def understood(checkpoint: Path, shard_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationSummary:
    out = str(tmp_path_factory.mktemp("understanding"))
    config = {"checkpoint": str(checkpoint), "shards": str(shard_sets), "out": out, **QUICK}
    return evaluate_understanding(EvaluateUnderstandingConfig.build({**config, "processes": 2, "batch": 2}))


@pytest.fixture(scope="module")
def drawn(checkpoint: Path, shard_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> EvaluationSummary:
    out = str(tmp_path_factory.mktemp("generation"))
    config = {"checkpoint": str(checkpoint), "shards": str(shard_sets), "out": out, **QUICK}
    return evaluate_generation(EvaluateGenerationConfig.build({**config, "processes": 2, "batch": 3}))


def test_understanding_scores_every_sample_of_the_split(understood: EvaluationSummary) -> None:
    assert (understood.n, understood.resolution, understood.data_set) == (8, 32, "understanding-32")
    assert {"micro_f1_14", "macro_f1_14", "micro_f1_5_uncertain_negative", "example_f1"} <= set(understood.metrics)
    assert sum(score.support for score in understood.per_class.values()) == 8
    rows = pl.read_parquet(understood.predictions)
    assert rows["image_id"].to_list() == [f"test-{number:02d}" for number in range(8)]
    assert rows["reference"][0] == "FINDINGS: The lungs are imaged. IMPRESSION: Small left pleural effusion."
    assert rows["reference_labels"][0]["Pleural Effusion"] == 1
    empty = rows.filter(pl.col("prediction") == "").height
    assert understood.failures == empty


def test_baselines_are_chosen_on_the_training_split(understood: EvaluationSummary) -> None:
    # four findings, each in a quarter of both splits: the best constant set is all four of them
    assert understood.baselines["best_constant_micro_f1_14"] == pytest.approx(0.4)
    # of the equally frequent reports the alphabet takes "Moderate cardiomegaly.", which is true of two in eight
    assert understood.baselines["most_frequent_report_micro_f1_14"] == pytest.approx(4 / (4 + 6 + 6))
    assert 0 <= understood.baselines["shuffled_micro_f1_14"] <= 1


def test_generation_draws_reads_back_and_measures(drawn: EvaluationSummary) -> None:
    assert drawn.n == 8
    wanted = {"readback_micro_f1_14", "readback_macro_f1_14", "cardiomegaly_auc", "effusion_auc", "pneumothorax_auc"}
    assert wanted | {"side_accuracy"} <= set(drawn.metrics)
    assert drawn.metrics["side_accuracy"].n == 4
    assert {
        "shuffled_readback_micro_f1_14",
        "reconstruction_readback_micro_f1_14",
        "real_cardiomegaly_auc",
        "reconstruction_effusion_auc",
    } <= set(drawn.baselines)
    folder = Path(drawn.predictions).parent
    for name in ("generated", "reconstructed"):
        files = sorted((folder / name).iterdir())
        assert [file.stem for file in files] == [f"test-{number:02d}" for number in range(8)]
        assert size_of(files[0]) == (32, 32)
    assert json.loads(drawn.model_dump_json())["metrics"]["cardiomegaly_auc"]["n"] == 8


def test_processes_and_batches_change_no_number(
    understood: EvaluationSummary, drawn: EvaluationSummary, checkpoint: Path, shard_sets: Path, tmp_path: Path
) -> None:
    config = {"checkpoint": str(checkpoint), "shards": str(shard_sets), "processes": 1, "batch": 8, **QUICK}
    again = [
        evaluate_understanding(EvaluateUnderstandingConfig.build({**config, "out": str(tmp_path / "u")})),
        evaluate_generation(EvaluateGenerationConfig.build({**config, "out": str(tmp_path / "g")})),
    ]
    for one, other in zip((understood, drawn), again, strict=True):
        same = {"seconds", "predictions", "report_html"}
        assert one.model_dump(exclude=same) == other.model_dump(exclude=same)
        rows, others = (pl.read_parquet(name).drop("latency_ms") for name in (one.predictions, other.predictions))
        assert rows.equals(others)


def test_a_limit_takes_the_same_samples_whatever_their_order() -> None:
    keys = [f"image-{number}" for number in range(50)]
    chosen = {keys[index] for index in results.chosen_samples(keys, 10, seed=1)}
    backwards = keys[::-1]
    assert chosen == {backwards[index] for index in results.chosen_samples(backwards, 10, seed=1)}
    assert len(chosen) == 10
    assert chosen != {keys[index] for index in results.chosen_samples(keys, 10, seed=2)}
    assert results.chosen_samples(keys, None, 0) == list(range(50))


def test_a_set_that_is_not_there_is_named(checkpoint: Path, shard_sets: Path, tmp_path: Path) -> None:
    config = {"checkpoint": str(checkpoint), "shards": str(tmp_path)}
    with pytest.raises(ConfigError, match="must hold one understanding set"):
        evaluate_understanding(EvaluateUnderstandingConfig.build(config))
    with pytest.raises(ConfigError, match="validate split"):
        evaluate_generation(EvaluateGenerationConfig.build({**config, "shards": str(shard_sets), "split": "validate"}))


def test_describe_reads_files_and_names_the_bad_one(checkpoint: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(encode_jpeg(np.random.default_rng(1).integers(0, 256, (50, 40), dtype=np.uint8)))
    config = {"checkpoint": str(checkpoint), "max_new_tokens": 6, "processes": 1}
    (report,) = describe_images(DescribeConfig.build({**config, "images": [str(good)]})).reports
    assert report.image == str(good)
    with pytest.raises(ConfigError, match=r"bad\.jpg"):
        describe_images(DescribeConfig.build({**config, "images": [str(good), str(bad)]}))
    bad.write_bytes(good.read_bytes()[:100])
    with pytest.raises(SourceError, match=r"bad\.jpg"):
        describe_images(DescribeConfig.build({**config, "images": [str(good), str(bad)]}))


def test_generate_writes_images_and_their_table(checkpoint: Path, tmp_path: Path) -> None:
    prompts = ["Small effusion, left.", 'A "large" heart.']
    config = {"checkpoint": str(checkpoint), "num_steps": 2, "prompts": prompts, "seed": 7, "processes": 1}
    for name in ("one", "two"):
        summary = generate_images(GenerateConfig.build({**config, "out": str(tmp_path / name), "resolution": 48}))
        assert summary.images == 2
    with (tmp_path / "one" / "prompts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["prompt"] for row in rows] == prompts
    assert [(row["img_savename"], row["seed"]) for row in rows] == [("00000.png", "7"), ("00001.png", "8")]
    assert size_of(tmp_path / "one" / "00001.png") == (48, 48)
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_faults_in_a_worker_reach_the_caller_as_they_are(checkpoint: Path, tmp_path: Path) -> None:
    config = {"prompts": ["x"], "out": str(tmp_path / "out"), "processes": 1}
    with pytest.raises(WeightsError, match="no checkpoint"):
        generate_images(GenerateConfig.build({**config, "checkpoint": str(tmp_path)}))
    with pytest.raises(ConfigError, match="resolution 40"):
        generate_images(GenerateConfig.build({**config, "checkpoint": str(checkpoint), "resolution": 40}))
    with pytest.raises(ConfigError, match="empty"):
        generate_images(GenerateConfig.build({**config, "checkpoint": str(checkpoint), "prompts": ["x", " "]}))
    assert not (tmp_path / "out").exists()


def test_of_several_sets_the_one_trained_on_is_taken(checkpoint: Path, shard_sets: Path, tmp_path: Path) -> None:
    for name in ("generation-32", "generation-64"):
        (tmp_path / name).symlink_to(shard_sets / "generation-32")
    step = tmp_path / "step-1"
    step.mkdir()
    config = EvaluateConfig(checkpoint=str(checkpoint), shards=str(tmp_path))
    for trained, found in (("generation-64", "generation-64"), ("generation-32", "generation-32")):
        (step / "configuration.json").write_text(json.dumps({"data_set": trained}))
        assert results.open_set(config, Task.GENERATION, step).folder.name == found
    named = config.model_copy(update={"data_set": "generation-64"})
    assert results.open_set(named, Task.GENERATION, step).folder.name == "generation-64"
    (step / "configuration.json").write_text(json.dumps({"data_set": "understanding-64"}))
    with pytest.raises(ConfigError, match="generation-32, generation-64"):
        results.open_set(config, Task.GENERATION, step)
