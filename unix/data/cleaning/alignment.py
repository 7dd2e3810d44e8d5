"""A cleaned report held against its raw report, sentence by sentence: what was edited, and what is gone.

A sentence that stands in the raw report word for word, as often as it stands there, is unchanged. Every other one is an
edit of the raw sentence that it resembles most; the raw sentences that nothing is left of, or only a part, are losses.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from unix.data.cleaning.sentences import split_sentences
from unix.data.labels import Mention, find_mentions
from unix.data.sections import body_sections
from unix.records import CleanedReport

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)?")
_ALIKE = 0.3
"""Share of words in common from which a sentence may be what is left of another."""
_MERGED = 0.6
"""Share of the words of neighbouring sentences that one which runs over their ends must have kept."""


class Sentence(NamedTuple):
    """A sentence's words in lower case, without its list number, and the text that they come from."""

    words: tuple[str, ...]
    text: str
    section: str = ""
    """`findings` or `impression`; "" where one of the two texts does not tell them apart."""

    @property
    def key(self) -> tuple[tuple[str, ...], str]:
        """What makes two sentences the same."""
        return self.words, self.section


class Edit(NamedTuple):
    """A sentence of the cleaning that the raw report does not have, and the raw sentences that it comes from."""

    sentence: Sentence
    origin: Sentence
    places: range
    """Where the origin stands in the raw body; several places where the sentence runs over a sentence's end."""


class Loss(NamedTuple):
    """A sentence of the raw report that the cleaning does not have, and what is left of it."""

    origin: Sentence
    rest: tuple[str, ...]
    rest_text: str

    @property
    def words(self) -> str:
        """The words that are gone, in their order."""
        rest = Counter(self.rest)
        gone: list[str] = []
        for word in self.origin.words:
            if rest[word]:
                rest[word] -= 1
            else:
                gone.append(word)
        return " ".join(gone)


@dataclass(frozen=True)
class Pair:
    """A raw report and its cleaning, with what several guards need of them."""

    raw: str
    cleaned: CleanedReport
    repaired: bool = False
    """The answer's JSON had to be taken out of other text."""
    removes_priors: bool = False
    """The prompt asked for the removal of references to earlier studies."""

    @cached_property
    def text(self) -> str:
        """Findings and impression of the cleaning."""
        return f"{self.cleaned.findings}\n\n{self.cleaned.impression}".strip()

    @cached_property
    def _sections(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Section and text of the raw body and of the cleaning; no section's name where only one of them has both."""
        raw = [(span.name, self.raw[span.body : span.end]) for span in body_sections(self.raw)]
        cleaned = [("findings", self.cleaned.findings), ("impression", self.cleaned.impression)]
        cleaned = [(name, text) for name, text in cleaned if text.strip()]
        if {name for name, _ in raw} == {name for name, _ in cleaned}:
            return raw, cleaned
        return [("", text) for _, text in raw], [("", text) for _, text in cleaned]

    @cached_property
    def body(self) -> list[Sentence]:
        """Sentences of the raw report's findings and impression, or of what stands for them."""
        return [sentence for section, text in self._sections[0] for sentence in _sentences(text, section)]

    @cached_property
    def kept(self) -> list[Sentence]:
        """Sentences of the cleaning."""
        return [sentence for section, text in self._sections[1] for sentence in _sentences(text, section)]

    @cached_property
    def gone(self) -> list[int]:
        """Places in `body` of the sentences that the cleaning does not have word for word."""
        known = {sentence.key for sentence in self.kept}
        return [place for place, sentence in enumerate(self.body) if sentence.key not in known]

    @cached_property
    def edits(self) -> list[Edit]:
        """Sentences of the cleaning that the raw report does not have word for word, or less often."""
        if not self.body:
            return []
        left = Counter(sentence.key for sentence in self.body)
        edits: list[Edit] = []
        for sentence in self.kept:
            if left[sentence.key]:
                left[sentence.key] -= 1
            elif (edit := self._edit(sentence)) is not None:
                edits.append(edit)
        return edits

    def _edit(self, sentence: Sentence) -> Edit | None:
        """The sentence with its likeliest origin; None where it repeats another and stands for none that is gone."""
        words = set(sentence.words)
        likeness = [_likeness(words, other) for other in self.body]
        place = max(self.gone, key=lambda place: likeness[place], default=0)
        if any(sentence.words == other.words for other in self.body) and (not self.gone or likeness[place] < _ALIKE):
            return None
        if not self.gone or likeness[place] < _ALIKE:
            place = max(range(len(self.body)), key=lambda place: likeness[place])
        for first, last in ((place, place), (place - 1, place), (place, place + 1), (place - 1, place + 1)):
            if first >= 0 and last < len(self.body):
                joined = tuple(word for origin in self.body[first : last + 1] for word in origin.words)
                merged = first == last or len(sentence.words) >= _MERGED * len(joined)
                if merged and is_subsequence(sentence.words, joined):
                    text = " ".join(origin.text for origin in self.body[first : last + 1])
                    return Edit(sentence, Sentence(joined, text), range(first, last + 1))
        return Edit(sentence, self.body[place], range(place, place + 1))

    @cached_property
    def losses(self) -> list[Loss]:
        """Sentences of the raw body that are gone, each with what is left of it."""
        rest: dict[int, list[Sentence]] = {}
        for edit in self.edits:
            for place in edit.places:
                rest.setdefault(place, []).append(edit.sentence)
        distinct = {self.body[place].key: place for place in self.gone}
        return [
            Loss(
                self.body[place],
                tuple(word for sentence in rest.get(place, ()) for word in sentence.words),
                " ".join(f"{sentence.text.rstrip('.')}." for sentence in rest.get(place, ())),
            )
            for place in distinct.values()
        ]

    @cached_property
    def excess(self) -> Counter[str]:
        """Words that the cleaning has more often than the raw report."""
        counts = Counter(word for sentence in self.kept for word in sentence.words)
        counts.subtract(words_of(self.raw))
        return +counts

    @cached_property
    def kept_mentions(self) -> list[Mention]:
        """What the cleaning names."""
        return find_mentions(self.text)


def words_of(text: str) -> list[str]:
    """The words and numbers of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower())


def _sentences(text: str, section: str) -> Iterator[Sentence]:
    for _, sentence in split_sentences(_with_items_apart(text)):
        if words := words_of(sentence):
            yield Sentence(tuple(words), sentence, section)


def _with_items_apart(text: str) -> str:
    """A numbered list in a running line, each item on a line of its own: its numbers measure nothing."""
    number, place = 1, 0
    if not text.lstrip().startswith(("1.", "1)")):
        return text
    parts: list[str] = []
    while match := re.compile(rf"(?:^|(?<=\s)){number}[.)]\s+(?=\D)").search(text, place):
        parts.append(text[place : match.start()])
        number, place = number + 1, match.end()
    return "\n\n".join([*parts, text[place:]])


def _likeness(words: set[str], other: Sentence) -> float:
    shared = len(words.intersection(other.words))
    return shared / (len(words) + len(other.words) - shared) if shared else 0.0


def is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    """Whether the words of one text stand in another in their order, with others between them or not."""
    remaining = iter(whole)
    return all(word in remaining for word in part)
