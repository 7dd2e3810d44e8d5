"""Left or right: on which side a text puts a finding, and how often two texts agree on it (pure)."""

import re
from collections.abc import Sequence

import numpy as np

from unix.data.labels import label_report
from unix.evaluation.bootstrap import RESAMPLES, Metric, share_metric

ONE_SIDED = ("Pleural Effusion", "Pneumothorax")
"""Findings whose side is both written in reports and measurable on a phantom image."""

_SENTENCE = re.compile(r"[^.;\n]+")
_SIDES = (
    ("left", re.compile(r"\b(left|left-sided|bilateral|bilaterally|both)\b", re.IGNORECASE)),
    ("right", re.compile(r"\b(right|right-sided|bilateral|bilaterally|both)\b", re.IGNORECASE)),
)


def stated_side(text: str, finding: str) -> str | None:
    """`left` or `right` where all sentences that affirm `finding` name that side alone; else None."""
    stated: set[str] = set()
    for sentence in _SENTENCE.findall(text):
        if label_report(sentence)[finding] == 1:
            stated.update(side for side, pattern in _SIDES if pattern.search(sentence))
    return stated.pop() if len(stated) == 1 else None


def side_accuracy(
    reference: Sequence[str], predicted: Sequence[str], patients: Sequence[str], seed: int, resamples: int = RESAMPLES
) -> Metric | None:
    """Share of one-sided findings in the reference whose side the prediction repeats, where it names one side at all.

    That the finding is missed is counted elsewhere (F1); chance is 0.5 here. None where there is nothing to compare.
    """
    hits: list[bool] = []
    owners: list[str] = []
    for finding in ONE_SIDED:
        for true, said, patient in zip(reference, predicted, patients, strict=True):
            wanted = stated_side(true, finding)
            named = stated_side(said, finding) if wanted else None
            if named is not None:
                hits.append(wanted == named)
                owners.append(patient)
    return share_metric(np.array(hits, dtype=bool), owners, seed, resamples)
