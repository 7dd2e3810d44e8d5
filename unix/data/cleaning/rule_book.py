"""The rule cleaner's expressions and vocabularies: `rules.yaml`, compiled."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from unix.data.phrases import phrase_expression
from unix.errors import ConfigError

_NAME = re.compile(r"(?<!\?P)<([a-z_]+)>")


class Rule(NamedTuple):
    """An expression and the category of what it matches."""

    category: str
    expression: re.Pattern[str]


class RuleBook(NamedTuple):
    """The rule file, compiled."""

    sentences: tuple[Rule, ...]
    """A sentence that one of these matches is noise; it is rescued where a finding would be lost with it."""
    tails: tuple[Rule, ...]
    """The noise of such a sentence, taken out when it is rescued."""
    clinical: tuple[Rule, ...]
    """Noise unless the sentence has an observation."""
    other_modality: tuple[Rule, ...]
    """What another examination than the radiograph showed: noise unless it is advice or a comparison."""
    bare_sentences: tuple[Rule, ...]
    """Noise unless the sentence says something of the images."""
    spans: tuple[Rule, ...]
    """Taken out of a sentence."""
    prior_sentences: tuple[Rule, ...]
    prior_spans: tuple[Rule, ...]
    labels: tuple[Rule, ...]
    """Inline labels, by the category of what follows; `images` for what is no noise."""
    narrative: re.Pattern[str]
    """Words that tell of the patient's illness."""
    lead: re.Pattern[str]
    """The words up to what a picture shows."""
    picture: re.Pattern[str]
    """The words for the picture."""
    observation: re.Pattern[str]
    advice: re.Pattern[str]
    anatomy: re.Pattern[str]
    general: re.Pattern[str]
    neutral: re.Pattern[str]
    """Phrases that hold such words and mean none."""


@cache
def load_rules() -> RuleBook:
    """The rules of the package.

    Raises:
        ConfigError: an expression is malformed.
    """
    path = Path(__file__).parent / "rules.yaml"
    content = cast(dict[str, object], yaml.safe_load(path.read_text(encoding="utf-8")))
    words = cast(dict[str, str], content["words"])
    neutral = cast(str, content["neutral"])

    def compiled(group: str) -> tuple[Rule, ...]:
        entries = cast(dict[str, list[str]], content[group])
        return tuple(
            Rule(category, _compile(pattern, words)) for category, patterns in entries.items() for pattern in patterns
        )

    def vocabulary(group: str) -> re.Pattern[str]:
        return re.compile(f"(?!{neutral}){phrase_expression(cast(list[str], content[group]))}")

    return RuleBook(
        sentences=compiled("sentences"),
        tails=compiled("tails"),
        clinical=compiled("clinical"),
        other_modality=compiled("other_modality"),
        bare_sentences=compiled("bare_sentences"),
        spans=compiled("spans"),
        prior_sentences=compiled("prior_sentences"),
        prior_spans=compiled("prior_spans"),
        labels=compiled("labels"),
        narrative=_compile(cast(str, content["narrative"]), words),
        lead=_compile(cast(str, content["lead"]), words),
        picture=_compile(cast(str, content["picture"]), words),
        observation=vocabulary("observation"),
        advice=vocabulary("advice"),
        anatomy=vocabulary("anatomy"),
        general=vocabulary("general"),
        neutral=_compile(neutral, words),
    )


def _compile(pattern: str, words: dict[str, str]) -> re.Pattern[str]:
    """Compile a rule; `<name>` stands for an entry of `words`, which may name others."""
    while _NAME.search(pattern):
        pattern = _NAME.sub(lambda match: f"(?:{words[match[1]]})", pattern)
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"rules.yaml: the expression {pattern!r} is malformed: {error}") from error
