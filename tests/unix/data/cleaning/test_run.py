"""The cleaning job: every study one row, once, whatever happens in between."""

import errno
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from unix.data.cleaning import run as module
from unix.data.cleaning.client import ChatClient
from unix.data.cleaning.endpoint import Endpoint, Limits
from unix.data.cleaning.journal import AnswerKey, Journal, Outcome
from unix.data.cleaning.run import CleanConfig, CleanSummary, clean
from unix.data.cleaning.usage import Usage
from unix.data.sections import parse_sections
from unix.errors import ConfigError, EndpointError, PolicyError
from unix.records import Rejection, Status, text_digest
from unix.store import SCHEMAS, Store

UNTIMED = [name for name in SCHEMAS["cleaned_reports"] if name not in {"created_at", "latency_ms"}]


def fill(store: Store, reports: list[str], source: str = "phantom", withdrawn: int = 0) -> None:
    sections = [parse_sections(report) for report in reports]
    store.upsert(
        "studies",
        pl.DataFrame(
            {
                "source": source,
                "subject_id": "1",
                "study_id": [str(index) for index in range(len(reports))],
                "report_raw": reports,
                "report_sha256": [text_digest(report) for report in reports],
                "findings_raw": [section.findings for section in sections],
                "impression_raw": [section.impression for section in sections],
                "sections": "{}",
                "fingerprint": "",
                "ingested_at": datetime.now(UTC),
                "withdrawn": [index < withdrawn for index in range(len(reports))],
            }
        ),
    )


def report(index: int) -> str:
    return f" FINDINGS: A {index + 2} mm nodule. Dictated by ___.\n"


def rows(store: Store) -> pl.DataFrame:
    return store.read("cleaned_reports").sort("source", "study_id")


def balances(summary: CleanSummary) -> bool:
    return summary.reports == summary.accepted + summary.flagged + summary.rejected + summary.failed


def test_every_study_gets_its_row_and_a_second_run_asks_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [*(report(index) for index in range(6)), report(0), "", " HISTORY: fever\n", " FINDINGS: Thank you.\n"])
    summary = clean(CleanConfig(store=store.uri))
    assert balances(summary)
    assert (summary.reports, summary.accepted, summary.rejected, summary.calls) == (10, 7, 3, 7)
    assert summary.reasons == {"empty_report": 1, "no_section": 1, "empty": 1}
    table = rows(store)
    assert table["findings"].to_list()[0] == "A 2 mm nodule."
    assert table["removed"].to_list()[0] == [{"text": "Dictated by ___.", "category": "dictation"}]
    assert store.read("rejections").height == 3
    again = clean(CleanConfig(store=store.uri))
    assert (again.reports, again.calls, again.already_final) == (0, 0, 10)
    assert rows(store).equals(table)


def test_a_new_study_with_a_known_text_gets_a_row_without_a_call(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0)])
    clean(CleanConfig(store=store.uri))
    fill(store, [report(0), report(0), report(1)])
    summary = clean(CleanConfig(store=store.uri))
    assert (summary.reports, summary.calls) == (2, 1)
    assert rows(store)["findings"].to_list() == ["A 2 mm nodule.", "A 2 mm nodule.", "A 3 mm nodule."]


def test_withdrawn_studies_are_left_out(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0), report(1)], withdrawn=1)
    assert clean(CleanConfig(store=store.uri)).reports == 1


def test_partitions_and_limits_add_up_to_the_whole(tmp_path: Path) -> None:
    whole, parts = Store(tmp_path / "a"), Store(tmp_path / "b")
    for store in (whole, parts):
        fill(store, [report(index) for index in range(20)])
    clean(CleanConfig(store=whole.uri))
    first = clean(CleanConfig(store=parts.uri, partition=(0, 2), limit=3))
    assert (first.reports, first.studies) == (3, first.already_final + first.reports + first.left)
    for index in range(2):
        clean(CleanConfig(store=parts.uri, partition=(index, 2)))
    assert rows(parts).select(UNTIMED).equals(rows(whole).select(UNTIMED))


def test_what_a_killed_run_left_in_the_journal_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, store = Store(tmp_path / "a"), Store(tmp_path / "b")
    for target in (expected, store):
        fill(target, [report(index) for index in range(8)])
    clean(CleanConfig(store=expected.uri))
    with monkeypatch.context() as patch:
        patch.setattr(Store, "upsert", _killed)
        with pytest.raises(KeyboardInterrupt):
            clean(CleanConfig(store=store.uri, limit=5))
    (left,) = (tmp_path / "b" / "journal" / "clean").glob("*.jsonl")
    with left.open("ab") as file:
        file.write(b'{"key": {"report_sha256": "cut')
    summary = clean(CleanConfig(store=store.uri))
    assert (summary.reports, summary.calls, summary.replayed) == (8, 3, 5)
    assert rows(store).select(UNTIMED).equals(rows(expected).select(UNTIMED))
    assert not list((tmp_path / "b" / "journal" / "clean").glob("*.jsonl"))


def test_what_another_model_left_in_the_journal_is_kept(tmp_path: Path) -> None:
    """The next run need not be of the same model, prompt, limit or part of the studies."""
    store = Store(tmp_path)
    fill(store, [report(0), report(1), report(0)])
    key = AnswerKey(text_digest(report(0)), "another prompt", "another-model", "parameters")
    left = Outcome(key, Status.ACCEPTED, (), "A nodule.", "", (), Usage(cost_usd=0.5, attempts=1), 0.0, "v9", "dear")
    journal = Journal(store)
    journal.add(left)
    journal.flush()
    journal.close()
    summary = clean(CleanConfig(store=store.uri, limit=1))
    assert (summary.replayed, summary.reports, summary.calls) == (1, 1, 1)
    table = rows(store).filter(model="another-model")
    assert table["study_id"].to_list() == ["0", "2"]
    assert table["cost_usd"].to_list() == [0.5, 0.0]
    assert table["prompt_version"].to_list() == ["v9", "v9"]
    assert not list((tmp_path / "journal" / "clean").glob("*.jsonl"))


def test_a_failure_that_was_mended_is_no_rejection_any_more(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0), " FINDINGS: Thank you.\n"])
    clean(CleanConfig(store=store.uri))
    good = rows(store).filter(study_id="0")
    store.upsert("cleaned_reports", good.with_columns(status=pl.lit("failed"), flags=pl.lit(["timeout"])))
    store.reject([Rejection(module.JOB, "phantom", "0", "failed", "timeout")])
    assert clean(CleanConfig(store=store.uri)).accepted == 1
    assert store.read("rejections")["item"].to_list() == ["1"]


def test_an_old_journal_does_not_replace_a_newer_answer(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0)])
    clean(CleanConfig(store=store.uri))
    final = module.outcomes_of(rows(store))[text_digest(report(0))]
    journal = Journal(store)
    journal.add(replace(final, status=Status.FAILED, created_at=final.created_at - 60))
    journal.flush()
    journal.close()
    assert clean(CleanConfig(store=store.uri)).reports == 0
    assert rows(store)["status"].to_list() == ["accepted"]


def test_a_write_that_fails_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    fill(store, [report(0)])
    clean(CleanConfig(store=store.uri))
    outcome = next(iter(module.outcomes_of(rows(store)).values()))
    journal = Journal(store)
    journal.add(outcome)
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) - 50])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            journal.flush()
    journal.flush()
    journal.close()
    assert Journal(store).replay()[0] == [outcome]


def test_a_store_without_studies_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unix ingest"):
        clean(CleanConfig(store=str(tmp_path / "nowhere")))
    assert not (tmp_path / "nowhere").exists()


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_journal_in_a_writers_hands_is_read_but_stays(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0)])
    clean(CleanConfig(store=store.uri))
    outcome = next(iter(module.outcomes_of(rows(store)).values()))
    writer, reader = Journal(store), Journal(store)
    writer.add(outcome)
    writer.flush()
    assert [item.key for item in reader.replay()[1]] == [outcome.key]
    reader.discard()
    assert list((tmp_path / "journal" / "clean").glob("*.jsonl"))
    writer.discard()
    assert not list((tmp_path / "journal" / "clean").glob("*.jsonl"))


def test_on_an_object_store_each_flush_is_an_object(tmp_path: Path) -> None:
    local = Store(tmp_path)
    fill(local, [report(0), report(1)])
    clean(CleanConfig(store=local.uri))
    first, second = module.outcomes_of(rows(local)).values()
    remote = Store("memory://a-bucket/store")
    writer = Journal(remote)
    for outcome in (first, second):
        writer.add(outcome)
        writer.flush()
    reader = Journal(remote)
    assert reader.replay() == ([first, second], [])
    reader.discard()
    assert Journal(remote).replay() == ([], [])
    writer.discard()  # whose objects have gone already


def test_a_dry_run_estimates_and_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0), report(0), report(1)])
    summary = clean(CleanConfig(store=store.uri, endpoint="deepseek", dry_run=True))
    assert (summary.dry_run, summary.reports, summary.calls) == (True, 3, 2)
    assert summary.cost_usd > 0
    assert store.version("cleaned_reports") is None


def test_credentialed_reports_are_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    fill(store, [report(0)], source="mimic-cxr")
    monkeypatch.setattr(ChatClient, "clean", _killed)
    with pytest.raises(PolicyError, match="PhysioNet"):
        clean(CleanConfig(store=store.uri, base_url="http://93.184.216.34/v1", model="m"))


def test_rejected_reports_are_asked_again_only_on_request(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [" FINDINGS: Thank you.\n"])
    assert clean(CleanConfig(store=store.uri)).rejected == 1
    assert clean(CleanConfig(store=store.uri)).reports == 0
    assert clean(CleanConfig(store=store.uri, retry_rejected=True)).calls == 1


@pytest.mark.parametrize("partition", [(2, 2), (-1, 2), (0, 0)])
def test_a_partition_that_does_not_exist_is_refused(partition: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="partition"):
        CleanConfig.build({"store": "s", "partition": partition})


def test_only_the_named_texts_are_cleaned(tmp_path: Path) -> None:
    store = Store(tmp_path)
    fill(store, [report(0), report(1), report(1), report(2)])
    wanted = frozenset({text_digest(report(1))})
    summary = clean(CleanConfig(store=store.uri, only=wanted))
    assert (summary.reports, summary.calls) == (2, 1)
    assert set(rows(store)["report_sha256"]) == wanted


def test_where_nobody_answers_the_run_fails_and_names_the_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(tmp_path)
    fill(store, [report(0), report(1)])
    away = Endpoint(name="away", model="m", base_url="http://127.0.0.1:9/v1", limits=Limits(attempts=1))
    with pytest.raises(EndpointError, match=r"endpoint away at http://127\.0\.0\.1:9/v1: connection failed"):
        clean(CleanConfig(store=store.uri), away)
    assert rows(store)["status"].to_list() == [Status.FAILED, Status.FAILED]
    assert "endpoint away: connection failed" in caplog.text
