"""What a training report says its image shows, as a set of attributes: finding, side, zone, severity.

Read from the training text alone, by the rule labeler and a handful of words: weak labels for the warm start's tower.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from unix.data.labels import NEGATIVE, label_report

_WORDS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for name, words in {
        "left": "left(?:-sided)?|bilateral|both|bibasilar",
        "right": "right(?:-sided)?|bilateral|both|bibasilar",
        "upper": "upper|apical|apex",
        "middle": "mid|middle|perihilar",
        "lower": "lower|base|basal|basilar|bibasilar",
        "mild": "mild|mildly|minimal|minimally|minor|small|slight|slightly|faint|subtle|subsegmental|trace",
        "severe": "severe|severely|large|extensive|marked|markedly|dense",
    }.items()
}
NO_FINDING = "No Finding"
_SIDES, _ZONES = ("left", "right"), ("upper", "middle", "lower")
_SENTENCE_END = re.compile(r"(?<=[.;:])\s+")


def attributes(text: str) -> frozenset[str]:
    """Attributes such as `Lung Opacity`, `Lung Opacity/left`, `Lung Opacity/left/upper`, `Lung Opacity/mild`.

    A finding counts where a sentence affirms it or doubts it.
    """
    found = set(_affirmed(text))
    for sentence in _SENTENCE_END.split(text):
        said = [word for word, pattern in _WORDS.items() if pattern.search(sentence)]
        places = [f"{side}/{zone}" for side in _SIDES for zone in _ZONES if side in said and zone in said]
        for name in _affirmed(sentence) if said else ():
            # A sentence without a finding labels as normal, which only the whole report may.
            if name != NO_FINDING:
                found.update(f"{name}/{word}" for word in (*said, *places))
    return frozenset(found)


def _affirmed(text: str) -> list[str]:
    return [name for name, value in label_report(text).items() if value not in (None, NEGATIVE)]


class AttributeTable:
    """Training reports as multi-hot targets over the attributes that occur often enough to be learned."""

    def __init__(self, reports: Mapping[str, str], least_count: int = 20) -> None:
        found = {key: attributes(text) for key, text in reports.items()}
        counts = Counter(name for names in found.values() for name in names)
        self.names = tuple(sorted(name for name, count in counts.items() if count >= least_count))
        place = {name: index for index, name in enumerate(self.names)}
        self._rows = {key: [place[name] for name in names if name in place] for key, names in found.items()}
        self.frequency = torch.tensor([counts[name] / len(found) for name in self.names])

    def targets(self, keys: Iterable[str]) -> Tensor:
        """float32 [B, number of attributes], 1 where the report of `key` says so."""
        rows = [self._rows[key] for key in keys]
        targets_BA = torch.zeros(len(rows), len(self.names))
        for row, indices in zip(targets_BA, rows, strict=True):
            row[indices] = 1.0
        return targets_BA
