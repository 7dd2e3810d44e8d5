"""A report taken apart at its UPPERCASE headers, agreeing with the section parser that MIT-LCP publishes for MIMIC-CXR.

The agreed behaviour: a header is an uppercase run followed by a colon at the start of a line; its name is normalised
through a table (synonyms and the misspellings that occur); a view named as header introduces findings; of several
sections with one name the last that is not empty counts; and a report with neither findings nor impression has a
`last_paragraph`. Here a header may also stand on the report's first line, or directly below another header.
"""

import re
from dataclasses import dataclass

from unix.records import Sections

PREAMBLE = "preamble"
"""Name of the text before the first header."""
FULL_REPORT = "full report"
"""Name of the only section of a report without any header."""
LAST_PARAGRAPH = "last_paragraph"
"""Name of what follows the first paragraph of the last section, where there is neither findings nor impression."""

_HEADER = re.compile(r"(?:^|\n)[ \t]*([A-Z][A-Z ()/,-]*):(?=\s|$)")
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
_VIEW = re.compile(
    r"chest|portable|pa and lat|lateral and pa|ap and lat|lateral and ap|frontal and|frontal view|frontal upright"
    r"|frontal semi-upright|two views|one view|pa view|ap view|lateral view|bone window|ribs"
)


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
    return "findings" if _VIEW.search(written) else written


def split_sections(report: str) -> list[SectionSpan]:
    """Every section in report order, empty and repeated ones too; the spans cover the report without a gap."""
    headers = list(_HEADER.finditer(report))
    if not headers:
        return [SectionSpan(FULL_REPORT, 0, 0, len(report))]
    spans: list[SectionSpan] = []
    if headers[0].start(1) > 0:
        spans.append(SectionSpan(PREAMBLE, 0, 0, headers[0].start(1)))
    for index, header in enumerate(headers):
        end = headers[index + 1].start(1) if index + 1 < len(headers) else len(report)
        spans.append(SectionSpan(normalise_header(header[1]), header.start(1), header.end(), end))
    return spans


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
