"""What cleaning did to a report, word by word: kept, removed (and as which kind of noise), added (pure)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from enum import StrEnum

from unix.records import RemovedSpan

_WORD = re.compile(r"(\s*)(\w+|[^\w\s])")

UNEXPLAINED = "unexplained"
"""Category of a removed word that no reported span covers."""


class Change(StrEnum):
    """The fate of a word."""

    KEPT = "kept"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring words with the same fate, with the white space before them; `category` only where removed."""

    text: str
    change: Change
    category: str = ""

    @property
    def space(self) -> str:
        """The white space that the text begins with."""
        return self.text[: len(self.text) - len(self.words)]

    @property
    def words(self) -> str:
        """The text after that white space."""
        return self.text.lstrip()


def word_diff(raw: str, cleaned: str, removed: Sequence[RemovedSpan] = ()) -> list[Run]:
    """Runs that in order spell `raw`, with the words that only `cleaned` has put in between.

    Words are compared without regard to case, so a capital at a new sentence start is no change. A removed word takes
    the category of the first span in `removed` that covers it. All characters of `raw` come back, so the removed and
    kept runs together are the raw report as written.
    """
    raw_words, clean_words = _WORD.findall(raw), _WORD.findall(cleaned)
    raw_keys, clean_keys = [word.lower() for _, word in raw_words], [word.lower() for _, word in clean_words]
    categories = _categories(raw_keys, removed)
    words: list[Run] = []
    for kept, (raw_from, raw_to), (clean_from, clean_to) in _aligned(raw_keys, clean_keys):
        for index in range(raw_from, raw_to):
            text = "".join(raw_words[index])
            words.append(Run(text, Change.KEPT) if kept else Run(text, Change.REMOVED, categories[index]))
        if not kept:
            words += [Run("".join(clean_words[index]), Change.ADDED) for index in range(clean_from, clean_to)]
    rest = raw[sum(len(space) + len(word) for space, word in raw_words) :]
    return _joined([*words, Run(rest, Change.KEPT)] if rest else words)


def _aligned(raw: list[str], clean: list[str]) -> list[tuple[bool, tuple[int, int], tuple[int, int]]]:
    """Stretches (kept, range in raw, range in clean) that cover both texts in order.

    A removed stretch can often slide: in `a . b . c` either `. b` or `b .` may have gone. See `_slide`.
    """
    aligned: list[tuple[bool, tuple[int, int], tuple[int, int]]] = []
    moved = 0
    opcodes = SequenceMatcher(None, raw, clean, autojunk=False).get_opcodes()
    for position, (tag, raw_from, raw_to, clean_from, clean_to) in enumerate(opcodes):
        if tag != "delete" or position + 1 == len(opcodes):
            aligned.append((tag == "equal", (raw_from + moved, raw_to), (clean_from + moved, clean_to)))
            moved = 0
            continue
        moved = _slide(raw, raw_from, raw_to, end=opcodes[position + 1][2])
        aligned.append((True, (raw_from, raw_from + moved), (clean_from, clean_from + moved)))
        aligned.append((False, (raw_from + moved, raw_to + moved), (clean_to + moved, clean_to + moved)))
    return aligned


def _slide(words: list[str], start: int, stop: int, end: int) -> int:
    """How far to move the removed stretch [start, stop) towards `end` so that a full stop closes it; else 0.

    That makes it what a reader would call the removed sentence, and leaves the text that remains the same.
    """
    for by in range(end - stop + 1):
        if by and words[start + by - 1] != words[stop + by - 1]:
            break
        if words[stop + by - 1] == ".":
            return by
    return 0


def _categories(raw_words: list[str], removed: Sequence[RemovedSpan]) -> list[str]:
    """Category of every raw word. Spans that occur several times take the first place not yet taken."""
    categories = [UNEXPLAINED] * len(raw_words)
    for span in removed:
        wanted = [word.lower() for _, word in _WORD.findall(span.text)]
        places = range(len(raw_words) - len(wanted) + 1) if wanted else range(0)
        for start in places:
            inside = slice(start, start + len(wanted))
            if raw_words[inside] == wanted and all(category == UNEXPLAINED for category in categories[inside]):
                categories[inside] = [span.category] * len(wanted)
                break
    return categories


def _joined(words: list[Run]) -> list[Run]:
    runs: list[Run] = []
    for word in words:
        if runs and (runs[-1].change, runs[-1].category) == (word.change, word.category):
            runs[-1] = Run(runs[-1].text + word.text, word.change, word.category)
        else:
            runs.append(word)
    return runs
