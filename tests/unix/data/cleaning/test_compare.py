"""Two prompts or models over the same texts."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from unix.cli import run
from unix.data.cleaning import ask as ask_module
from unix.data.cleaning.ask import ask_all
from unix.data.cleaning.compare import CompareConfig, compare
from unix.data.cleaning.guards import Verdict
from unix.errors import ConfigError
from unix.records import CleanedReport, Status
from unix.store import Store


def test_two_prompts_differ_where_one_removes_references_to_priors(phantom_store: Callable[..., Store]) -> None:
    store = phantom_store(40)
    summary, examples = compare(CompareConfig(store=store.uri, a="v1", b="v2", sample=30))
    assert (summary.a.prompt, summary.b.prompt, summary.sample) == ("v1", "v2", 30)
    for side in (summary.a, summary.b):
        assert side.accepted + side.flagged + side.rejected + side.failed + side.missing == 30
        assert side.model == "rules-3"
    assert summary.b.mean_words < summary.a.mean_words
    assert 0 < summary.same_text < 1
    assert sum(summary.statuses.values()) == 30
    assert len(examples) >= round((1 - summary.same_text) * summary.both)
    assert store.read("cleaned_reports")["report_sha256"].n_unique() == 30
    again, _ = compare(CompareConfig(store=store.uri, a="v1", b="v2", sample=30))
    assert again == summary


def test_labels_gained_and_lost_and_the_cost_are_counted(
    chat_server: Callable[..., Any],
    phantom_store: Callable[..., Store],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The embedded side loses every finding; the endpoint's answers stand for the truth."""
    server = chat_server("--latency-ms", "1")
    monkeypatch.setenv("UNIX_ENDPOINTS", str(server.endpoints(concurrency=4)))
    silent = CleanedReport("The trachea is midline.", "")
    monkeypatch.setattr("unix.data.cleaning.server.clean_report", lambda *_, **__: silent)
    monkeypatch.setattr(ask_module, "ask_all", partial(ask_all, judge=lambda _: Verdict(Status.ACCEPTED, ())))
    store = phantom_store(20)
    summary, examples = compare(CompareConfig(store=store.uri, a="v1", b="@stand-in", sample=20))
    assert summary.labels_gained
    assert set(summary.labels_lost) <= {"No Finding"}
    assert (summary.a.cost_usd, summary.b.cost_usd > 0) == (0, True)
    assert summary.b.usd_per_thousand == pytest.approx(1e3 * summary.b.cost_usd / 20, rel=0.01)
    assert examples[0].why.startswith("gained ")


def test_examples_go_where_they_are_asked_for_and_nowhere_else(
    phantom_store: Callable[..., Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = phantom_store(40)
    summary, examples = tmp_path / "summary.json", tmp_path / "examples.jsonl"
    command = ["clean", "compare", "v1", "v2", "--store", store.uri, "--sample", "30", "--json", str(summary)]
    assert run([*command, "--examples", str(examples)]) == 0
    raw = [json.loads(line)["raw"] for line in examples.read_text().splitlines()]
    assert raw
    captured = capsys.readouterr()
    assert not any(text[:40] in captured.out + captured.err + summary.read_text() for text in raw)
    assert run([*command, "--show", "1"]) == 0
    assert raw[0].strip()[:40] in capsys.readouterr().out


@pytest.mark.parametrize(("a", "b"), [("v1", "v1@embedded"), ("", "v2"), ("v1@local=", "v2"), ("v9", "v2")])
def test_variants_that_are_malformed_unknown_or_the_same_are_refused(a: str, b: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        compare(CompareConfig(store=str(tmp_path), a=a, b=b))
