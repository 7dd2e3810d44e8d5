"""What an endpoint answers, validated: an answer that is not whole and well-formed is a fault, never a report."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from unix.errors import AnswerError
from unix.records import CleanedReport, RemovedSpan


class _Removed(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    text: str
    category: str


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    findings: str
    impression: str
    removed: list[_Removed] = []


class ParsedAnswer(NamedTuple):
    """A cleaned report, and whether the JSON stood inside other text and had to be taken out."""

    report: CleanedReport
    repaired: bool


_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
"""A lone surrogate: JSON can escape one, no table and no file can hold it."""

_FENCE = re.compile(r"\A\s*(?:```(?:json)?\s*)?(\{.*\})\s*(?:```)?\s*\Z", re.DOTALL)


def parse_answer(content: str) -> ParsedAnswer:
    """Read the JSON answer in a message's content.

    Raises:
        AnswerError: the content is blank, cut off, no JSON object or not of the schema; the message is a short reason.
    """
    if not content or content.isspace():
        raise AnswerError("blank answer")
    repaired = False
    try:
        value = json.loads(content)
    except RecursionError:
        raise AnswerError("answer is not whole JSON") from None
    except ValueError:
        match = _FENCE.match(content)
        if match is None or match[1] == content:
            raise AnswerError("answer is not whole JSON") from None
        try:
            value = json.loads(match[1])
        except (ValueError, RecursionError):
            raise AnswerError("answer is not whole JSON") from None
        repaired = True
    if not isinstance(value, dict):
        raise AnswerError("answer is not a JSON object")
    return ParsedAnswer(_validated(cast(dict[str, Any], value)), repaired)


def answer_json(report: CleanedReport) -> str:
    """The answer that stands for a cleaned report."""
    return json.dumps(
        {
            "findings": report.findings,
            "impression": report.impression,
            "removed": [{"text": span.text, "category": span.category} for span in report.removed],
        },
        ensure_ascii=False,
    )


def _texts(answer: _Answer) -> Iterator[str]:
    yield answer.findings
    yield answer.impression
    for span in answer.removed:
        yield span.text
        yield span.category


def _validated(value: dict[str, Any]) -> CleanedReport:
    try:
        answer = _Answer.model_validate(value)
    except ValidationError as error:
        # A key that the model made up may be report text, and reasons reach tables, summaries and logs.
        names = {str(fault["loc"][0]) for fault in error.errors(include_url=False)}
        fields = sorted({name if name in _Answer.model_fields else "a key of its own" for name in names})
        raise AnswerError(f"answer does not have the schema: {', '.join(fields)}") from None
    if any(_HALF_CHARACTER.search(text) for text in _texts(answer)):
        raise AnswerError("answer holds half a character")
    return CleanedReport(
        findings=" ".join(answer.findings.split()),
        impression=" ".join(answer.impression.split()),
        removed=tuple(RemovedSpan(span.text, span.category) for span in answer.removed),
    )
