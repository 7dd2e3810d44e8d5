"""The rule cleaner: a raw report in, its findings and impression without noise out. Pure; the floor a model must beat.

It works sentence by sentence. A sentence that is noise goes whole; from every other one the noisy stretches go and the
words that remain stay in their order. A sentence that says something of the images is never taken out whole: the
labeler's lexicon and a list of anatomy decide that.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from unix.data.cleaning.sentences import split_sentences
from unix.data.labels import find_mentions
from unix.data.sections import FULL_REPORT, LAST_PARAGRAPH, SectionSpan, parse_sections, split_sections
from unix.errors import ConfigError
from unix.records import CleanedReport, RemovedSpan

_WHOLE_SECTIONS = {"wet read": "wet_read", "addendum": "addendum", "notification": "notification"}
_SEPARATOR_LINE = re.compile(
    r"^[ \t]*(?:[_=*~-]{4,}|\(over\)|\(cont(?:inued|\.)?\)|final (?:radiology )?report)[ \t]*$", re.M | re.I
)
_SPACE_BEFORE_STOP = re.compile(r"\s+([,.;:])")
_REPEATED_STOP = re.compile(r"([,;:])(?:\s*[,;:])+|([,;:])\s*(?=\.)|(?<=[.?!])\s*[.,;:]+")
_EMPTY_BRACKETS = re.compile(r"\(\s*[.,;]*\s*\)|\[\s*\]")
_LEADING = re.compile(r"^[\s,;:.)\]-]+")


class _Rule(NamedTuple):
    """An expression and the category of what it matches."""

    category: str
    expression: re.Pattern[str]


class _Rules(NamedTuple):
    """The rule file, compiled."""

    sentences: tuple[_Rule, ...]
    """A sentence that one of these matches is noise as a whole, whatever else it says."""
    bare_sentences: tuple[_Rule, ...]
    """The same, unless the sentence says something of the images."""
    spans: tuple[_Rule, ...]
    """Taken out of a sentence."""
    prior_sentences: tuple[_Rule, ...]
    prior_spans: tuple[_Rule, ...]
    imaging: re.Pattern[str]
    """Words that a sentence about the images has."""


def clean_report(report: str, remove_priors: bool = False) -> CleanedReport:
    """Findings and impression of a raw report without noise, and what was taken out, in report order.

    With `remove_priors`, references to earlier studies go too. A report without findings or impression gives its last
    paragraph, or its whole text, as findings.
    """
    cleaner = _Cleaner(remove_priors)
    texts: dict[str, list[str]] = {"findings": [], "impression": []}
    for name, body in _bodies(report):
        if name in texts:
            texts[name].extend(cleaner.clean(body, section=name))
        else:
            cleaner.remove(body, name)
    return CleanedReport(" ".join(texts["findings"]), " ".join(texts["impression"]), tuple(cleaner.removed))


def _bodies(report: str) -> Iterator[tuple[str, str]]:
    """The texts to clean, named `findings` or `impression`, and the sections that go whole, named by category."""
    spans = split_sections(report)
    if not any(_has_text(report, span) for span in spans if span.name in ("findings", "impression")):
        sections = parse_sections(report).text
        yield "findings", sections.get(LAST_PARAGRAPH) or sections.get(FULL_REPORT, "")
        return
    for span in spans:
        if span.name in ("findings", "impression"):
            yield span.name, report[span.body : span.end]
        elif span.name in _WHOLE_SECTIONS:
            yield _WHOLE_SECTIONS[span.name], report[span.start : span.end]


def _has_text(report: str, span: SectionSpan) -> bool:
    return bool(report[span.body : span.end].strip())


class _Cleaner:
    """Cleans the sections of one report and collects what it takes out."""

    def __init__(self, remove_priors: bool) -> None:
        self.removed: list[RemovedSpan] = []
        self._rules = _rules()
        self._spans = self._rules.spans + (self._rules.prior_spans if remove_priors else ())
        self._prior_sentences = self._rules.prior_sentences if remove_priors else ()
        self._seen: set[tuple[str, str]] = set()

    def remove(self, text: str, category: str) -> None:
        """Note that `text` was taken out."""
        if text := " ".join(text.split()):
            self.removed.append(RemovedSpan(text, category))

    def clean(self, body: str, section: str) -> Iterator[str]:
        """The sentences of a section that stay, cleaned."""
        for separator in _SEPARATOR_LINE.findall(body):
            self.remove(separator, "header")
        for number, sentence in split_sentences(_SEPARATOR_LINE.sub("\n\n", body)):
            cleaned = self._clean_sentence(sentence)
            if not cleaned:
                continue
            key = (section, cleaned.casefold().rstrip(". "))
            if key in self._seen:
                self.remove(cleaned, "duplicate")
                continue
            self._seen.add(key)
            yield f"{number} {cleaned}" if number[:1].isdigit() else cleaned

    def _clean_sentence(self, sentence: str) -> str:
        category = self._category(sentence)
        if category is not None:
            self.remove(sentence, category)
            return ""
        text = sentence
        for rule in self._spans:
            text = rule.expression.sub(lambda match, category=rule.category: self._take(match, category), text)
        if text is sentence or text == sentence:
            return text
        text = _tidy(text)
        if sentence.endswith(".") and text and text[-1].isalnum():  # the stop went with what stood before it
            text += "."
        if not re.search(r"[A-Za-z]{2}", text):
            self.remove(text, "header")
            return ""
        if self._category(text) is not None:
            self.remove(text, cast(str, self._category(text)))
            return ""
        return text if text[0].islower() is sentence[0].islower() else text[0].upper() + text[1:]

    def _take(self, match: re.Match[str], category: str) -> str:
        self.remove(match[0], category)
        return " "

    def _category(self, sentence: str) -> str | None:
        """The category of a sentence that is noise as a whole; None for one that stays."""
        for rule in self._rules.sentences + self._prior_sentences:
            if rule.expression.search(sentence):
                return rule.category
        says_something: bool | None = None
        for rule in self._rules.bare_sentences:
            if rule.expression.search(sentence):
                if says_something is None:
                    says_something = self._says_something(sentence)
                if not says_something:
                    return rule.category
        return None

    def _says_something(self, sentence: str) -> bool:
        return self._rules.imaging.search(sentence) is not None or bool(find_mentions(sentence))


def _tidy(text: str) -> str:
    """Mend spaces and stops around what was taken out."""
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = " ".join(text.split())
    text = _SPACE_BEFORE_STOP.sub(r"\1", text)
    text = _REPEATED_STOP.sub(lambda match: match[1] or "", text)
    return _LEADING.sub("", text).strip()


@cache
def _rules() -> _Rules:
    path = Path(__file__).parent / "rules.yaml"
    content = cast(dict[str, object], yaml.safe_load(path.read_text(encoding="utf-8")))
    words = cast(dict[str, str], content["words"])

    def compiled(group: str) -> tuple[_Rule, ...]:
        entries = cast(dict[str, list[str]], content[group])
        return tuple(
            _Rule(category, _compile(pattern, words)) for category, patterns in entries.items() for pattern in patterns
        )

    return _Rules(
        sentences=compiled("sentences"),
        bare_sentences=compiled("bare_sentences"),
        spans=compiled("spans"),
        prior_sentences=compiled("prior_sentences"),
        prior_spans=compiled("prior_spans"),
        imaging=_compile(cast(str, content["imaging"]), words),
    )


def _compile(pattern: str, words: dict[str, str]) -> re.Pattern[str]:
    """Compile a rule; `<name>` stands for an entry of `words`."""
    filled = re.sub(r"<([a-z_]+)>", lambda match: f"(?:{words[match[1]]})", pattern)
    filled = re.sub(r"<([a-z_]+)>", lambda match: f"(?:{words[match[1]]})", filled)
    try:
        return re.compile(filled, re.IGNORECASE)
    except re.error as error:
        raise ConfigError(f"rules.yaml: the expression {pattern!r} is malformed: {error}") from error
