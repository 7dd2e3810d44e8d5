"""Words by which noise is told from what a chest image shows; the lists are in `vocabulary.yaml`."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from unix.data.phrases import phrase_expression
from unix.errors import ConfigError


class Vocabulary(NamedTuple):
    """The word lists of `vocabulary.yaml`, compiled."""

    told: re.Pattern[str]
    ends: re.Pattern[str]
    technique: re.Pattern[str]
    noise: re.Pattern[str]
    ails: re.Pattern[str]
    shows: re.Pattern[str]
    parts: re.Pattern[str]
    abnormal: re.Pattern[str]
    degree: re.Pattern[str]
    describes: re.Pattern[str]


@cache
def vocabulary() -> Vocabulary:
    """The word lists; they match lower-case text without punctuation."""
    path = Path(__file__).parent / "vocabulary.yaml"
    lists = cast(dict[str, list[str]], yaml.safe_load(path.read_text(encoding="utf-8")))
    if set(lists) != set(Vocabulary._fields):
        raise ConfigError(f"{path} has the lists {', '.join(lists)}; it needs {', '.join(Vocabulary._fields)}")
    return Vocabulary(**{name: re.compile(phrase_expression(patterns)) for name, patterns in lists.items()})


def tells_of_images(words: str) -> bool:
    """Whether words name what a chest image shows, and neither tell who was told nor, of its parts, how it was made."""
    known = vocabulary()
    if known.abnormal.search(words):
        return known.told.search(words) is None
    return known.parts.search(words) is not None and not is_noise(words)


def is_noise(words: str) -> bool:
    """Whether words tell who was told, or how the study was made without saying what it shows."""
    known = vocabulary()
    if known.told.search(words) is not None:
        return True
    aside = known.noise.search(words) or known.technique.search(words)
    return aside is not None and known.shows.search(words) is None


def is_request(text: str) -> bool:
    """Whether a sentence says why the study was asked for, what ails the patient, or how the study was made."""
    if _REQUEST.search(text) is not None:
        return True
    known, words = vocabulary(), text.lower()
    if known.shows.search(words) is not None:
        return False
    if _HISTORY.search(text) is not None:
        return True
    if known.degree.search(words) is not None or _PLACE.search(text) is not None:
        return False
    return known.ails.search(words) is not None or _BARE.search(text) is not None or not _describes(words)


def _describes(words: str) -> bool:
    """Whether most words of some length are words by which images are described; one strange word is not enough."""
    known = vocabulary()
    foreign = words
    for phrases in (known.describes, known.abnormal, known.parts, known.ends):
        foreign = phrases.sub(" ", foreign)
    num_foreign = len(_LONG_WORD.findall(foreign))
    return num_foreign < max(2, len(_LONG_WORD.findall(words)) / 2)


_REQUEST = re.compile(
    r"^\W*(?:an? |the )?addend\w+\b|^\W*clinically\b"
    r"|^\W*(?:(?:please|to) )?(?:evaluate|assess|rule out|r/o|eval|question of|history of|check|verify|query)\b"
    r"|^\W*(?:indications?|history|hx|requests?|reason(?: for \w+)?|technique|comparisons?"
    r"|exam(?:ination)?|procedure|notification)\s*:"
    r"|^\W*clinical (?:concern|suspicion|question|query|history|information|indication|data|details)\b"
    r"|\bICD[- ]?(?:9|10)\b"
    r"|\b(?:study|exam(?:ination)?|image|film) (?:is |was )?(?:\w+ )?(?:limited|degraded)\b",
    re.IGNORECASE,
)
_HISTORY = re.compile(
    r"\b(?:years?|months?)[- ]old\b|\b\d+ ?y/?o\b|^\W*(?:he|she|pt|mrs?|ms)\b|\bpatient with\b"
    r"|\bpatient (?:has|had) (?:an? )?(?:known|past|prior)\b|\bpatient (?:is|was) (?:an?|on|known|being)\b"
    r"|(?<!natural )\bhistory\b|\b(?:diagnosed|treated|hospitali[sz]ed|chemotherapy|antibiotics)\b"
    r"|\bphysical exam\w*|\bcrackles\b|\bauscultat\w+|\b(?:was|were) sent\b|\bunder(?:went|go\w+)\b"
    r"|\b(?:post[- ]?op(?:erative)?|hospital) day\b|\bpod ?#?\d|\b(?:raised|suspected) clinically\b"
    r"|[,;] (?:please )?(?:evaluate|assess|eval|rule out|r/o)\b(?! with)"
    r"|\b(?:presents|presented|presenting|admitted|complain\w+) (?:with|for|of|to)\b",
    re.IGNORECASE,
)
# A condition without a statement: "known COPD", "pneumonia?", "tube placement".
_BARE = re.compile(
    r"^\W*(?:known|hx|h/o|question|concern:|dx|diagnosis)(?=\W)|^\W*\w+(?:\W+\w+){0,3}\s*\?\s*$"
    r"|^\W*(?!interval|new)(?:[\w/-]+ ){0,2}(?:placement|check)\W*$",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"\b(?!(?:were|with|this|that|these|those|there|from|have|been|which)\b)[a-z]{4,}")
_PLACE = re.compile(
    r"\b(?:left|right|bilateral\w*|both|lungs?|lobes?|bas(?:e|es|al|ilar)|apex|apices|apical|hil\w+|pleura\w*|ribs?"
    r"|spine|heart|mediastin\w+|tip)\b",
    re.IGNORECASE,
)
