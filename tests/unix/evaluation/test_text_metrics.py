import math
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.tokenize.destructive import NLTKWordTokenizer
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from unix.data.phantom.report import write_report
from unix.data.phantom.study import plan_study
from unix.errors import ConfigError
from unix.evaluation.bootstrap import Patients, paired_differences
from unix.evaluation.text_metrics import (
    ORDERS,
    UNIFORM_WEIGHTS,
    corpus_bleu,
    rouge_l,
    text_draws,
    text_metrics,
    text_scores,
    tokens,
)
from unix.records import join_report

WORDS = ["lung", "Lung", "clear", "no", "effusion", ".", ",", "left-sided", "3.5", "cm"]
texts = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
references = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)
SENTENCES = [
    "FINDINGS: The heart is mildly enlarged; the lungs are clear.",
    "A 3.5 cm, left-sided nodule (unchanged) projects over the 5th rib.",
    "No pneumothorax/effusion, and no free air at 10:30 today.",
    "IMPRESSION: Right-upper-lobe opacity, probably pneumonia?",
    "The patient's known T12 fracture - stable.",
]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_tokens_are_those_of_the_treebank(sentence: str) -> None:
    assert tokens(sentence) == NLTKWordTokenizer().tokenize(sentence)


def test_a_sentence_after_another_is_split_without_a_sentence_model() -> None:
    assert tokens(" ".join(SENTENCES[:2])) == tokens(SENTENCES[0]) + tokens(SENTENCES[1])


@given(texts, references)
def test_sentence_bleu_equals_nltk(prediction: str, reference: str) -> None:
    score = text_scores(prediction, reference)
    for order, weights in zip(ORDERS, UNIFORM_WEIGHTS, strict=True):
        said = tokens(prediction)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = (
                float(sentence_bleu([tokens(reference)], said, weights, SmoothingFunction().method4)) if said else 0.0
            )
        assert score.bleu[order - 1] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=30)
@given(st.lists(st.tuples(texts, references), min_size=1, max_size=6))
def test_corpus_bleu_equals_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    scores = [text_scores(*pair) for pair in pairs]
    said, true = ([" ".join(tokens(text)) for text in side] for side in zip(*pairs, strict=True))
    for order in ORDERS:
        oracle = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
        assert 100 * corpus_bleu(scores, order) == pytest.approx(oracle.corpus_score(said, [true]).score, rel=1e-9)


@given(texts, references)
def test_rouge_l_equals_rouge_score(prediction: str, reference: str) -> None:
    expected = RougeScorer(["rougeL"], use_stemmer=False).score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l(prediction, reference) == pytest.approx(expected, rel=1e-12)


def test_whole_reports_equal_the_oracles() -> None:
    written = [write_report(plan_study(0, index, 64, (0.1, 0.1))).clean for index in range(30)]
    reports = [join_report(" ".join(one.findings), " ".join(one.impression)) for one in written]
    pairs = list(zip(reports[1:], reports[:-1], strict=True))
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    found = text_metrics(reports[1:], reports[:-1], [str(index) for index in range(29)], resamples=10)
    rouge = [scorer.score(true, said)["rougeL"].fmeasure for said, true in pairs]
    assert found["rouge_l"].value == pytest.approx(sum(rouge) / 29, rel=1e-12)
    oracle = BLEU(tokenize="none", smooth_method="none", force=True)
    said, true = ([" ".join(tokens(text)) for text in side] for side in zip(*pairs, strict=True))
    assert 100 * found["corpus_bleu_4"].value == pytest.approx(oracle.corpus_score(said, [true]).score, rel=1e-9)
    assert found["corpus_bleu_4"].low <= found["corpus_bleu_4"].value <= found["corpus_bleu_4"].high
    assert {metric.n for metric in found.values()} == {29}


@settings(max_examples=30)
@given(st.lists(st.tuples(texts, references), min_size=2, max_size=5))
def test_the_order_of_reports_changes_no_value(pairs: list[tuple[str, str]]) -> None:
    def scores(some: list[tuple[str, str]]) -> dict[str, float]:
        said, true = zip(*some, strict=True)
        found = text_metrics(said, true, [str(index) for index in range(len(some))], resamples=2)
        return {name: metric.value for name, metric in found.items()}

    assert scores(pairs) == pytest.approx(scores(pairs[::-1]), rel=1e-12)


def test_a_resample_of_corpus_bleu_is_the_corpus_bleu_of_its_reports() -> None:
    said = ["lung clear", "no effusion left-sided", "clear ."]
    true = ["lung clear .", "no effusion", "clear . no"]
    resampled = Patients(["a", "b", "a"], seed=4, resamples=5)
    draws = text_draws(said, true, resampled)["corpus_bleu_1"].draws_R
    scores = [text_scores(*pair) for pair in zip(said, true, strict=True)]
    for draw, weights_P in zip(draws, resampled.weights_RP, strict=True):
        again = [
            score for score, patient in zip(scores, resampled.patient_N, strict=True) for _ in range(weights_P[patient])
        ]
        assert draw == pytest.approx(corpus_bleu(again, 1), rel=1e-12)


def test_two_models_are_compared_on_the_same_resamples() -> None:
    true = [f"lung clear no effusion {index}" for index in range(40)]
    worse = [text.replace("effusion", ".") if index % 2 else text for index, text in enumerate(true)]
    resampled = Patients([str(index // 2) for index in range(40)], seed=0)
    found = paired_differences(text_draws(worse, true, resampled), text_draws(true, true, resampled))
    assert found["rouge_l"].separated and found["rouge_l"].value > 0
    # every patient loses the same on one of his two reports: nothing varies between resamples
    assert found["rouge_l"].high - found["rouge_l"].low == pytest.approx(0, abs=1e-12)
    same = paired_differences(text_draws(true, true, resampled), text_draws(true, true, resampled))
    assert not any(one.separated for one in same.values())


def test_sides_of_different_length_and_empty_references_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 predictions, 1 references, 1 patients"):
        text_metrics(["a", "b"], ["a"], ["p"])
    with pytest.raises(ConfigError, match="reference without words"):
        text_scores("lung", " ")
    assert math.isclose(text_scores("lung", "lung").bleu[0], 1.0)
