"""Phrase notation and the expression compiled from it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.phrases import PhraseBook, expand


@pytest.mark.parametrize(
    ("pattern", "phrases"),
    [
        ("lung", ["lung"]),
        ("{left,right} lung", ["left lung", "right lung"]),
        ("{left,} lung", ["left lung", "lung"]),
        ("{a,b} {c,d}", ["a c", "a d", "b c", "b d"]),
        ("opaci{ty,ties}", ["opacity", "opacities"]),
    ],
)
def test_alternatives_are_written_out(pattern: str, phrases: list[str]) -> None:
    assert expand(pattern) == phrases


def test_the_longest_phrase_wins_and_stems_complete_the_word() -> None:
    book = PhraseBook({"pleural": 1, "pleural effusion": 2, "atelecta*": 3})
    found = [book.meaning(match[0]) for match in re.finditer(book.pattern(), "pleural effusion, pleural atelectasis")]
    assert found == [2, 1, 3]
    assert not re.search(book.pattern(), "subpleurals")


words = st.text(alphabet="abc ", min_size=1, max_size=6).map(lambda text: " ".join(text.split())).filter(bool)


@given(st.lists(words, min_size=1, max_size=20, unique=True))
def test_every_phrase_is_found_whole(phrases: list[str]) -> None:
    book = PhraseBook({phrase: phrase for phrase in phrases})
    for phrase in phrases:
        match = re.fullmatch(book.pattern(), phrase)
        assert match is not None
        assert book.meaning(match[0]) == phrase
