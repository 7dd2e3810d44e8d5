"""Answers are validated: only whole, well-formed ones pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.cleaning.answer import answer_json, parse_answer
from unix.errors import AnswerError
from unix.records import CleanedReport, RemovedSpan

line = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30).map(
    lambda t: " ".join(t.split())
)


@given(line, line, st.lists(st.tuples(line, line), max_size=3))
def test_a_cleaned_report_survives_the_way_through_json(
    findings: str, impression: str, removed: list[tuple[str, str]]
) -> None:
    report = CleanedReport(findings, impression, tuple(RemovedSpan(*span) for span in removed))
    assert parse_answer(answer_json(report)) == (report, False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "blank"),
        (" \n  ", "blank"),
        ('{"findings": "Clear.", "impre', "not whole JSON"),
        ("Clear lungs.", "not whole JSON"),
        ("[]", "not a JSON object"),
        ('{"findings": "Clear."}', "impression"),
        ('{"findings": 1, "impression": ""}', "findings"),
        ('{"findings": "", "impression": "", "Clear lungs.": "x"}', "schema: a key of its own$"),
        ('{"findings": "' + chr(92) + 'ud83d", "impression": ""}', "half a character"),
        ("[" * 100_000, "not whole JSON"),
        ('{"findings": "", "impression": "", "removed": ["x"]}', "removed"),
    ],
)
def test_everything_else_is_refused_with_its_reason(content: str, reason: str) -> None:
    with pytest.raises(AnswerError, match=reason):
        parse_answer(content)


def test_json_inside_a_fence_is_repaired_and_says_so() -> None:
    inner = json.dumps({"findings": "Clear.", "impression": ""})
    assert parse_answer(f"```json\n{inner}\n```") == (CleanedReport("Clear.", ""), True)


def test_a_reason_never_quotes_the_answer() -> None:
    with pytest.raises(AnswerError) as caught:
        parse_answer('{"findings": {"secret": "words"}, "impression": ""}')
    assert "secret" not in str(caught.value).replace("findings", "")
