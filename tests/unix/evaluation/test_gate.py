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
    Standing,
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


def test_of_ten_equal_models_nearly_all_pass_a_large_test_set_and_a_small_one_refuses_none() -> None:
    champion = model(0, n=3000)
    verdicts = [judge(model(seed, n=3000), champion, QUICK) for seed in range(1, 11)]
    assert sum(not verdict.passed for verdict in verdicts) <= 1
    assert all(set(verdict.comparisons) == set(METRICS) for verdict in verdicts)
    small = [judge(model(seed, n=40), model(0, n=40), QUICK).standing for seed in range(1, 11)]
    assert small.count(Standing.LOST) <= 1


def test_a_model_trained_on_shuffled_labels_is_refused_with_and_without_a_champion() -> None:
    verdict = judge(shuffled(model(1)), model(0), QUICK)
    assert not verdict.passed
    assert verdict.sentence.startswith("refused against the champion: report_micro_f1 ")
    assert verdict.comparisons[REPORT_MICRO].standing is Standing.LOST
    assert verdict.comparisons[READBACK].standing is not Standing.LOST
    assert not judge(shuffled(model(1)), None, QUICK).passed


def one_image(measured: Measurement) -> Measurement:
    drawn_ND = np.repeat(measured.drawings.drawn_ND[:1], len(measured.drawings.drawn_ND), axis=0)
    return replace(measured, drawings=replace(measured.drawings, drawn_ND=drawn_ND))


def blind_to_prompts(measured: Measurement) -> Measurement:
    """Drawings as good as ever, each for another prompt."""
    return replace(
        measured,
        drawings=replace(
            measured.drawings, read_back=[*measured.drawings.read_back[7:], *measured.drawings.read_back[:7]]
        ),
    )


@pytest.mark.parametrize(("broken", "metric"), [(one_image, FRECHET), (blind_to_prompts, READBACK)])
def test_a_quietly_broken_generation_branch_is_refused(broken, metric: str) -> None:
    for champion in (model(0), None):
        verdict = judge(broken(model(1)), champion, QUICK)
        assert verdict.standing is Standing.LOST
        assert [name for name in METRICS if verdict.comparisons[name].standing is Standing.LOST] == [metric]
        assert metric in verdict.sentence


def test_a_first_model_that_learned_something_passes_the_floors() -> None:
    verdict = judge(model(1), None, QUICK)
    assert verdict.passed, verdict.sentence
    assert "the best constant" in verdict.sentence


def test_nothing_written_is_no_finding_but_a_refusal() -> None:
    silent = replace(model(1).reports, predicted=[None] * N)
    assert not judge(replace(model(1), reports=silent), None, QUICK).passed


def test_a_loss_that_a_small_test_set_cannot_tell_from_chance_is_a_persons_to_decide() -> None:
    verdict = judge(model(3, error=0.45, n=24), model(0, n=24), QUICK)
    comparison = verdict.comparisons[REPORT_MICRO]
    assert comparison.candidate < comparison.limit
    assert (verdict.standing, comparison.standing) == (Standing.OPEN, Standing.OPEN)
    assert verdict.sentence.startswith("too close to call on 24 samples of 12 patients against the champion: report_")


def test_a_first_model_on_a_few_samples_is_a_persons_to_decide() -> None:
    assert judge(model(1, n=24), None, QUICK.model_copy(update={"least_patients": 13})).standing is Standing.OPEN


def test_the_same_model_is_no_loss_and_a_better_one_passes() -> None:
    champion = model(0)
    same = judge(champion, champion, QUICK)
    assert same.passed
    assert all(one.difference and one.difference.value == 0 for one in same.comparisons.values())
    assert judge(model(1, error=0.2, readback=0.3, drift=0.1), champion, QUICK).passed
    assert judge(model(1, error=0.5), champion, QUICK).standing is Standing.LOST


def test_too_few_patients_promote_nothing() -> None:
    champion = model(0, n=12)
    verdict = judge(champion, champion, QUICK)
    assert verdict.standing is Standing.OPEN
    assert "6 patients are fewer than 10" in verdict.sentence
    assert all(one.standing is Standing.KEPT for one in verdict.comparisons.values())


def test_other_samples_or_another_encoder_are_no_comparison() -> None:
    first, second = model(0), model(1)
    fewer = replace(second.reports, image_ids=list(second.reports.image_ids)[1:])
    with pytest.raises(ConfigError, match="reports of candidate and champion are of different samples"):
        judge(replace(second, reports=fewer), first, QUICK)
    with pytest.raises(ConfigError, match="different encoders"):
        judge(replace(second, drawings=replace(second.drawings, encoder="another")), first, QUICK)


@settings(max_examples=8, deadline=None)
@given(error=st.floats(0, 0.9), seed=st.integers(0, 100), n=st.sampled_from([24, 40, 80]))
def test_what_passes_excludes_a_loss_that_matters_and_what_is_refused_has_one(error: float, seed: int, n: int) -> None:
    verdict = judge(model(seed, error=error, n=n), model(0, n=n), QUICK)
    for name, one in verdict.comparisons.items():
        assert one.difference is not None
        assert one.champion is not None
        sign = 1 if name == FRECHET else -1
        losses = sorted(sign * end for end in (one.difference.low, one.difference.high))
        margin = sign * (one.limit - one.champion)
        assert (one.standing is Standing.KEPT) == (max(losses[1], sign * one.difference.value) <= margin)
        if one.standing is Standing.LOST:
            assert sign * one.difference.value > margin
            assert losses[0] > 0
    standings = {one.standing for one in verdict.comparisons.values()}
    assert verdict.passed == (standings == {Standing.KEPT})
    assert (verdict.standing is Standing.LOST) == (Standing.LOST in standings)


@settings(max_examples=5, deadline=None)
@given(st.floats(0, 0.9), st.integers(0, 100))
def test_a_wider_margin_is_never_less_lenient(error: float, seed: int) -> None:
    champion, candidate = model(0, n=40), model(seed, error=error, n=40)
    wide = GateRule.model_validate(
        {**QUICK.model_dump(), **{f"{name}_margin": 0.4 for name in METRICS}, "frechet_distance_margin": 2.0}
    )
    order = [Standing.LOST, Standing.OPEN, Standing.KEPT]
    narrow_standing, wide_standing = (judge(candidate, champion, rule).standing for rule in (QUICK, wide))
    assert order.index(wide_standing) >= order.index(narrow_standing)


def test_a_loss_of_the_margin_is_hardly_ever_promoted() -> None:
    champions = [model(seed, n=1000) for seed in range(12)]
    promoted = [
        judge(model(seed + 50, error=0.41, n=1000), champion, QUICK).passed for seed, champion in enumerate(champions)
    ]
    assert sum(promoted) <= 1
