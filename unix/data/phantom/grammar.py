"""Writes the clean findings and impression of a study: phrases composed from the findings' severity, side and zone.

The words are in `phrases.yaml`; this module parses them once into trees of choices and walks them with seeded draws.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from unix.config import Config
from unix.data.phantom.draws import Draws
from unix.data.phantom.findings import Finding, Side
from unix.records import Labels, no_labels

_WORDS_WANTED = (25, 40)
_NO_FINDINGS_SHARE = 0.08
_NO_IMPRESSION_SHARE = 0.08
_NUMBERED_SHARE = 0.15
_IMPRESSION_DENIAL_SHARE = 0.15

_LUNGS = frozenset(
    {"Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Lung Opacity", "Pneumonia", "Pneumothorax"}
    | {"Pleural Effusion", "Pleural Other"}
)


class _Wording(Config):
    seen: list[str]
    doubted: list[str]
    stated: list[str]
    suspected: list[str]


class _ClassPhrases(_Wording):
    severity: dict[str, str]
    both: _Wording | None = None

    def wording(self, side: Side) -> _Wording:
        """The phrases for this side."""
        return self.both if side == Side.BOTH and self.both is not None else self


class _DevicePhrases(Config):
    seen: list[str]
    stated: list[str]


class _Denial(Config):
    denies: list[str]
    text: str


class Phrases(Config):
    """The content of `phrases.yaml`."""

    at: dict[str, str]
    place: dict[str, str]
    zone_words: dict[str, str]
    note: str
    classes: dict[str, _ClassPhrases]
    devices: dict[str, _DevicePhrases]
    absent: list[_Denial]
    normal: list[str]
    clear: list[str]
    nothing: list[str]


@dataclass(frozen=True, slots=True)
class CleanText:
    """A report's sentences without noise; an absent section is an empty tuple. `labels` follow from the words."""

    findings: tuple[str, ...]
    impression: tuple[str, ...]
    labels: Labels


Node: TypeAlias = "str | _Slot | _Choice | tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


@dataclass(frozen=True, slots=True)
class _Choice:
    options: tuple[Node, ...]


# Of no class, yet the CheXpert labeler lets nothing with it pass as No Finding.
_INCIDENTAL = "egenerative changes"

_TOKEN = re.compile(r"[\[\]|]|\{\w+\}|[^\[\]|{}]+")


@cache
def phrases() -> Phrases:
    """The phrases of the package."""
    return Phrases.load(Path(__file__).with_name("phrases.yaml"))


def write_clean_text(findings: tuple[Finding, ...], draws: Draws) -> CleanText:
    """Findings (25 to 45 words) and impression of a study with these findings."""
    book = phrases()
    labels = no_labels()
    for finding in findings:
        labels[finding.name] = -1 if finding.uncertain and labels[finding.name] is None else 1
    if all(finding.name == "Support Devices" for finding in findings):
        labels["No Finding"] = 1

    without_findings = draws.chance(_NO_FINDINGS_SHARE)
    without_impression = not without_findings and draws.chance(_NO_IMPRESSION_SHARE)
    told = () if without_findings else _tell(book, findings, labels, draws)
    stated = () if without_impression else _state(book, findings, labels, draws)
    if any(_INCIDENTAL in sentence for sentence in told):
        labels["No Finding"] = None
    return CleanText(told, stated, labels)


def count_phrasings(finding: Finding) -> int:
    """How many different sentences the findings section may hold for this finding."""
    book = phrases()
    if finding.device is not None:
        return sum(_count(_parsed(text), _slots(book, finding)) for text in book.devices[finding.device].seen)
    own = book.classes[finding.name].wording(finding.side)
    texts = own.doubted if finding.uncertain else own.seen
    return sum(_count(_parsed(text), _slots(book, finding)) for text in texts)


def expand(text: str, slots: Mapping[str, str], draws: Draws) -> str:
    """One reading of a phrase, its choices drawn and its slots filled."""
    words: list[str] = []
    _walk(_parsed(text), slots, draws, words)
    return "".join(words)


def _tell(book: Phrases, findings: tuple[Finding, ...], labels: Labels, draws: Draws) -> tuple[str, ...]:
    sentences = [_sentence(book, finding, draws, impression=False) for finding in findings]
    if findings:
        sentences = draws.shuffled(sentences)
    names = {finding.name for finding in findings}
    if not names & _LUNGS:
        sentences.insert(0, _capital(expand(draws.choose(book.clear), {}, draws)))
    length = sum(sentence.count(" ") + 1 for sentence in sentences)
    wanted = draws.uniform(*_WORDS_WANTED)
    denials = draws.shuffled(book.absent)
    normals = draws.shuffled(book.normal)
    while length < wanted and (denials or normals):
        if denials and (not normals or draws.chance(0.7)):
            denial = denials.pop()
            if names & set(denial.denies) or any(labels[name] == 0 for name in denial.denies):
                continue
            labels.update(dict.fromkeys(denial.denies, 0))
            sentence = _capital(expand(denial.text, {}, draws))
        else:
            sentence = _capital(expand(normals.pop(), {}, draws))
        sentences.append(sentence)
        length += sentence.count(" ") + 1
    return tuple(sentences)


def _state(book: Phrases, findings: tuple[Finding, ...], labels: Labels, draws: Draws) -> tuple[str, ...]:
    # Devices come last, as what is wrong matters more.
    ordered = sorted(findings, key=lambda finding: (finding.device is not None, finding.uncertain))
    sentences = [_sentence(book, finding, draws, impression=True) for finding in ordered]
    if not any(finding.device is None for finding in findings):
        sentences.insert(0, _capital(expand(draws.choose(book.nothing), {}, draws)))
    elif labels["Pneumothorax"] in (None, 0) and draws.chance(_IMPRESSION_DENIAL_SHARE):
        labels["Pneumothorax"] = 0
        sentences.append("No pneumothorax.")
    if len(sentences) > 1 and draws.chance(_NUMBERED_SHARE):
        sentences = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, start=1)]
    return tuple(sentences)


def _sentence(book: Phrases, finding: Finding, draws: Draws, *, impression: bool) -> str:
    if finding.device is not None:
        device = book.devices[finding.device]
        options = device.stated if impression else device.seen
    else:
        own = book.classes[finding.name].wording(finding.side)
        if finding.uncertain:
            options = own.suspected if impression else own.doubted
        else:
            options = own.stated if impression else own.seen
    return _capital(expand(draws.choose(options), _slots(book, finding), draws))


def _slots(book: Phrases, finding: Finding) -> dict[str, str]:
    number = "both" if finding.side == Side.BOTH else "one"
    own = book.classes.get(finding.name)
    return {
        "severity": own.severity[finding.severity] if own else "",
        "side": finding.side.value,
        "zone": finding.zone.value,
        "zone_words": book.zone_words.get(finding.zone, ""),
        "at": book.at[number],
        "place": book.place[number],
        "note": book.note,
    }


def _capital(sentence: str) -> str:
    if "  " in sentence or " -" in sentence:
        sentence = sentence.replace(" -sided", "-sided").replace("  ", " ")
    if "a " in sentence or sentence.startswith("A "):
        sentence = _ARTICLE.sub(r"\1n ", sentence)
    return sentence[:1].upper() + sentence[1:]


_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio])")


@cache
def _parsed(text: str) -> Node:
    tokens = _TOKEN.findall(text)
    node, rest = _parse_sequence(tokens, 0)
    if rest != len(tokens):
        raise ValueError(f"unbalanced brackets in the phrase {text!r}")
    return node


def _parse_sequence(tokens: list[str], position: int) -> tuple[Node, int]:
    parts: list[Node] = []
    while position < len(tokens) and tokens[position] not in "]|":
        token = tokens[position]
        if token == "[":
            options: list[Node] = []
            while token != "]":
                option, position = _parse_sequence(tokens, position + 1)
                options.append(option)
                token = tokens[position]
            parts.append(_Choice(tuple(options)))
        else:
            parts.append(_Slot(token[1:-1]) if token.startswith("{") else token)
        position += 1
    return (parts[0] if len(parts) == 1 else tuple(parts)), position


def _walk(node: Node, slots: Mapping[str, str], draws: Draws, words: list[str]) -> None:
    if isinstance(node, str):
        words.append(node)
    elif isinstance(node, _Choice):
        _walk(draws.choose(node.options), slots, draws, words)
    elif isinstance(node, _Slot):
        _walk(_parsed(slots[node.name]), slots, draws, words)
    else:
        for part in node:
            _walk(part, slots, draws, words)


def _count(node: Node, slots: Mapping[str, str]) -> int:
    if isinstance(node, str):
        return 1
    if isinstance(node, _Slot):
        return _count(_parsed(slots[node.name]), slots)
    if isinstance(node, _Choice):
        return sum(_count(option, slots) for option in dict.fromkeys(node.options))
    total = 1
    for part in node:
        total *= _count(part, slots)
    return total
