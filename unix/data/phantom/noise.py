"""Lays a clean report out as a dictated one, with noise of every category, and keeps account of each piece of noise.

A section is a list of pieces; a piece is clean text or noise with its category. The raw report is the pieces wrapped
and indented as hospital systems do; the truth is the same pieces told apart. What is noise: whole sections that are
neither findings nor impression, and within these two every sentence or fragment inserted here. Words such as
"unchanged" inside a finding's own sentence are clean.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from unix.config import Config
from unix.data.phantom.draws import Draws
from unix.data.phantom.grammar import CleanText, Options, check_phrases, expand
from unix.data.phantom.study import Projection
from unix.records import RemovedSpan

_WIDTH = 78
_TITLE_INDENT = " " * 33
_RULE = " " + "_" * 62

_SHARES = {
    "wet_read": 0.08,
    "addendum": 0.08,
    "duplicate": 0.07,
    "header": 0.10,
    "technique": 0.22,
    "prior_comparison": 0.22,
    "notification": 0.16,
    "dictation": 0.10,
    "signature": 0.12,
    "filler": 0.12,
    "blank": 0.15,
}
"""How often each category is injected into a report."""


class SectionHeaders(Config):
    """Headers of the sections that are noise as a whole."""

    examination: tuple[str, ...] = Field(default=("EXAMINATION:", "EXAMINATION:", "EXAM:", "STUDY:"), min_length=1)
    indication: tuple[str, ...] = Field(
        default=("INDICATION:", "INDICATION:", "HISTORY:", "REASON FOR EXAM:"), min_length=1
    )
    technique: tuple[str, ...] = Field(default=("TECHNIQUE:",), min_length=1)
    comparison: tuple[str, ...] = Field(default=("COMPARISON:",), min_length=1)
    wet_read: tuple[str, ...] = Field(default=("WET READ:",), min_length=1)
    addendum: tuple[str, ...] = Field(default=("ADDENDUM:",), min_length=1)


class Noise(Config):
    """The content of `noise.yaml`."""

    titles: Options
    sections: SectionHeaders = SectionHeaders()
    examinations: dict[str, Options]
    indications: Options
    techniques: dict[str, Options]
    comparisons: Options
    technique: dict[str, Options]
    acquisition: Options
    prior_comparison: Options
    notification: Options
    dictation: Options
    signature: Options
    filler: Options
    addendum: Options
    wet_readers: Options
    blanks: dict[str, Options]
    headers: dict[str, Options]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        clock = frozenset({"clock"})
        for field, names in (
            ("examinations", tuple(Projection)),
            ("techniques", tuple(Projection)),
            ("technique", tuple(Projection)),
            ("blanks", ("between", "within")),
            ("headers", ("findings", "impression")),
        ):
            held: dict[str, list[str]] = getattr(self, field)
            if missing := sorted(set(names) - set(held)):
                raise ValueError(f"{field} lacks {', '.join(missing)}")
            for texts in held.values():
                check_phrases(texts, clock)
        for field in (
            *("indications", "comparisons", "acquisition", "prior_comparison", "notification", "dictation"),
            *("signature", "filler", "addendum", "wet_readers"),
        ):
            check_phrases(getattr(self, field), clock)
        return self


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text; `category` is None where it belongs to the clean report."""

    text: str
    category: str | None = None


@dataclass(frozen=True, slots=True)
class NoisyReport:
    """A report as a hospital would hold it, and what in it is noise."""

    text: str
    noise: tuple[RemovedSpan, ...]


@cache
def noise_book(wording: str | None = None) -> Noise:
    """The noise in the folder `wording`, or the package's own.

    Raises:
        ConfigError: `noise.yaml` is missing there or malformed; the message names file, field and phrase.
    """
    return Noise.load(Path(wording or Path(__file__).parent) / "noise.yaml")


def write_raw_report(clean: CleanText, projection: Projection, draws: Draws, wording: str | None = None) -> NoisyReport:
    """Surround and interrupt the clean sentences with noise, and lay the whole out in MIMIC's manner."""
    return _Writer(draws, projection, noise_book(wording)).write(clean)


class _Writer:
    """One report in the making: the text so far and the noise in it."""

    def __init__(self, draws: Draws, projection: Projection, book: Noise) -> None:
        self._draws = draws
        self._projection = projection
        self._book = book
        self._blocks: list[str] = []
        self._noise: list[RemovedSpan] = []

    def write(self, clean: CleanText) -> NoisyReport:
        has_addendum, leads = self._injects("addendum"), self._draws.chance(0.4)
        if has_addendum and leads:
            self._add_addendum()
            self._blocks.append(_RULE)
        if self._injects("wet_read"):
            self._add_wet_read(clean)
            self._blocks.append(_RULE)
        title = self._draws.choose(self._book.titles)
        self._blocks.append(_TITLE_INDENT + title)
        self._noise.append(RemovedSpan(title, "header"))
        self._add_preamble()
        findings, impression = self._interrupt(clean)
        self._add_section("findings", "FINDINGS:", findings)
        self._add_section("impression", "IMPRESSION:", impression)
        if self._injects("duplicate"):
            self._add_duplicate(clean)
        if has_addendum and not leads:
            self._add_addendum()
        return NoisyReport("\n \n".join(self._blocks) + "\n", tuple(self._noise))

    def _add_preamble(self) -> None:
        header = self._header(self._book.sections.examination)
        self._add_noise_section(header, self._say(self._book.examinations[self._projection]), "technique")
        header = self._header(self._book.sections.indication)
        self._add_noise_section(header, self._say(self._book.indications), "indication")
        if self._draws.chance(0.6):
            header = self._header(self._book.sections.technique)
            self._add_noise_section(header, self._say(self._book.techniques[self._projection]), "technique")
        if self._draws.chance(0.8):
            header = self._header(self._book.sections.comparison)
            self._add_noise_section(header, self._say(self._book.comparisons), "prior_comparison")

    def _interrupt(self, clean: CleanText) -> tuple[list[Piece], list[Piece]]:
        """The two sections' pieces with noise put among them; an absent section stays empty."""
        findings = [Piece(sentence) for sentence in clean.findings]
        impression = [Piece(sentence) for sentence in clean.impression]
        sections = [section for section in (findings, impression) if section]
        first, last = sections[0], sections[-1]
        if self._injects("blank"):
            self._blank_out(first)
        if self._injects("filler"):
            place = self._draws.below(len(last)) + 1
            last.insert(place, Piece(self._say(self._book.filler), "filler"))
        for category, sentences in (
            ("prior_comparison", self._book.prior_comparison),
            ("technique", self._book.technique[self._projection] + self._book.acquisition),
        ):
            if self._injects(category):
                first.insert(0, Piece(self._say(sentences), category))
        for category, sentences in (
            ("notification", self._book.notification),
            ("dictation", self._book.dictation),
            ("signature", self._book.signature),
        ):
            if self._injects(category):
                last.append(Piece(self._say(sentences), category))
        return findings, impression

    def _blank_out(self, pieces: list[Piece]) -> None:
        """Leave a de-identification blank between two sentences or within one."""
        place = self._draws.below(len(pieces))
        if self._draws.chance(0.5):
            pieces.insert(place + 1, Piece(self._draws.choose(self._book.blanks["between"]), "blank"))
            return
        blank = self._draws.choose(self._book.blanks["within"])
        pieces[place] = Piece(f"{pieces[place].text.removesuffix('.')} {blank}.")
        self._noise.append(RemovedSpan(blank, "blank"))

    def _add_wet_read(self, clean: CleanText) -> None:
        told = (clean.impression or clean.findings)[:2]
        text = f"{self._say(self._book.wet_readers)} {' '.join(told)}"
        self._add_noise_section(self._header(self._book.sections.wet_read), text, "wet_read")

    def _add_addendum(self) -> None:
        self._add_noise_section(self._header(self._book.sections.addendum), self._say(self._book.addendum), "addendum")

    def _add_duplicate(self, clean: CleanText) -> None:
        name, sentences = ("FINDINGS:", clean.findings) if not clean.impression else ("IMPRESSION:", clean.impression)
        self._add_noise_section(name, " ".join(sentences), "duplicate")

    def _add_section(self, name: str, header: str, pieces: list[Piece]) -> None:
        if not pieces:
            return
        if self._injects("header"):
            header = self._draws.choose(self._book.headers[name])
            self._noise.append(RemovedSpan(header, "header"))
        for piece in pieces:
            if piece.category is not None:
                self._noise.append(RemovedSpan(piece.text, piece.category))
        body = " ".join(piece.text for piece in pieces)
        if self._draws.chance(0.5):
            self._blocks.append(f" {header} \n \n{_wrapped(body)}")
        else:
            self._blocks.append(_wrapped(f"{header} {body}"))

    def _add_noise_section(self, header: str, body: str, category: str) -> None:
        self._blocks.append(_wrapped(f"{header} {body}"))
        self._noise.append(RemovedSpan(f"{header} {body}", category))

    def _header(self, options: tuple[str, ...]) -> str:
        return options[0] if len(options) == 1 else self._draws.choose(options)

    def _injects(self, category: str) -> bool:
        return self._draws.chance(_SHARES[category])

    def _say(self, phrases: list[str]) -> str:
        phrase = self._draws.choose(phrases)
        if "{clock}" not in phrase:
            return expand(phrase, {}, self._draws)
        return expand(phrase, self._clock(), self._draws).replace(".m..", ".m.")

    def _clock(self) -> dict[str, str]:
        hour, minute = 1 + self._draws.below(12), self._draws.below(60)
        return {"clock": f"{hour}:{minute:02d} {'a.m.' if self._draws.chance(0.5) else 'p.m.'}"}


def _wrapped(text: str) -> str:
    """Single-spaced text in lines of at most `_WIDTH` characters, each after one space."""
    lines: list[str] = []
    start = 0
    while len(text) - start > _WIDTH:
        stop = text.rfind(" ", start, start + _WIDTH + 1)
        lines.append(f" {text[start:stop]}")
        start = stop + 1
    lines.append(f" {text[start:]}")
    return "\n".join(lines)
