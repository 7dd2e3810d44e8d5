"""Phrase lists compiled into one regular expression: thousands of phrases are looked for in a single pass."""

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from unix.errors import ConfigError

Meaning = TypeVar("Meaning")

_BRACES = re.compile(r"\{([^{}]*)\}")


def expand(pattern: str) -> list[str]:
    """Write out `{a,b}` alternatives, of which one may be empty: `{left,} lung` -> `left lung`, `lung`."""
    parts = _BRACES.split(pattern)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return [" ".join("".join(combination).split()) for combination in itertools.product(*choices)]


def phrase_expression(patterns: Iterable[str]) -> str:
    """An expression that matches the longest phrase of a list at a word's beginning, in lower-case text."""
    return r"\b" + _alternatives(phrase for pattern in patterns for phrase in expand(pattern)) + r"\b"


@dataclass(frozen=True)
class PhraseBook(Generic[Meaning]):
    """Phrases with their meanings. A phrase ending in `*` stands for every word that begins so."""

    meanings: Mapping[str, Meaning]
    _seen: dict[str, Meaning] = field(default_factory=dict[str, Meaning], init=False, repr=False, compare=False)

    def pattern(self) -> str:
        """An expression that matches the longest phrase at a word's beginning, in lower-case text."""
        return r"\b" + _alternatives(self.meanings) + r"\b"

    def meaning(self, matched: str) -> Meaning:
        """The meaning of a text that `pattern` matched."""
        found = self._seen.get(matched)
        if found is None:
            found = self._seen[matched] = self._look_up(matched)
        return found

    def _look_up(self, matched: str) -> Meaning:
        if matched in self.meanings:
            return self.meanings[matched]
        for length in range(len(matched), 0, -1):
            if (stem := matched[:length] + "*") in self.meanings:
                return self.meanings[stem]
        raise ConfigError(f"no phrase stands for the {len(matched)} characters that were matched")


class _Node(dict[str, "_Node"]):
    """A trie's node: the next character -> node; `end` and `stem` say whether a phrase may stop here."""

    end = False
    stem = False


def _alternatives(phrases: Iterable[str]) -> str:
    root = _Node()
    for phrase in phrases:
        node = root
        for character in phrase.removesuffix("*"):
            node = node.setdefault(character, _Node())
        if phrase.endswith("*"):
            node.stem = True
        else:
            node.end = True
    return _expression(root)


def _expression(node: _Node) -> str:
    branches = [re.escape(character) + _expression(child) for character, child in sorted(node.items())]
    if node.stem:
        branches.append(r"\w*")
    if not branches:
        return ""
    joined = branches[0] if len(branches) == 1 else "|".join(branches)
    if node.end and not node.stem:
        return f"(?:{joined})?"
    return joined if len(branches) == 1 else f"(?:{joined})"
