"""One study as its page shows it: coloured words, guards in words with their places, labels, sections, versions."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import polars as pl

from unix.data.cleaning.localise import Fault, explanation, faults
from unix.data.labels import label_report
from unix.data.sections import body_sections, parse_sections, split_sections
from unix.data.text_labels import report_text
from unix.evaluation.diff import UNEXPLAINED, Change, Run, word_diff
from unix.records import CHEXPERT_14, CleanedReport, RemovedSpan
from unix.web.library import ANSWER, STUDY, Cleaning, Library, View
from unix.web.reviewing import pair_of

NUM_HUES = 14
OTHER_SECTION = "other section"
"""Category of words outside findings and impression, which a cleaning drops without saying so."""
_WRAP = re.compile(r"(?<!\n)\n(?![ \t]*\n)")


class Piece(NamedTuple):
    """Neighbouring characters of a text with the same fate; `hue` numbers the colour of a removed category."""

    text: str
    change: str
    category: str = ""
    hue: str = ""
    guilty: bool = False

    @property
    def space(self) -> str:
        """The white space before the words, which is not coloured."""
        return self.text[: len(self.text) - len(self.words)]

    @property
    def words(self) -> str:
        """The text without it."""
        return self.text.lstrip()


class LabelLine(NamedTuple):
    """A class that the raw or the cleaned report mentions: 1, 0, -1 or None on either side."""

    name: str
    raw: int | None
    clean: int | None


class SectionText(NamedTuple):
    """One section as written."""

    name: str
    text: str


class Category(NamedTuple):
    """A kind of noise in the legend."""

    name: str
    hue: str
    words: int


class StudyPage(NamedTuple):
    """Everything that the page of one study shows about its reports."""

    row: dict[str, Any]
    text: CleanedReport
    edited: bool
    diff: tuple[Piece, ...]
    categories: tuple[Category, ...]
    findings: tuple[Piece, ...]
    impression: tuple[Piece, ...]
    faults: tuple[Fault, ...]
    sections: tuple[SectionText, ...]
    labels: tuple[LabelLine, ...]
    images: tuple[dict[str, Any], ...]


class Version(NamedTuple):
    """A cleaning of a study by another prompt or model, with its differences to the raw report."""

    prompt_version: str
    model: str
    status: str
    flags: tuple[str, ...]
    text: CleanedReport
    diff: tuple[Piece, ...]


def study_page(library: Library, view: View, row_number: int) -> StudyPage:
    """The page of the study in a row of the view."""
    row = view.rows.row(row_number, named=True)
    edited = row["decision"] == "edit"
    text = CleanedReport(
        row["edited_findings" if edited else "findings"] or "",
        row["edited_impression" if edited else "impression"] or "",
    )
    found = _faults(view.cleaning, row, text) if row["status"] is not None else []
    removed = spans_of(row["removed"])
    diff = diff_pieces(str(row["report_raw"]), text, removed, [place for one in found for place in one.raw])
    labels_raw = label_report(_labelled_raw(str(row["report_raw"])))
    labels_clean = label_report(report_text(text.findings, text.impression))
    images = library.images.filter(pl.col("study_id") == row["study_id"], pl.col("source") == row["source"])
    return StudyPage(
        row=row,
        text=text,
        edited=edited,
        diff=diff,
        categories=_legend(diff),
        findings=marked(text.findings, [place for one in found for place in one.findings]),
        impression=marked(text.impression, [place for one in found for place in one.impression]),
        faults=tuple(found),
        sections=tuple(_sections(str(row["report_raw"]))),
        labels=tuple(
            LabelLine(name, labels_raw[name], labels_clean[name])
            for name in CHEXPERT_14
            if labels_raw[name] is not None or labels_clean[name] is not None
        ),
        images=tuple(images.to_dicts()),
    )


def versions(library: Library, row: Mapping[str, Any]) -> list[Version]:
    """Every cleaning of the study's present report, one for each prompt and model."""
    cleaned = (
        library.store.scan("cleaned_reports")
        .filter(pl.all_horizontal(pl.col(name) == row[name] for name in ANSWER))
        .sort("created_at")
        .unique(["prompt_version", "model"], keep="last")
        .sort("prompt_version", "model")
        .collect()
    )
    return [
        Version(
            one["prompt_version"],
            one["model"],
            one["status"],
            tuple(one["flags"] or ()),
            text := CleanedReport(one["findings"] or "", one["impression"] or ""),
            diff_pieces(str(row["report_raw"]), text, spans_of(one["removed"])),
        )
        for one in cleaned.iter_rows(named=True)
    ]


def find(view: View, study: str) -> int | None:
    """The row of `source/study_id` in the view."""
    source, _, study_id = study.partition("/")
    key = {"source": source, "study_id": study_id}
    rows = view.rows.filter(*(pl.col(name) == key[name] for name in reversed(STUDY)))["row"]
    return None if rows.is_empty() else int(rows[0])


def diff_pieces(
    raw: str, text: CleanedReport, removed: Sequence[RemovedSpan], guilty: Sequence[tuple[int, int]] = ()
) -> tuple[Piece, ...]:
    """The raw report's words by their fate, those of guilty places marked; added words in between."""
    shown = _WRAP.sub(" ", raw)  # as long as `raw`: places stay where they are
    cleaned = f"{text.findings}\n\n{text.impression}".strip()
    bodies = [(span.body, span.end) for span in body_sections(raw)]
    pieces: list[Piece] = []
    position = 0
    for run in word_diff(shown, cleaned, removed):
        if run.change is Change.ADDED:
            pieces.append(Piece(run.text, run.change.value))
            continue
        pieces += _cut(run, position, guilty, bodies)
        position += len(run.text)
    return tuple(pieces)


def marked(text: str, guilty: Sequence[tuple[int, int]]) -> tuple[Piece, ...]:
    """A cleaned text with its guilty places marked."""
    return tuple(_cut(Run(text, Change.KEPT), 0, guilty)) if text else ()


def spans_of(removed: Iterable[Mapping[str, str]] | None) -> list[RemovedSpan]:
    """The removed spans of a row."""
    return [RemovedSpan(span["text"] or "", span["category"] or UNEXPLAINED) for span in removed or ()]


def hue(category: str) -> str:
    """The number of a category's colour: always the same, and the common categories differ."""
    known = (
        *("header", "technique", "indication", "comparison", "prior_comparison", "prior_reference"),
        *("deidentification", "notification", "dictation", "signature", "wet_read", "addendum", "duplicate", "filler"),
    )
    if category in (UNEXPLAINED, OTHER_SECTION):
        return category.replace(" ", "-")
    return str(known.index(category) if category in known else sum(category.encode()) % NUM_HUES)


def _cut(
    run: Run, start: int, guilty: Sequence[tuple[int, int]], bodies: Sequence[tuple[int, int]] = ()
) -> Iterable[Piece]:
    """The run in pieces that lie wholly inside or outside of every guilty place and, where nobody said why they were
    removed, of the report's bodies.
    """
    end = start + len(run.text)
    unexplained = run.change is Change.REMOVED and run.category == UNEXPLAINED
    places = [*guilty, *(bodies if unexplained else ())]
    cuts = sorted({start, end, *(edge for place in places for edge in place if start < edge < end)})
    for low, high in pairwise(cuts):
        inside = any(place[0] <= low and high <= place[1] for place in guilty)
        outside = unexplained and not any(place[0] <= low and high <= place[1] for place in bodies)
        category = OTHER_SECTION if outside else run.category
        colour = hue(category) if run.change is Change.REMOVED else ""
        yield Piece(run.text[low - start : high - start], run.change.value, category, colour, inside)


def _faults(cleaning: Cleaning | None, row: Mapping[str, Any], text: CleanedReport) -> list[Fault]:
    """What the guards say now, and what else the store's flags say of a text that nobody has edited."""
    found = faults(pair_of(row, cast(Cleaning, cleaning), text)) if row["status"] != "failed" else []
    stored = [] if row["decision"] == "edit" else cast(list[str], row["flags"] or [])
    names = {one.name for one in found}
    return [*found, *(Fault(flag, explanation(flag)) for flag in stored if flag not in names)]


def _labelled_raw(report: str) -> str:
    sections = parse_sections(report)
    return report_text(sections.findings, sections.impression, report)


def _legend(pieces: Iterable[Piece]) -> tuple[Category, ...]:
    words: dict[str, int] = {}
    for piece in pieces:
        if piece.change == Change.REMOVED:
            words[piece.category] = words.get(piece.category, 0) + len(piece.text.split())
    return tuple(Category(name, hue(name), count) for name, count in sorted(words.items(), key=lambda one: -one[1]))


def _sections(report: str) -> Iterable[SectionText]:
    for span in split_sections(report):
        if text := report[span.body : span.end].strip():
            yield SectionText(span.name, _WRAP.sub(" ", text))
