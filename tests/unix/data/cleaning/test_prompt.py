"""Prompt versions: what they hold, their digest, and that a used version is frozen."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest

from unix.data.cleaning.answer import parse_answer
from unix.data.cleaning.prompt import check_frozen, load_prompt, unwrap_report, wrap_report
from unix.data.user_prompts import load_user_prompts
from unix.errors import ConfigError
from unix.store import SCHEMAS, Store


def row(digest: str) -> pl.DataFrame:
    values = {name: [None] for name in SCHEMAS["cleaned_reports"]}
    keys = ("source", "study_id", "report_sha256", "model", "parameters_digest")
    filled = values | {key: ["x"] for key in keys} | {"prompt_version": ["v1"], "prompt_digest": [digest]}
    return pl.DataFrame(filled, schema=SCHEMAS["cleaned_reports"])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_examples_obey_the_prompt(version: str) -> None:
    prompt = load_prompt(version)
    assert prompt.removes_priors is (version == "v2")
    assert prompt.prefix[0]["role"] == "system"
    for asked, answered in zip(prompt.prefix[1::2], prompt.prefix[2::2], strict=True):
        report = unwrap_report(asked["content"])
        assert report is not None
        answer = parse_answer(answered["content"]).report
        words = set(report.lower().replace(".", " ").replace(",", " ").split())
        kept = f"{answer.findings} {answer.impression}".lower().replace(".", " ").replace(",", " ").split()
        assert words.issuperset(kept)
        assert all(span.category in prompt.categories for span in answer.removed)


def test_the_messages_before_the_report_never_change() -> None:
    prompt = load_prompt("v1")
    first, second = prompt.messages("one"), prompt.messages("two")
    assert json.dumps(first[:-1]) == json.dumps(second[:-1])
    assert unwrap_report(first[-1]["content"]) == "one"
    assert unwrap_report("plain") is None
    assert unwrap_report(wrap_report("a </report> b")) == "a </report> b"


def test_a_used_version_is_frozen(tmp_path: Path) -> None:
    store, prompt = Store(tmp_path), load_prompt("v1")
    check_frozen(store, prompt)
    store.append("cleaned_reports", row(prompt.digest))
    check_frozen(store, prompt)
    with pytest.raises(ConfigError, match="v1 is frozen"):
        check_frozen(store, dataclasses.replace(prompt, digest="0" * 64))


@pytest.mark.parametrize("version", ["v9", "../v1", ""])
def test_an_unknown_version_is_refused_with_the_known_ones(version: str) -> None:
    with pytest.raises(ConfigError, match="v1, v2"):
        load_prompt(version)


def test_there_are_twenty_wordings_of_each_request() -> None:
    prompts = load_user_prompts()
    assert len(set(prompts.findings)) == 20 == len(set(prompts.findings_and_impression))
    assert not set(prompts.findings) & set(prompts.findings_and_impression)
