"""Words by which noise is told from what a chest image shows; the lists are in `vocabulary.yaml`."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from unix.data.phrases import PhraseBook, expand
from unix.errors import ConfigError


class Vocabulary(NamedTuple):
    """The word lists of `vocabulary.yaml`, compiled."""

    told: re.Pattern[str]
    ends: re.Pattern[str]
    technique: re.Pattern[str]
    noise: re.Pattern[str]
    shows: re.Pattern[str]
    parts: re.Pattern[str]
    abnormal: re.Pattern[str]
    degree: re.Pattern[str]


@cache
def vocabulary() -> Vocabulary:
    """The word lists; they match lower-case text without punctuation."""
    path = Path(__file__).parent / "vocabulary.yaml"
    lists = cast(dict[str, list[str]], yaml.safe_load(path.read_text(encoding="utf-8")))
    if set(lists) != set(Vocabulary._fields):
        raise ConfigError(f"{path} has the lists {', '.join(lists)}; it needs {', '.join(Vocabulary._fields)}")
    phrases = {name: [phrase for pattern in patterns for phrase in expand(pattern)] for name, patterns in lists.items()}
    return Vocabulary(**{name: re.compile(PhraseBook(dict.fromkeys(phrases[name], True)).pattern()) for name in lists})


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
    """Whether a sentence says why the study was asked for, or how it was made."""
    if _REQUEST.search(text) is not None:
        return True
    return _HISTORY.search(text) is not None and vocabulary().shows.search(text.lower()) is None


_REQUEST = re.compile(
    r"^\W*(?:indications?|history|clinical (?:history|information|indication)|reason for \w+|technique|comparisons?"
    r"|exam(?:ination)?|procedure|notification)\s*:|^\W*(?:an? |the )?addend\w+\b"
    r"|^\W*(?:please )?(?:evaluate|assess|rule out|r/o|eval|question of|history of)\b|\bICD[- ]?(?:9|10)\b"
    r"|\b(?:study|exam(?:ination)?|image|film) (?:is |was )?(?:\w+ )?(?:limited|degraded)\b",
    re.IGNORECASE,
)
_HISTORY = re.compile(
    r"\byears?[- ]old\b|\b(?:history of|patient with)\b"
    r"|[,;] (?:please )?(?:evaluate|assess|eval|rule out|r/o)\b(?! with)"
    r"|\b(?:presents|presented|presenting|admitted|complain\w+) (?:with|for|of|to)\b",
    re.IGNORECASE,
)
