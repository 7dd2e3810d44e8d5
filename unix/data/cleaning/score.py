"""How well a cleaning kept the text and removed the noise, against a known truth, by words as multisets."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

_WORD = re.compile(r"[a-z0-9_]+(?:\.[0-9]+)?")


class CleaningScore(NamedTuple):
    """Shares over all reports."""

    clean_token_recall: float
    """Share of the true text's words that the cleaned text has; a rejected report has none."""
    noise_removed: float
    """Share of the noise spans' words that the cleaned text does not have."""
    accepted_share: float
    """Share of the reports that were accepted."""


class ScoredReport(NamedTuple):
    """One report: the truth (clean text and noise spans) and the outcome."""

    true_text: str
    noise: tuple[str, ...]
    cleaned_text: str
    """"" where nothing was handed on."""
    accepted: bool
    rejected: bool


def score(reports: Iterable[ScoredReport]) -> CleaningScore:
    """Score reports. A word of the noise counts as left where the cleaned text has more of it than the truth."""
    total = kept = noise_total = noise_left = count = accepted = 0
    for report in reports:
        count += 1
        accepted += report.accepted
        truth = words(report.true_text)
        cleaned: Counter[str] = Counter() if report.rejected else words(report.cleaned_text)
        noise = sum((words(span) for span in report.noise), Counter[str]())
        total += truth.total()
        kept += (truth & cleaned).total()
        noise_total += noise.total()
        noise_left += (noise & (cleaned - truth)).total()
    return CleaningScore(
        clean_token_recall=kept / total if total else 1.0,
        noise_removed=1 - noise_left / noise_total if noise_total else 1.0,
        accepted_share=accepted / count if count else 1.0,
    )


def words(text: str) -> Counter[str]:
    """The words of a text, in lower case, with their counts."""
    return Counter(_WORD.findall(text.lower()))
