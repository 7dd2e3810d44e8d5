"""Where a guard's fault lies: the sentences, raw and cleaned, that it finds its fault in (pure).

A guard answers yes or no over a whole report. Asked again about one sentence at a time, against the same other side,
it says which sentences are at fault; so a guard that changes or is added needs nothing here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from unix.data.cleaning.guards import GUARDS, Guard, Pair
from unix.data.cleaning.sentences import split_sentences
from unix.data.sections import body_sections
from unix.records import CleanedReport

_WORD = re.compile(r"\w+")
_ABOUT_RAW = frozenset({"content_lost", "finding_lost", "number_lost", "laterality_lost"})
"""Guards that miss something: the sentence to show is the raw report's."""

_ABOUT_WHOLE = frozenset({"empty", "too_long", "too_short", "json_repaired"})
"""Guards that no single sentence sets off."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A guard that speaks: its name, what it means, and [start, end) of the sentences at fault."""

    name: str
    explanation: str
    raw: tuple[tuple[int, int], ...] = ()
    """Places in the raw report."""
    findings: tuple[tuple[int, int], ...] = ()
    impression: tuple[tuple[int, int], ...] = ()


def faults(pair: Pair) -> list[Fault]:
    """Every guard that finds its fault in the pair, gravest first, with the places where it does."""
    if not pair.text:
        return [Fault(GUARDS[0].name, GUARDS[0].explanation)]
    return [_fault(guard, pair) for guard in GUARDS if guard.finds(pair)]


def explanation(flag: str) -> str:
    """What a flag of the store means, in words."""
    known = {guard.name: guard.explanation for guard in GUARDS}
    return known.get(flag, f"The cleaning stopped with {flag.replace('_', ' ')}.")


def _fault(guard: Guard, pair: Pair) -> Fault:
    fault = Fault(guard.name, guard.explanation)
    if guard.name in _ABOUT_WHOLE:
        return fault
    if guard.name in _ABOUT_RAW:
        return replace(fault, raw=tuple(_guilty_raw(guard, pair)))
    found = [tuple(_guilty(guard, pair, text)) for text in (pair.cleaned.findings, pair.cleaned.impression)]
    if not any(found):  # only the sentences together are at fault: show those that the raw report does not have
        found = [tuple(_edited(pair, text)) for text in (pair.cleaned.findings, pair.cleaned.impression)]
    return replace(fault, findings=found[0], impression=found[1])


def _edited(pair: Pair, text: str) -> Iterator[tuple[int, int]]:
    raw = _plain(pair.raw)
    return (place for place in _places(text) if _plain(text[slice(*place)]) not in raw)


def _plain(text: str) -> str:
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _guilty(guard: Guard, pair: Pair, text: str) -> Iterator[tuple[int, int]]:
    for place in _places(text):
        alone = CleanedReport(text[slice(*place)], "")
        if guard.finds(Pair(pair.raw, alone, pair.repaired, pair.removes_priors)):
            yield place


def _guilty_raw(guard: Guard, pair: Pair) -> Iterator[tuple[int, int]]:
    for section in body_sections(pair.raw):
        for start, end in _places(pair.raw[section.body : section.end]):
            place = section.body + start, section.body + end
            if guard.finds(Pair(pair.raw[slice(*place)], pair.cleaned, pair.repaired, pair.removes_priors)):
                yield place


def _places(text: str) -> Iterator[tuple[int, int]]:
    """[start, end) of every sentence; sentences come on one line, the text has its own breaks."""
    position = 0
    for _, sentence in split_sentences(text):
        found = re.compile(r"\s+".join(map(re.escape, sentence.split()))).search(text, position)
        if found is not None:
            yield found.span()
            position = found.end()
