"""The gate: what is refused, what passes, and that both sides were measured alike."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.errors import ConfigError
from unix.evaluation.gate import (
    FRECHET,
    METRICS,
    READBACK,
    REPORT_MICRO,
    Drawings,
    GateRule,
    Measurement,
    Reports,
    judge,
)
from unix.records import CHEXPERT_14, Labels

N, WIDTH = 240, 12
QUICK = GateRule(resamples=200, distance_resamples=100)
PREVALENCE = np.array([0.3, 0.25, 0.1, 0.15, 0.1, 0.05, 0.08, 0.3, 0.3, 0.3, 0.05, 0.1, 0.12, 0.25])


def as_labels(present_NK: np.ndarray) -> list[Labels]:
    return [{name: int(flag) for name, flag in zip(CHEXPERT_14, row, strict=True)} for row in present_NK]


def noisy(truth_NK: np.ndarray, error: float, generator: np.random.Generator) -> np.ndarray:
    """Labels that forget a share of what is there, and say as much that is not."""
    flips = generator.random(truth_NK.shape) < np.where(truth_NK, error, error * truth_NK.mean())
    return truth_NK ^ flips


def model(seed: int, error: float = 0.35, readback: float = 0.5, drift: float = 0.3, n: int = N) -> Measurement:
    """A model that is wrong at these rates on one fixed test set; `drift` is how far its drawings lie off."""
    world, own = np.random.default_rng(0), np.random.default_rng([1, seed])
    truth_NK = world.random((n, 14)) < PREVALENCE
    real_ND = world.normal(size=(n, WIDTH))
    ids, patients = [f"i{k}" for k in range(n)], [f"p{k // 2}" for k in range(n)]
    return Measurement(
        Reports(ids, patients, as_labels(noisy(truth_NK, error, own)), as_labels(truth_NK)),
        Drawings(
            ids,
            patients,
            as_labels(noisy(truth_NK, readback, own)),
            as_labels(truth_NK),
            "encoder",
            own.normal(size=(n, WIDTH)) * 0.9 + drift,
            real_ND,
        ),
    )


def shuffled(measured: Measurement) -> Measurement:
    """The same model with its reports dealt to other images."""
    order = np.random.default_rng(5).permutation(len(measured.reports.image_ids))
    return replace(
        measured, reports=replace(measured.reports, predicted=[measured.reports.predicted[k] for k in order])
    )


def test_at_most_one_of_ten_equal_models_is_refused() -> None:
    champion = model(0)
    verdicts = [judge(model(seed), champion, QUICK) for seed in range(1, 11)]
    assert sum(not verdict.passed for verdict in verdicts) <= 1
    assert all(set(verdict.comparisons) == set(METRICS) for verdict in verdicts)


def test_a_model_trained_on_shuffled_labels_is_refused_with_and_without_a_champion() -> None:
    verdict = judge(shuffled(model(1)), model(0), QUICK)
    assert not verdict.passed
    assert verdict.sentence.startswith("refused against the champion: report_micro_f1 ")
    assert not verdict.comparisons[REPORT_MICRO].passed
    assert verdict.comparisons[READBACK].passed
    assert not judge(shuffled(model(1)), None, QUICK).passed


def one_image(measured: Measurement) -> Measurement:
    drawn_ND = np.repeat(measured.drawings.drawn_ND[:1], len(measured.drawings.drawn_ND), axis=0)
    return replace(measured, drawings=replace(measured.drawings, drawn_ND=drawn_ND))


def blind_to_prompts(measured: Measurement) -> Measurement:
    """Drawings as good as ever, each for another prompt."""
    return replace(
        measured, drawings=replace(measured.drawings, read_back=list(np.roll(measured.drawings.read_back, 7)))
    )


@pytest.mark.parametrize(("broken", "metric"), [(one_image, FRECHET), (blind_to_prompts, READBACK)])
def test_a_quietly_broken_generation_branch_is_refused(broken, metric: str) -> None:
    for champion in (model(0), None):
        verdict = judge(broken(model(1)), champion, QUICK)
        assert not verdict.passed
        assert [name for name in METRICS if not verdict.comparisons[name].passed] == [metric]
        assert metric in verdict.sentence


def test_a_first_model_that_learned_something_passes_the_floors() -> None:
    verdict = judge(model(1), None, QUICK)
    assert verdict.passed, verdict.sentence
    assert "the best constant" in verdict.sentence


def test_nothing_written_is_no_finding_but_a_refusal() -> None:
    silent = replace(model(1).reports, predicted=[None] * N)
    assert not judge(replace(model(1), reports=silent), None, QUICK).passed


def test_a_loss_beyond_the_margin_that_chance_explains_is_no_reason_on_few_samples() -> None:
    champion = model(0, n=24)
    rule = QUICK.model_copy(update={"report_micro_f1_margin": 0.0, "report_macro_f1_margin": 0.0})
    verdict = judge(model(3, error=0.36, n=24), champion, rule)
    comparison = verdict.comparisons[REPORT_MICRO]
    assert comparison.difference is not None
    assert not comparison.difference.separated
    assert comparison.passed


def test_the_same_model_is_no_loss_and_a_better_one_passes() -> None:
    champion = model(0)
    same = judge(champion, champion, QUICK)
    assert same.passed
    assert all(one.difference and one.difference.value == 0 for one in same.comparisons.values())
    assert judge(model(1, error=0.2, readback=0.3, drift=0.1), champion, QUICK).passed
    assert not judge(model(1, error=0.5), champion, QUICK).passed


def test_too_few_patients_promote_nothing() -> None:
    verdict = judge(model(1, n=12), model(0, n=12), QUICK)
    assert not verdict.passed
    assert "6 patients, fewer than 10" in verdict.sentence


def test_other_samples_or_another_encoder_are_no_comparison() -> None:
    first, second = model(0), model(1)
    fewer = replace(second.reports, image_ids=list(second.reports.image_ids)[1:])
    with pytest.raises(ConfigError, match="reports of candidate and champion are of different samples"):
        judge(replace(second, reports=fewer), first, QUICK)
    with pytest.raises(ConfigError, match="different encoders"):
        judge(replace(second, drawings=replace(second.drawings, encoder="another")), first, QUICK)


@settings(max_examples=5, deadline=None)
@given(st.floats(0, 0.9), st.integers(0, 100))
def test_a_wider_margin_never_refuses_what_a_narrow_one_passed(error: float, seed: int) -> None:
    champion, candidate = model(0, n=40), model(seed, error=error, n=40)
    wide = GateRule.model_validate(
        {**QUICK.model_dump(), **{f"{name}_margin": 0.4 for name in METRICS}, "frechet_distance_margin": 2.0}
    )
    if judge(candidate, champion, QUICK).passed:
        assert judge(candidate, champion, wide).passed
