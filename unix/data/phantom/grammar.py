"""Writes the clean findings and impression of a study: phrases composed from the findings' severity, side and zone.

The words are in `phrases.yaml`, the package's own or another wording's; this module parses them once into trees of
choices and walks them with seeded draws.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Self, TypeAlias

from pydantic import Field, model_validator

from unix.config import Config
from unix.data.phantom.draws import Draws
from unix.data.phantom.findings import Device, Finding, Severity, Side, Zone
from unix.records import CHEXPERT_14, Labels, no_labels

_WORDS_WANTED = (25, 40)
_NO_FINDINGS_SHARE = 0.08
_NO_IMPRESSION_SHARE = 0.08
_NUMBERED_SHARE = 0.15
_IMPRESSION_DENIAL_SHARE = 0.15

_LUNGS = frozenset(
    {"Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Lung Opacity", "Pneumonia", "Pneumothorax"}
    | {"Pleural Effusion", "Pleural Other"}
)


Options = Annotated[list[str], Field(min_length=1)]


class _Wording(Config):
    seen: Options
    doubted: Options
    stated: Options
    suspected: Options


class _ClassPhrases(_Wording):
    severity: dict[str, str]
    both: _Wording | None = None

    def wording(self, side: Side) -> _Wording:
        """The phrases for this side."""
        return self.both if side == Side.BOTH and self.both is not None else self


class _DevicePhrases(Config):
    seen: Options
    stated: Options


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
    absent: Annotated[list[_Denial], Field(min_length=1)]
    normal: Options
    clear: Options
    nothing: Options

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        wanted: list[tuple[str, Iterable[str], Iterable[str]]] = [
            ("at", ("one", "both"), self.at),
            ("place", ("one", "both"), self.place),
            ("zone_words", (zone for zone in Zone if zone), self.zone_words),
            ("classes", (name for name in CHEXPERT_14 if name not in ("No Finding", "Support Devices")), self.classes),
            ("devices", Device, self.devices),
            *((f"classes.{name}.severity", Severity, own.severity) for name, own in self.classes.items()),
        ]
        for field, names, held in wanted:
            if missing := sorted(set(names) - set(held)):
                raise ValueError(f"{field} lacks {', '.join(missing)}")
        if unknown := {name for denial in self.absent for name in denial.denies} - set(CHEXPERT_14):
            raise ValueError(f"absent denies {', '.join(sorted(unknown))}, which is no class")
        fixed = [*self.normal, *self.clear, *self.nothing, *(denial.text for denial in self.absent)]
        check_phrases(fixed, frozenset())
        check_phrases((*self.zone_words.values(), self.note), frozenset())
        check_phrases((*self.at.values(), *self.place.values()), frozenset({"side", "zone", "zone_words"}))
        for own in self.classes.values():
            check_phrases(own.severity.values(), frozenset())
            for wording in (own, own.both or own):
                check_phrases((*wording.seen, *wording.doubted, *wording.stated, *wording.suspected), _SLOTS)
        for device in self.devices.values():
            check_phrases((*device.seen, *device.stated), frozenset({"side", "note"}))
        return self


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
_SLOT_NAME = re.compile(r"\{(\w+)\}")
_SLOTS = frozenset({"severity", "side", "zone", "zone_words", "at", "place", "note"})


@cache
def phrases(wording: str | None = None) -> Phrases:
    """The phrases in the folder `wording`, or the package's own.

    Raises:
        ConfigError: `phrases.yaml` is missing there or malformed; the message names file, field and phrase.
    """
    return Phrases.load(Path(wording or Path(__file__).parent) / "phrases.yaml")


def write_clean_text(findings: tuple[Finding, ...], draws: Draws, wording: str | None = None) -> CleanText:
    """Findings (25 to 45 words) and impression of a study with these findings, in the words of the folder `wording`."""
    book = phrases(wording)
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


def count_phrasings(finding: Finding, wording: str | None = None) -> int:
    """How many different sentences the findings section may hold for this finding."""
    book = phrases(wording)
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


def check_phrases(texts: Iterable[str], slots: frozenset[str]) -> None:
    """Raise ValueError for a phrase with unbalanced brackets, or with a slot that is not among `slots`."""
    for text in texts:
        if unknown := set(_SLOT_NAME.findall(text)) - slots:
            raise ValueError(f"the phrase {text!r} has the unknown slot {{{min(unknown)}}}")
        _parsed(text)


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
                if position == len(tokens):
                    raise ValueError(f"unbalanced brackets in the phrase {''.join(tokens)!r}")
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
