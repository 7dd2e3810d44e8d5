"""Noise that a model invents: what the project's own rules would clean out of a report that it wrote (pure).

A generated report has no source to take a telephone call, an earlier film or a de-identification blank from, so
whatever the rule cleaner removes from it, the model has made up. A sentence said twice is no noise in this sense.
"""

from collections.abc import Sequence

import numpy as np

from unix.data.cleaning.rules import clean_report
from unix.evaluation.bootstrap import Draws, Patients

BLANK, _SAID_TWICE = "deidentification", "duplicate"


def noise_kinds(report: str) -> frozenset[str]:
    """The categories of noise in a report, `FINDINGS: ... IMPRESSION: ...`; none in an empty one."""
    if not report.strip():
        return frozenset()
    kinds = {span.category for span in clean_report(report).removed} - {_SAID_TWICE}
    return frozenset(kinds | {BLANK} if "__" in report else kinds)


def noise_draws(reports: Sequence[str], resampled: Patients) -> dict[str, Draws]:
    """Share of the N reports with any noise (`noise`) and with each kind that occurs (`noise_<kind>`)."""
    kinds = [noise_kinds(report) for report in reports]
    shares = {"noise": resampled.mean(np.array([bool(each) for each in kinds], dtype=np.float64))}
    for kind in sorted(frozenset[str]().union(*kinds)):
        shares[f"noise_{kind}"] = resampled.mean(np.array([kind in each for each in kinds], dtype=np.float64))
    return shares
