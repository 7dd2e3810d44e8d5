"""A report taken apart at its UPPERCASE headers, agreeing with the section parser that MIT-LCP publishes for MIMIC-CXR.

The agreed behaviour: a header is an uppercase run followed by a colon at the start of a line; its name is normalised
through a table (synonyms and the misspellings that occur); a view named as header introduces findings; of several
sections with one name the last that is not empty counts; and a report with neither findings nor impression has a
`last_paragraph`. Here a header may also stand on the report's first line, or directly below another header.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from unix.records import Sections

PREAMBLE = "preamble"
"""Name of the text before the first header."""
FULL_REPORT = "full report"
"""Name of the only section of a report without any header."""
LAST_PARAGRAPH = "last_paragraph"
"""Name of what follows the first paragraph of the last section, where there is neither findings nor impression."""

_HEADER = re.compile(r"(?:^|\n)[ \t]*([A-Z][A-Z ()/,-]*):(?=\s|$)")
_LOOSE_HEADER = re.compile(
    r"^[ \t]*(?P<header>[A-Za-z](?:[A-Za-z]| (?! )){3,22}?)[ \t]*(?P<end>:|[;.=-](?=\s)|$)"
    r"|(?<=[.!?] )(?P<inline>FINDINGS?|IMPRESSIONS?|CONCLUSIONS?):(?=\s)",
    re.MULTILINE,
)
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")

_SYNONYMS: dict[str, tuple[str, ...]] = {
    "findings": (
        "findings",
        "finding",
        "reference findings",
        "chest, two views",
        "findins",
        "findindgs",
        "findgings",
        "findngs",
        "findnings",
        "finidngs",
        "fidings",
        "findigs",
        "findinsg",
        "fndings",
    ),
    "impression": (
        "impression",
        "impressions",
        "conclusion",
        "findings and impression",
        "findings/impression",
        "findings/ impression",
        "findings / impression",
        "impresson",
        "imprression",
        "imoression",
        "impressoin",
        "imprssion",
        "impresion",
        "imperssion",
        "mpression",
        "impession",
        "impresssion",
        "impresison",
        "ipmression",
    ),
    "indication": (
        "indication",
        "indications",
        "ndication",
        "idication",
        "indcation",
        "reason for exam",
        "reason for examination",
        "clinical indication",
    ),
    "history": ("history", "clinical history", "patient history", "clinical information", "pfi"),
    "examination": ("examination", "exam", "type of examination", "study"),
    "technique": ("technique", "techinque", "tecnique"),
    "comparison": (
        "comparison",
        "comparisons",
        "comparision",
        "comparisions",
        "comparsion",
        "comparrison",
        "comparison exam",
        "comparison film",
        "reference exam",
    ),
    "notification": ("notification",),
    "addendum": ("addendum",),
    "wet read": ("wet read", "wetread"),
    "recommendations": ("recommendations", "recommendation", "recommendation(s)"),
    "comment": ("comment",),
    "date": ("date",),
}
_NAME = {synonym: name for name, synonyms in _SYNONYMS.items() for synonym in synonyms}
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
_FUZZY = (
    ("findings", "findings"),
    ("impression", "impression"),
    ("impression", "conclusion"),
    ("indication", "indication"),
    ("comparison", "comparison"),
    ("technique", "technique"),
    ("examination", "examination"),
)
"""Headers that are known under unlisted misspellings too: what stands below them must be neither lost nor mistaken."""
_VIEW = re.compile(
    r"chest|portable|pa and lat|lateral and pa|ap and lat|lateral and ap|frontal and|frontal view|frontal upright"
    r"|frontal semi-upright|two views|one view|pa view|ap view|lateral view|bone window|ribs"
)
_ORGAN = (
    r"(?:(?:lung|pulmonary|pleura|heart|cardi|cardiovascular|cardiomediastin|mediastin|hil(?:a|ar|um)|bon(?:e|y)"
    r"|osseous|skelet|musculoskelet|soft tissue|chest wall|thoracic|rib|spin(?:e|al)|airway|trachea|aort|great vessel"
    r"|vascula|diaphragm|upper abdomen|abdom|line|tube|catheter|(?:support|medical|monitoring|implanted) device|device"
    r"|hardware)[a-z]*)"
)
_LINKS = r"(?:\s*[,/&]\s*(?:and\s+)?|\s+(?:and\s+)?)"
_ORGANS = re.compile(
    rf"{_ORGAN}(?:{_LINKS}(?:{_ORGAN}|structures?|spaces?|contours?|silhouettes?|size|parenchyma|cage|wall))*"
)
_NO_BODY = re.compile(
    r"\b(?:reason|clinical|condition|history|indication|technique|procedure|exam|examination|study|order\w*|date|time"
    r"|sign\w*|dictat\w*|transcri\w*|typed|by|job|doctor|physician|attending|resident|fellow|radiologist|reader|md|dr"
    r"|contrast|dose|protocol|medications?|allerg\w+|compar\w+|prior|notif\w*|communicat\w*|addend\w*|wet|prelim\w*"
    r"|recommend\w*|comments?|notes?|accession|patient|name|age|sex|mrn|title|cc|report status|views?|position|pfi"
    r"|admitting|underlying|symptoms?|complaint|request\w*|referr\w*|question|edited|revis\w*|correct\w*|amend\w*)\b"
)
"""Words of headers that introduce neither findings nor an impression, whatever else the report lacks."""


@dataclass(frozen=True, slots=True)
class SectionSpan:
    """One section in place: the header starts at `start`, its text is `report[body:end]`."""

    name: str
    """Normalised name."""
    start: int
    body: int
    end: int


def normalise_header(header: str) -> str:
    """The section that a header such as `IMPRESSON` or `CHEST, PA AND LATERAL` (no colon) introduces."""
    written = " ".join(header.lower().split())
    if (name := _NAME.get(written)) is not None:
        return name
    for name in _CONTAINED:
        if name in written:
            return name
    if _VIEW.search(written):
        return "findings"
    return _misspelt(written) or written


def _is_known(name: str) -> bool:
    return name in _SYNONYMS or _NO_BODY.search(name) is not None


@cache
def _misspelt(written: str) -> str | None:
    """The section whose header this is with a slip of the keyboard, or with more after a right first letter."""
    letters = written.replace(" ", "")
    for name, spelling in _FUZZY:
        slips = _distance(letters, spelling)
        if slips <= 1 or (slips <= len(spelling) // 3 and letters[0] == spelling[0]):
            return name
    return None


def _distance(a: str, b: str) -> int:
    """Letters to insert, delete, replace or swap with a neighbour to make `a` into `b`; 4 for anything more."""
    if abs(len(a) - len(b)) > 3:
        return 4
    rows = [list(range(len(b) + 1))]
    for i, letter in enumerate(a):
        row = [i + 1]
        for j, other in enumerate(b):
            cost = min(rows[i][j + 1] + 1, row[j] + 1, rows[i][j] + (letter != other))
            if i and j and letter == b[j - 1] and a[i - 1] == other:
                cost = min(cost, rows[i - 1][j - 1] + 1)
            row.append(cost)
        rows.append(row)
    return min(rows[-1][-1], 4)


def split_sections(report: str) -> list[SectionSpan]:
    """Every section in report order, empty and repeated ones too; the spans cover the report without a gap."""
    return _spans(
        report, [_Header(normalise_header(match[1]), match.start(1), match.end()) for match in _HEADER.finditer(report)]
    )


class _Header(NamedTuple):
    name: str
    start: int
    end: int


def _spans(report: str, headers: Sequence[_Header]) -> list[SectionSpan]:
    if not headers:
        return [SectionSpan(FULL_REPORT, 0, 0, len(report))]
    ends = [*(header.start for header in headers[1:]), len(report)]
    spans = [SectionSpan(header.name, header.start, header.end, end) for header, end in zip(headers, ends, strict=True)]
    return [SectionSpan(PREAMBLE, 0, 0, headers[0].start), *spans] if headers[0].start else spans


def _split_loosely(report: str) -> list[SectionSpan]:
    """Every section, `Findings:`, `IMPRESSION.`, `FINDINGS` alone on its line and `F I N D I N G S:` counting too."""
    headers = {
        match.start(1): _Header(normalise_header(match[1]), match.start(1), match.end())
        for match in _HEADER.finditer(report)
    }
    for match in _LOOSE_HEADER.finditer(report):
        header = match["header"] or match["inline"]
        start = match.start("header" if match["header"] else "inline")
        name = _NAME.get(header.lower()) or _misspelt(header.lower())
        if (
            start not in headers
            and name in ("findings", "impression")
            and (match["end"] in (":", None) or header.isupper())
        ):
            headers[start] = _Header(name, start, match.end())
    return _spans(report, [headers[start] for start in sorted(headers)])


def body_sections(report: str) -> list[SectionSpan]:
    """Where the report's findings and impression stand, in order, each span named `findings` or `impression`.

    Beside the sections of these names, however their headers are typed: one headed by organs (`LUNGS:`, `BONES AND
    SOFT TISSUES:`) is findings, its header included; one under an unknown header directly below a bare `FINDINGS:`
    belongs there; where the report has no findings, or no impression after them, the section under an unknown header
    (`OBSERVATIONS:`, `OPINION:`) stands for it; and a report without any of these gives its last paragraph, or, where
    it has no header at all, its whole text as findings.
    """
    written = _split_loosely(report)
    spans = [span for span in written if report[span.body : span.end].strip()]
    names = {span.name for span in spans}
    bodies: list[SectionSpan] = []
    for before, span in zip([written[0], *written], written, strict=False):
        if span not in spans:
            continue
        if span.name in ("findings", "impression"):
            bodies.append(span)
        elif _ORGANS.fullmatch(span.name):
            bodies.append(SectionSpan("findings", span.start, span.start, span.end))
        elif span.name in (PREAMBLE, FULL_REPORT) or _is_known(span.name):
            continue
        elif before not in spans and before.name in ("findings", "impression"):
            bodies.append(SectionSpan(before.name, span.start, span.start, span.end))
        elif "findings" not in names and not bodies:
            bodies.append(replace(span, name="findings"))
        elif "impression" not in names and bodies and bodies[-1].name == "findings":
            bodies.append(replace(span, name="impression"))
    if bodies or not spans:
        return bodies
    last = spans[-1]
    if last.name == FULL_REPORT:
        return [replace(last, name="findings")]
    text = report[last.body : last.end]
    start = len(text) - len(text.lstrip())
    blank = _BLANK_LINE.search(text, start, len(text.rstrip()))
    return [SectionSpan("findings", last.start, last.body + blank.end(), last.end)] if blank is not None else []


def parse_sections(report: str) -> Sections:
    """The sections of a report by normalised name, stripped at both ends, line breaks as written."""
    text: dict[str, str] = {}
    last = ""
    for span in split_sections(report):
        body = report[span.body : span.end].strip()
        if body or span.name not in ("findings", "impression"):
            last = span.name
            if body or span.name not in text:
                text.pop(span.name, None)
                text[span.name] = body
    if "findings" not in text and "impression" not in text and last:
        first, *rest = _BLANK_LINE.split(text[last], maxsplit=1)
        if rest:
            text[last] = first.rstrip()
            text[LAST_PARAGRAPH] = rest[0].strip()
    return Sections(text)
