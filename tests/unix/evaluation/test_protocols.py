import numpy as np
import pytest

from unix.errors import ConfigError
from unix.evaluation.bootstrap import Patients
from unix.evaluation.feature_distances import frechet_distance
from unix.evaluation.features import EncodedBy, Features
from unix.evaluation.image_metrics import ImageSet, image_scores
from unix.evaluation.labelers import RuleLabeler
from unix.evaluation.protocols import (
    NATIVE_REPORTS,
    UNIX_PAPER,
    benchmark_scores,
    drawn_classes_by_prompt,
    first_of_each,
    protocol_draws,
)
from unix.evaluation.text_metrics import text_draws


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
    texts, resampled = [long, "FINDINGS: There is edema."], Patients(["a", "b"], seed=0, resamples=5)
    missed = [long.replace("There is a pneumothorax", "There is a fracture"), texts[1]]
    paper = protocol_draws(UNIX_PAPER, RuleLabeler(), missed, texts, resampled)
    native = protocol_draws(NATIVE_REPORTS, RuleLabeler(), missed, texts, resampled)
    # what the model got wrong stands behind the cut
    assert paper["micro_f1_14"].value == 1.0 > native["micro_f1_14"].value
    assert native["bleu_3"].value == text_draws(missed, texts, resampled)["bleu_3"].value
    precision = native["bleu_3"].value
    assert 0 < paper["bleu_3"].value - precision < 0.01
    assert paper["bleu_4"].value == native["bleu_4"].value


def test_a_blank_reference_is_refused() -> None:
    with pytest.raises(ConfigError, match="blank reference"):
        protocol_draws(NATIVE_REPORTS, RuleLabeler(), ["edema"], [" "], Patients(["a"], seed=0, resamples=2))
