"""Report text into sentences: wrapped lines joined, paragraphs and list items apart."""

import re
from collections.abc import Iterator
from typing import NamedTuple

_PARAGRAPH = re.compile(r"\n[ \t\r]*\n|\n(?=[ \t]*(?:\d{1,2}[.)]|[-*\u2022])[ \t])")
_LIST_NUMBER = re.compile(r"^(?:\d{1,2}[.)]|[-*\u2022])(?=\s)")
_END = re.compile(
    r"""
    (?<![\s(]Dr)(?<!^Dr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bvs)(?<!\bNo)(?<!\bSt)(?<!\bapprox)(?<!\bFig)(?<!\bFigs)(?<!\bet\sal)
    (?<!\b[A-Za-z])(?<!\ba\.m)(?<!\bp\.m)(?<!\bM\.D)(?<!\be\.g)(?<!\bi\.e)
    (?:[.!?]+["')\]]*\s+(?=\S)|(?<=[a-z]{3})\.(?=[A-Z][a-z]+\s))
    """,
    re.VERBOSE,
)
_CLOCK_END = re.compile(r"\b(?:[ap]\.m|M\.D|[A-Za-z])\.\s+(?=[A-Z][a-z]+\b(?!\s*,?\s*M\.?D))")
_ITEM = re.compile(r"(?<=[.;:)_])\s+(?=\d{1,2}[.)]\s+[A-Z])")


_LETTER_OR_DIGIT = re.compile(r"[^\W_]|_{2,}")


class Sentence(NamedTuple):
    """A sentence on one line, never without a word or blank, and the list number or bullet before it ("" for none)."""

    number: str
    text: str


def split_sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a section, in order."""
    for paragraph in _PARAGRAPH.split(text):
        line = " ".join(paragraph.split())
        for item in _ITEM.split(line):
            match = _LIST_NUMBER.match(item)
            number = match[0] if match is not None else ""
            for sentence in _sentences(item[len(number) :]):
                if _LETTER_OR_DIGIT.search(sentence := sentence.strip()):
                    yield Sentence(number, sentence)
                    number = ""


def _sentences(line: str) -> Iterator[str]:
    ends = sorted({match.end() for match in _END.finditer(line)} | {match.end() for match in _CLOCK_END.finditer(line)})
    start = 0
    for end in ends:
        yield line[start:end]
        start = end
    yield line[start:]
