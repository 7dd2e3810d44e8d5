import pytest

from unix.evaluation.bootstrap import Patients
from unix.evaluation.noise import noise_draws, noise_kinds

CLEAN = "FINDINGS: There is a small left pleural effusion. IMPRESSION: Small left effusion."


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("Dr. ___ was notified by telephone at 9:15 a.m.", "notification"),
        ("Comparison is made to the prior study from ___.", "comparison"),
        ("Single portable AP view of the chest was obtained.", "technique"),
        ("Electronically signed by ___, MD.", "signature"),
        ("The heart is enlarged ___.", "deidentification"),
    ],
)
def test_a_sentence_of_noise_in_a_written_report_is_told(sentence: str, kind: str) -> None:
    assert kind in noise_kinds(CLEAN.replace(" IMPRESSION", f" {sentence} IMPRESSION"))


def test_clean_empty_and_repeating_reports_have_none() -> None:
    assert noise_kinds(CLEAN) == noise_kinds("") == noise_kinds("FINDINGS: Clear lungs. Clear lungs.") == frozenset()


def test_shares_count_every_report() -> None:
    reports = [CLEAN, "", f"{CLEAN} Electronically signed by ___, MD.", CLEAN]
    draws = noise_draws(reports, Patients(["a", "b", "c", "d"], 0, 50))
    assert draws["noise"].value == draws["noise_signature"].value == 0.25
    assert draws["noise"].n == 4
