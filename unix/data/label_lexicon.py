"""The labeler's phrases and what each of them does in a sentence: `lexicon/*.yaml`, compiled."""

import re
from collections.abc import Sequence
from enum import Flag, auto
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from unix.data.phrases import PhraseBook, expand
from unix.errors import ConfigError
from unix.records import CHEXPERT_14

_LEXICON = Path(__file__).parent / "lexicon"


class Role(Flag):
    """What a phrase does."""

    MENTION = auto()
    HINT = auto()
    SUBJECT = auto()
    QUIET = auto()
    NEUTRAL = auto()
    NEGATION_BEFORE = auto()
    NEGATION_NEAR = auto()
    NEGATION_AFTER = auto()
    NEGATION_ADJACENT = auto()
    UNCERTAINTY_BEFORE = auto()
    UNCERTAINTY_AFTER = auto()
    VERSUS = auto()
    BREAK = auto()
    SEPARATOR = auto()
    COMMA = auto()
    CONJUNCTION = auto()
    ALTERNATIVE = auto()
    VERB = auto()
    SINGULAR = auto()
    AFFIRMED = auto()
    TOPIC = auto()
    ABNORMAL = auto()
    NORMAL = auto()
    UNSURE = auto()


# Plain integers: testing a Flag member costs ten times as much, a dozen times per phrase.
MENTION, HINT = Role.MENTION.value, Role.HINT.value
SUBJECT, QUIET = Role.SUBJECT.value, Role.QUIET.value
NEGATION_BEFORE, NEGATION_AFTER = Role.NEGATION_BEFORE.value, Role.NEGATION_AFTER.value
NEGATION_ADJACENT, NEGATION_NEAR = Role.NEGATION_ADJACENT.value, Role.NEGATION_NEAR.value
UNCERTAINTY_BEFORE, UNCERTAINTY_AFTER = Role.UNCERTAINTY_BEFORE.value, Role.UNCERTAINTY_AFTER.value
VERSUS, BREAK, SEPARATOR = Role.VERSUS.value, Role.BREAK.value, Role.SEPARATOR.value
COMMA, CONJUNCTION = Role.COMMA.value, Role.CONJUNCTION.value
ALTERNATIVE, VERB, AFFIRMED = Role.ALTERNATIVE.value, Role.VERB.value, Role.AFFIRMED.value
SINGULAR = Role.SINGULAR.value
TOPIC = Role.TOPIC.value
ABNORMAL, NORMAL, UNSURE = Role.ABNORMAL.value, Role.NORMAL.value, Role.UNSURE.value
STATE = ABNORMAL | NORMAL | UNSURE
FINDING = MENTION | HINT | SUBJECT
CUE = NEGATION_BEFORE | UNCERTAINTY_BEFORE | VERSUS


class Cue(NamedTuple):
    """What a phrase of the lexicon does: its roles (bits of `Role`) and, for a finding, its classes."""

    roles: int
    classes: tuple[str, ...] = ()


@cache
def load_lexicon() -> tuple[PhraseBook[Cue], re.Pattern[str]]:
    """What each phrase means, and one expression that finds every phrase, stop and comma.

    Raises:
        ConfigError: the lexicon names a class that is none of CheXpert's.
    """
    findings = _read_lexicon("findings.yaml")
    cues = _read_lexicon("cues.yaml")
    roles: dict[str, int] = {}
    classes: dict[str, tuple[str, ...]] = {}

    def add(patterns: Sequence[str], role: Role, name: str | None = None) -> None:
        for pattern in patterns:
            for phrase in expand(pattern):
                roles[phrase] = roles.get(phrase, 0) | role.value
                if name is not None and name not in classes.get(phrase, ()):
                    classes[phrase] = (*classes.get(phrase, ()), name)

    groups = {
        "mentions": Role.MENTION,
        "hints": Role.HINT,
        "subjects": Role.SUBJECT,
        "quiet_subjects": Role.SUBJECT | Role.QUIET,
    }
    for group, role in groups.items():
        for name, patterns in findings[group].items():
            if name not in CHEXPERT_14:
                raise ConfigError(f"{_LEXICON / 'findings.yaml'}: {name!r} is not a CheXpert class")
            add(patterns, role, name)
    add(findings["others"], Role.MENTION)
    for key, role in _CUE_ROLES.items():
        add(cues[key], role)
    for phrase in roles:
        if phrase.partition(" ")[0] in ("is", "was", "has"):
            roles[phrase] |= SINGULAR
    for key, role in (("abnormal", Role.ABNORMAL), ("normal", Role.NORMAL), ("unsure", Role.UNSURE)):
        add(cues["states"][key], role)
    book = PhraseBook({phrase: Cue(role, classes.get(phrase, ())) for phrase, role in roles.items()})
    return book, re.compile(book.pattern() + r"|[.](?![0-9])|[;!,:]|[?]")


_CUE_ROLES = {
    "neutral": Role.NEUTRAL,
    "topics": Role.TOPIC,
    "negation_before": Role.NEGATION_BEFORE,
    "negation_near": Role.NEGATION_BEFORE | Role.NEGATION_NEAR,
    "negation_after": Role.NEGATION_AFTER,
    "negation_adjacent": Role.NEGATION_ADJACENT,
    "uncertainty_before": Role.UNCERTAINTY_BEFORE,
    "uncertainty_after": Role.UNCERTAINTY_AFTER,
    "versus": Role.VERSUS,
    "breaks": Role.BREAK,
    "separators": Role.SEPARATOR,
    "conjunctions": Role.CONJUNCTION,
    "alternatives": Role.ALTERNATIVE,
    "verbs": Role.VERB,
    "affirmed": Role.AFFIRMED,
}


def _read_lexicon(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], yaml.safe_load((_LEXICON / name).read_text(encoding="utf-8")))
