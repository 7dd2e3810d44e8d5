"""The report of a synthetic study: clean text, its labels, and the noisy report that a hospital would hold."""

from dataclasses import dataclass

from unix.config import json_digest
from unix.data.phantom.draws import Draws
from unix.data.phantom.grammar import CleanText, phrases, write_clean_text
from unix.data.phantom.noise import NoisyReport, noise_book, write_raw_report
from unix.data.phantom.study import StudyPlan

_STOCK_SHARE = 0.45
_NUM_STOCK = 8
"""Normal studies that take one of so many ready-made reports, word for word: about one text in ten is a duplicate."""


@dataclass(frozen=True, slots=True)
class PhantomReport:
    """What a study says, clean and as written."""

    clean: CleanText
    raw: NoisyReport


def write_report(plan: StudyPlan, wording: str | None = None) -> PhantomReport:
    """The report of a planned study; depends on (seed, study index), the study's findings and the words alone.

    `wording` is a folder whose `phrases.yaml` and `noise.yaml` replace the package's own words.

    Raises:
        ConfigError: one of the two is missing or malformed.
    """
    draws = Draws(plan.seed, plan.index, "text")
    if not plan.findings and draws.chance(_STOCK_SHARE):
        draws = Draws(plan.seed, draws.below(_NUM_STOCK), f"stock text, {plan.projection}")
    clean = write_clean_text(plan.findings, draws, wording)
    return PhantomReport(clean, write_raw_report(clean, plan.projection, draws, wording))


def wording_digest(wording: str | None = None) -> str:
    """SHA-256 (hex) of the words in the folder `wording`, or of the package's own."""
    return json_digest([phrases(wording).digest(), noise_book(wording).digest()])
