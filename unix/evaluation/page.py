"""Writes the HTML report: one file, nothing loaded from elsewhere, light and dark, every text escaped."""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from unix.evaluation import charts
from unix.evaluation.diff import UNEXPLAINED, Change, Run, word_diff
from unix.evaluation.page_inputs import CleaningExample, MetricRow, PageInputs
from unix.manifest import write_atomically
from unix.records import CHEXPERT_14, Labels

_LINE_BREAK = re.compile(r"(?<!\n)[ \t]*\n[ \t]*(?![ \t]*\n)")
"""A line break inside a paragraph: raw reports wrap at 80 columns, which would leave ragged lines on the page."""

_HUES = (28, 205, 315, 92, 235, 355, 150, 272, 52, 178, 335, 120, 12, 220)
"""Colours of noise categories, neighbours far apart; further categories share them."""


@dataclass(frozen=True, slots=True)
class Chip:
    """A class as a chip: `hit` on both sides, `missed` only in the reference, `invented` only in the prediction."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class ShownExample:
    """A cleaning example with its coloured words."""

    example: CleaningExample
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of noise in the legend: what its style is called, and how many words of the examples it took."""

    name: str
    colour: str
    words: int


def write_page(inputs: PageInputs, path: str | Path) -> Path:
    """Render the demo's report and publish it at `path` by rename; returns the path."""
    return publish_page(render(inputs), path)


def publish_page(html: str, path: str | Path) -> Path:
    """Publish a page at `path` by rename; returns the path."""
    target = Path(path)
    write_atomically(target, html.encode())
    return target


def render(inputs: PageInputs) -> str:
    """The demo's report as HTML; the same inputs give the same text."""
    examples = [_shown(example) for example in inputs.cleaning]
    return render_template(
        "report.html.j2",
        page=inputs,
        groups=_groups(inputs.metrics),
        examples=examples,
        categories=_categories(examples),
        charts=[(stage, charts.line_chart(stage.stage, stage.series)) for stage in inputs.curves],
        chart_size=(charts.WIDTH, charts.HEIGHT),
    )


def render_template(name: str, **values: object) -> str:
    """A page from one of the package's templates: every value escaped, and an undefined one an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("unix.evaluation", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(hues=_HUES, chips=label_chips, data_uri=_data_uri, **values)


def label_chips(reference: Labels, predicted: Labels) -> list[Chip]:
    """The classes that either side mentions as present (uncertain counts), in CHEXPERT_14's order."""
    chips: list[Chip] = []
    for name in CHEXPERT_14:
        wanted, said = reference[name] in (1, -1), predicted[name] in (1, -1)
        if wanted or said:
            chips.append(Chip(name, "hit" if wanted and said else "missed" if wanted else "invented"))
    return chips


def _groups(rows: Sequence[MetricRow]) -> dict[str, list[MetricRow]]:
    groups: dict[str, list[MetricRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def _shown(example: CleaningExample) -> ShownExample:
    flowing = _LINE_BREAK.sub(" ", example.raw.strip())
    return ShownExample(example, tuple(word_diff(flowing, example.cleaned, example.removed)))


def _categories(examples: Sequence[ShownExample]) -> dict[str, Category]:
    """The categories of all removed words, the largest first; colours go by alphabet, so that they stay put."""
    words: Counter[str] = Counter()
    for shown in examples:
        for run in shown.runs:
            if run.change is Change.REMOVED:
                words[run.category] += len(run.text.split())
    colours = {name: str(index % len(_HUES)) for index, name in enumerate(sorted(words.keys() - {UNEXPLAINED}))}
    return {name: Category(name, colours.get(name, UNEXPLAINED), count) for name, count in words.most_common()}


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
