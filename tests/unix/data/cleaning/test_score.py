"""Scores of a cleaning against a truth."""

import pytest

from unix.data.cleaning.score import ScoredReport, score


def test_words_count_as_often_as_they_stand() -> None:
    report = ScoredReport("no effusion no edema", ("two views", "no"), "no effusion two", accepted=True, rejected=False)
    result = score([report])
    assert result.clean_token_recall == pytest.approx(2 / 4)
    assert result.noise_removed == pytest.approx(2 / 3)
    assert result.accepted_share == 1


def test_a_rejected_report_keeps_nothing() -> None:
    kept = ScoredReport("a b", ("x",), "a b", accepted=True, rejected=False)
    rejected = ScoredReport("a b", ("x",), "a b x", accepted=False, rejected=True)
    assert score([kept, rejected]) == (0.5, 1.0, 0.5)


def test_noise_words_that_the_truth_has_too_are_not_noise() -> None:
    assert score([ScoredReport("the heart", ("the study",), "the heart", True, False)]).noise_removed == 1
