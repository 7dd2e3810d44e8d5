"""What published evaluations of this field got wrong, each beside the naive computation that it must not equal."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from numpy.typing import NDArray

from unix.data.images import Pixels, encode_png
from unix.errors import ConfigError, SourceError, UnixError
from unix.evaluation import clinical
from unix.evaluation.alignment import similarities
from unix.evaluation.benchmark_files import (
    DrawnFile,
    ScoredReport,
    read_drawn,
    read_reports,
    write_benchmark_scores,
    write_drawn,
    write_reports,
)
from unix.evaluation.bootstrap import Patients, share_metric
from unix.evaluation.encoders import RandomConvolutions
from unix.evaluation.feature_distances import frechet_distance
from unix.evaluation.features import EncodedBy, FeatureCache, FeatureMatrix, Features, image_features, image_files
from unix.evaluation.image_metrics import ImageSet, image_scores
from unix.evaluation.labelers import RuleLabeler, label_reports
from unix.evaluation.privacy import nearest_of_seeds, pixel_distance
from unix.evaluation.protocols import benchmark_scores, drawn_classes_by_prompt, first_of_each
from unix.evaluation.radgraph_f1 import open_radgraph, radgraph_scores
from unix.evaluation.report_scores import labelled, report_draws
from unix.evaluation.text_metrics import text_metrics, tokens
from unix.records import no_labels

REPORT = "FINDINGS: There is a small left pleural effusion. No pneumothorax."


def images(count: int, seed: int, width: int = 24) -> ImageSet:
    matrix = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    names = tuple(str(index) for index in range(count))
    return ImageSet(Features(EncodedBy("random", "1"), names, matrix), names)


def test_an_unreadable_image_stops_the_run_and_is_not_scored_as_a_black_one(tmp_path: Path) -> None:
    paths = {name: tmp_path / f"{name}.png" for name in ("a", "b")}
    for path in paths.values():
        path.write_bytes(encode_png(np.full((32, 32), 90, dtype=np.uint8)))
    paths["b"].write_bytes(paths["b"].read_bytes()[:50])
    with pytest.raises(SourceError, match="1 of 2 images cannot be read: b"):
        image_features(RandomConvolutions(), image_files(paths))
    paths["b"].unlink()
    with pytest.raises(SourceError, match="1 of 2 images cannot be read: b"):
        image_files(paths)


def test_a_report_that_failed_is_not_the_text_nan(tmp_path: Path) -> None:
    write_reports(tmp_path / "r.csv", [ScoredReport("a.jpg", "", REPORT)])
    (row,) = read_reports(tmp_path / "r.csv")
    assert row.prediction == ""
    naive = str(
        pl.read_csv(tmp_path / "r.csv", null_values="")["Report Impression"].cast(pl.Float64).fill_null(np.nan)[0]
    )
    assert naive == "nan"
    assert label_reports(RuleLabeler(), [naive]).labels[0] is not None
    assert label_reports(RuleLabeler(), [row.prediction]).labels == (None,)
    for score in (text_metrics, lambda *sides, **_: label_reports(RuleLabeler(), sides[0])):
        with pytest.raises(ConfigError, match="must be text, not float"):
            score([float("nan")], [REPORT], ["p"], resamples=2)


def test_an_empty_report_stays_in_every_mean() -> None:
    predictions, references, patients = [REPORT, ""], [REPORT, REPORT], ["p", "q"]
    found = text_metrics(predictions, references, patients, resamples=10)
    naive = sentence_bleu([tokens(REPORT)], tokens(REPORT), smoothing_function=SmoothingFunction().method4)
    assert naive == pytest.approx(1.0)
    assert found["bleu_4"].value == pytest.approx(0.5)
    assert found["rouge_l"].value == pytest.approx(0.5)
    assert found["bleu_4"].n == 2
    true = no_labels() | {"Pleural Effusion": 1}
    agreement = clinical.agreement([true, None], [true, true], patients, resamples=10)
    assert agreement.metrics["micro_f1_14"].value == pytest.approx(2 / 3)
    assert agreement.per_class["Pleural Effusion"].fn == 1


def test_an_empty_report_is_not_no_finding() -> None:
    # a labeler calls a text that names nothing No Finding
    assert RuleLabeler().label([""])[0]["No Finding"] == 1
    assert label_reports(RuleLabeler(), [""]).labels == (None,)


def test_a_table_of_prompts_that_one_script_wrote_runs_in_every_other(tmp_path: Path) -> None:
    rows = [DrawnFile("edema", "a.png")]
    write_drawn(tmp_path / "p.csv", rows)
    columns = pl.read_csv(tmp_path / "p.csv").columns
    for prompt, image in (("prompt", "img_savename"), ("annotated_prompt", "synthetic_filename")):
        assert {prompt, image} <= set(columns)
        (tmp_path / "q.csv").write_text(f"{prompt},{image}\nedema,a.png\n", encoding="utf-8")
        assert read_drawn(tmp_path / "q.csv") == rows


def test_a_pixel_distance_does_not_wrap_around_and_is_of_every_seed() -> None:
    real, brighter = np.full((2, 2), 10, dtype=np.uint8), np.full((2, 2), 13, dtype=np.uint8)
    naive = float(np.sqrt(((real - brighter).astype(np.float64) ** 2).mean()))
    assert naive == 253
    assert pixel_distance(real, brighter) == 3
    drawings = np.stack([brighter, np.full((2, 2), 200, dtype=np.uint8)])
    last = pixel_distance(drawings[-1], real)
    assert nearest_of_seeds(drawings, real) == 3 != last


def test_the_encoder_sees_every_image_once_whatever_is_computed(tmp_path: Path) -> None:
    class Counting(RandomConvolutions):
        seen = 0

        def encode(self, images: Sequence[Pixels]) -> FeatureMatrix:
            Counting.seen += len(images)
            return super().encode(images)

    paths: dict[str, Path] = {}
    for index in range(8):
        paths[str(index)] = tmp_path / f"{index}.png"
        picture = np.random.default_rng(index).integers(0, 256, size=(32, 32), dtype=np.uint8)
        paths[str(index)].write_bytes(encode_png(picture))
    for _ in range(3):
        features = image_features(Counting(), image_files(paths), FeatureCache(tmp_path / "cache"))
        some = ImageSet(features, tuple(paths))
        image_scores(some, some)
    assert Counting.seen == 8


def test_radgraph_does_not_vanish(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"weights.th is missing"):
        open_radgraph(tmp_path)

    def failing(refs: list[str], hyps: list[str]) -> Sequence[Any]:
        raise RuntimeError("anything")

    with pytest.raises(UnixError, match="RadGraph failed"):
        radgraph_scores(failing, [REPORT], [REPORT])


def test_labels_are_read_from_the_whole_text_unless_a_protocol_says_otherwise() -> None:
    text = "FINDINGS: " + "The lungs are clear. " * 30 + "There is a pneumothorax."
    (whole,), (cut,) = (label_reports(RuleLabeler(), [text], limit).labels for limit in (None, 512))
    assert whole is not None and cut is not None
    assert whole["Pneumothorax"] == 1 != cut["Pneumothorax"]


def test_scores_are_a_file_of_their_own_with_n_and_never_a_line_of_an_older_table(tmp_path: Path) -> None:
    path = tmp_path / "image_generation_metrics.csv"
    path.write_text("FID,FRD\n1,2\n", encoding="utf-8")
    write_benchmark_scores(path, benchmark_scores(images(20, 0), images(20, 1)), "ours")
    table = pl.read_csv(path)
    assert table.height == 1
    assert table["N real"][0] == table["N synthetic"][0] == 20


def test_means_over_shards_are_another_number_and_only_when_asked_for() -> None:
    real, drawn = images(400, 0), images(400, 1)
    whole, sharded = benchmark_scores(real, drawn), benchmark_scores(real, drawn, shards=4)
    assert whole.frechet_distance == pytest.approx(frechet_distance(real.matrix, drawn.matrix))
    # both sets are of one distribution: everything here is bias
    assert sharded.frechet_distance > 3 * whole.frechet_distance
    assert (whole.shards, sharded.shards) == (1, 4)


def test_a_distance_that_is_only_class_size_stands_beside_a_floor_that_is_too() -> None:
    rare, common = (image_scores(images(count, 0), images(count, 1)) for count in (40, 800))
    assert rare.frechet_distance is not None and common.frechet_distance is not None
    assert rare.frechet_distance > 5 * common.frechet_distance
    for scores in (rare, common):
        assert scores.floor is not None
        assert scores.floor.drawn_frechet_distance == pytest.approx(scores.floor.real_frechet_distance, rel=0.35)


def test_one_side_is_not_deduplicated_unless_a_protocol_says_so() -> None:
    prompts = ["same"] * 30 + [str(index) for index in range(30)]
    real, drawn = images(60, 0), images(60, 1)
    native = image_scores(real, drawn)
    kept = first_of_each(prompts)
    benchmark = benchmark_scores(real.rows(kept), drawn)
    assert (native.n_real, native.n_drawn) == (60, 60)
    assert (benchmark.n_real, benchmark.n_drawn) == (31, 60)
    assert benchmark.frechet_distance != pytest.approx(native.frechet_distance)


def test_a_join_on_prompts_puts_a_drawing_into_a_class_that_its_own_image_lacks() -> None:
    # two real images of one prompt, of which one shows the class
    real_NK = np.array([[True], [False]])
    naive = drawn_classes_by_prompt(real_NK, ["stable", "stable"], ["stable", "stable"])
    assert naive[:, 0].tolist() == [True, True] != real_NK[:, 0].tolist()


def test_intervals_are_seeded_and_over_patients() -> None:
    hits: NDArray[np.bool_] = np.arange(60) % 3 == 0
    apart, together = [str(index) for index in range(60)], [str(index // 20) for index in range(60)]
    assert share_metric(hits, apart, seed=1) == share_metric(hits, apart, seed=1)
    sorted_hits = np.sort(hits)
    wide, narrow = share_metric(sorted_hits, together), share_metric(sorted_hits, apart)
    assert wide is not None and narrow is not None
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)


def test_the_value_is_the_statistic_itself_not_the_median_of_a_bootstrap() -> None:
    predictions = [REPORT, "", "FINDINGS: No pneumothorax."]
    values = {
        text_metrics(predictions, [REPORT] * 3, list("pqr"), seed=seed, resamples=5)["rouge_l"].value
        for seed in range(4)
    }
    assert len(values) == 1


def test_a_mean_of_pairs_is_not_a_mean_of_rounded_pairs() -> None:
    class Fixed:
        def similarity(self, image: Path, text: str) -> float:
            return 0.1234

    scores = similarities(Fixed(), [Path("a")] * 3, ["t"] * 3)
    found = Patients(["p", "q", "r"], seed=0, resamples=5).mean(scores)
    assert found.value == pytest.approx(0.1234)
    assert found.value != pytest.approx(round(0.1234, 3))


def test_a_macro_mean_over_frequent_classes_is_named_apart() -> None:
    true = no_labels() | {"Edema": 1}
    found = clinical.agreement([true] * 12, [true] * 12, [str(index) for index in range(12)], resamples=5).metrics
    assert found["macro_f1_14"].value == pytest.approx(1 / 14)
    assert found["macro_f1_14_frequent"].value == 1.0


def test_a_file_name_keeps_all_its_letters(tmp_path: Path) -> None:
    names = ["gap.jpg", "jpg.jpg"]
    assert [name.strip(".jpg") for name in names] == ["a", ""]
    write_drawn(tmp_path / "p.csv", [DrawnFile("edema", name) for name in names])
    for name in names:
        (tmp_path / name).write_bytes(encode_png(np.full((32, 32), 90, dtype=np.uint8)))
    files = {row.image: tmp_path / row.image for row in read_drawn(tmp_path / "p.csv")}
    assert image_features(RandomConvolutions(), image_files(files)).ids == tuple(names)


def test_nothing_of_an_image_stays_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "a.png").write_bytes(encode_png(np.full((32, 32), 90, dtype=np.uint8)))
    (tmp_path / "b.png").write_bytes(b"no image")
    paths = {name: tmp_path / f"{name}.png" for name in "ab"}
    with pytest.raises(SourceError):
        image_features(RandomConvolutions(), image_files(paths), FeatureCache(tmp_path / "cache"))
    assert not list(temporary.iterdir())


def test_both_references_are_scored_and_named_apart() -> None:
    cleaned, original = REPORT, "Compared with the prior study of yesterday. " + REPORT
    frame = pl.DataFrame(
        {"subject_id": ["p", "q"], "prediction": [cleaned] * 2, "reference": [cleaned] * 2, "original": [original, ""]}
    )
    found = report_draws(labelled(frame, RuleLabeler())[0], seed=0, resamples=5)
    # a report that repeats the rewritten reference word by word is not what the radiologist wrote
    assert found["rouge_l"].value == 1.0 > found["original_rouge_l"].value
    assert (found["rouge_l"].n, found["original_rouge_l"].n) == (2, 1)
