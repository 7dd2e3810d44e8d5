import numpy as np
import polars as pl
import pytest

from unix.errors import ConfigError
from unix.evaluation.bootstrap import Patients
from unix.evaluation.feature_distances import frechet_distance
from unix.evaluation.features import EncodedBy, Features
from unix.evaluation.image_metrics import ImageSet, image_scores
from unix.evaluation.labelers import RuleLabeler
from unix.evaluation.protocols import (
    CHEXGENBENCH,
    benchmark_scores,
    class_benchmark_scores,
    drawn_classes_by_prompt,
    first_of_each,
    image_protocol,
    report_protocol,
)
from unix.evaluation.report_scores import labelled, report_draws
from unix.evaluation.text_metrics import text_draws
from unix.records import CHEXPERT_14


def images(count: int, seed: int) -> ImageSet:
    matrix = np.random.default_rng(seed).normal(size=(count, 12)).astype(np.float32)
    names = tuple(str(index) for index in range(count))
    return ImageSet(Features(EncodedBy("random", "1"), names, matrix), names)


def test_one_shard_is_the_whole() -> None:
    real, drawn = images(60, 0), images(50, 1)
    found, scores = benchmark_scores(real, drawn), image_scores(real, drawn)
    assert (found.n_real, found.n_drawn, found.shards) == (60, 50, 1)
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(getattr(scores, name))


def test_shards_are_runs_of_images_whose_scores_are_averaged() -> None:
    real, drawn = images(40, 0), images(31, 1)
    parts = [(0, 10, 0, 8), (10, 20, 8, 16), (20, 30, 16, 24), (30, 40, 24, 31)]
    expected = np.mean([frechet_distance(real.matrix[a:b], drawn.matrix[c:d]) for a, b, c, d in parts])
    assert benchmark_scores(real, drawn, shards=4).frechet_distance == pytest.approx(expected)


def test_prompts_are_kept_once_and_classes_go_by_prompt() -> None:
    assert first_of_each(["a", "b", "a", "c", "b"]).tolist() == [True, True, False, True, False]
    real_NK = np.array([[True, False], [False, False], [False, True]])
    found = drawn_classes_by_prompt(real_NK, ["a", "b", "a"], ["b", "a", "unknown", "a"])
    assert found.tolist() == [[False, False], [True, True], [False, False], [True, True]]


def test_the_paper_cuts_labels_at_512_characters_and_weighs_bleu_3_by_a_third_cut_short() -> None:
    long = "FINDINGS: " + "The lungs are clear. " * 30 + "There is a pneumothorax."
    texts = [long, "FINDINGS: There is edema."]
    missed = [long.replace("There is a pneumothorax", "There is a fracture"), texts[1]]
    frame = pl.DataFrame({"subject_id": ["a", "b"], "prediction": missed, "reference": texts, "original": ["", ""]})
    found: dict[str, dict[str, float]] = {}
    for protocol in (report_protocol("unix-paper"), report_protocol("native")):
        rows, labeler = labelled(frame, RuleLabeler(), protocol)
        draws = report_draws(rows, 0, 5, protocol.bleu_weights)
        found[protocol.name] = {name: one.value for name, one in draws.items()}
        assert labeler == ("rules" if protocol.name == "native" else "rules, first 512 characters")
    paper, native = found["unix-paper"], found["native"]
    # what the model got wrong stands behind the cut
    assert paper["micro_f1_14"] == 1.0 > native["micro_f1_14"]
    plain = text_draws(missed, texts, Patients(["a", "b"], seed=0, resamples=5))
    assert native["bleu_3"] == plain["bleu_3"].value
    assert 0 < paper["bleu_3"] - native["bleu_3"] < 0.01
    assert paper["bleu_4"] == native["bleu_4"]


def test_a_protocol_scores_what_it_is_for() -> None:
    assert image_protocol("chexgenbench") is CHEXGENBENCH
    with pytest.raises(ConfigError, match=r"no protocol 'chexgenbench' for reports; choose native or unix-paper"):
        report_protocol("chexgenbench")
    with pytest.raises(ConfigError, match=r"no protocol 'unix-paper' for drawings; choose native or chexgenbench"):
        image_protocol("unix-paper")


def test_classes_with_hardly_an_image_have_no_row() -> None:
    real, drawn = images(20, 0), images(20, 1)
    classes_NK = np.zeros((20, 14), dtype=bool)
    classes_NK[:8, 0], classes_NK[:5, 1] = True, True
    found = class_benchmark_scores(real, drawn, classes_NK, classes_NK)
    assert list(found) == [CHEXPERT_14[0]]
    eight = np.arange(20) < 8
    assert found[CHEXPERT_14[0]] == benchmark_scores(real.rows(eight), drawn.rows(eight))
