"""Asking for many texts: what ends a run early, and that whatever ends it keeps every answer that came."""

import asyncio
import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import httpx2
import pytest

from unix.data.cleaning import client as client_module
from unix.data.cleaning.ask import Asked, ask_all
from unix.data.cleaning.client import ChatClient
from unix.data.cleaning.endpoint import Endpoint, Limits, Price
from unix.data.cleaning.journal import Journal, Outcome
from unix.data.cleaning.prompt import load_prompt, unwrap_report
from unix.data.cleaning.rules import clean_report
from unix.data.cleaning.run import CleanConfig, clean
from unix.errors import EndpointError, PolicyError, StoreError
from unix.records import Status
from unix.store import Store

Handler = Callable[[httpx2.Request], httpx2.Response]
PRICE = Price(as_of=date(2026, 1, 1), input=0, cached_input=0, output=1)


def report(index: int) -> str:
    return f" FINDINGS: A {index + 2} mm nodule in the left lung.\n"


def answer(request: httpx2.Request, tokens: int = 5) -> httpx2.Response:
    contents = [message["content"] for message in json.loads(request.content)["messages"]]
    cleaned = clean_report(next(filter(None, map(unwrap_report, reversed(contents)))))
    content = json.dumps({"findings": cleaned.findings, "impression": cleaned.impression, "removed": []})
    body = {
        "choices": [{"finish_reason": "stop", "message": {"content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": tokens},
    }
    return httpx2.Response(200, json=body)


class Finished:
    """What a run came to, and the outcomes that it handed on."""

    def __init__(self, asked: Asked, outcomes: list[Outcome]) -> None:
        self.asked, self.outcomes = asked, outcomes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.asked, name)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Finished]]:
    """`ask(handler, texts, budget_usd, ...)` runs over so many texts against a scripted endpoint."""
    monkeypatch.setattr(client_module, "_FIRST_WAIT_SECONDS", 0.0)

    def run(handler: Handler, texts: int = 8, budget_usd: float | None = None, **changes: Any) -> Asked:
        transport = httpx2.MockTransport(handler)
        monkeypatch.setattr(client_module, "http_client", lambda *_: httpx2.AsyncClient(transport=transport))
        values = {"name": "x", "model": "m", "base_url": "http://127.0.0.1:1/v1", "limits": Limits(concurrency=4)}
        endpoint = Endpoint.model_validate({**values, **changes})
        client = ChatClient(endpoint, load_prompt("v1"), budget_usd=budget_usd)
        outcomes: list[Outcome] = []
        asked = ask_all(client, [report(index) for index in range(texts)], journal, outcomes.extend)
        return Finished(asked, outcomes)

    journal = Journal(Store(tmp_path))
    yield run
    journal.close()


def test_an_endpoint_that_only_fails_ends_the_run(ask: Callable[..., Finished]) -> None:
    asked = ask(lambda _: httpx2.Response(500), texts=200)
    assert isinstance(asked.fault, EndpointError)
    assert "25 reports in a row, the last with `status 500`" in str(asked.fault)
    assert 25 <= len(asked.outcomes) < 32
    assert {outcome.status for outcome in asked.outcomes} == {Status.FAILED}


def test_wrong_settings_show_after_three_reports(ask: Callable[..., Finished]) -> None:
    asked = ask(lambda _: httpx2.Response(400), texts=200)
    assert "refused with status 400" in str(asked.fault)
    assert asked.calls < 12


def test_one_report_that_the_endpoint_refuses_is_that_reports_fault(ask: Callable[..., Finished]) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(400) if b"A 5 mm" in request.content else answer(request)

    asked = ask(handle)
    assert asked.fault is None
    assert sorted(outcome.status.value for outcome in asked.outcomes) == ["accepted"] * 7 + ["failed"]


def test_an_empty_account_stops_at_once_and_keeps_what_came(ask: Callable[..., Finished]) -> None:
    seen: list[int] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(1)
        return answer(request) if len(seen) <= 10 else httpx2.Response(402)

    asked = ask(handle, texts=200)
    assert "answered 402: the account has no balance" in str(asked.fault)
    assert len(asked.outcomes) == 10
    assert len(seen) <= 10 + 4


def test_the_budget_ends_the_run_before_it_is_passed(ask: Callable[..., Finished]) -> None:
    asked = ask(
        lambda request: answer(request, tokens=1000), texts=50, budget_usd=0.0105, price=PRICE, max_output_tokens=2000
    )
    assert (asked.stopped, asked.fault) == ("budget", None)
    # Each answer costs half of its worst case, so all but the last reservation is turned into answers.
    assert len(asked.outcomes) == 9
    assert asked.used.cost_usd == pytest.approx(0.009)


def test_an_interrupt_ends_waits_at_once_and_a_report_without_an_answer_stays_open(
    ask: Callable[..., Finished],
) -> None:
    def handle(request: httpx2.Request) -> httpx2.Response:
        if b"A 4 mm" in request.content:
            os.kill(os.getpid(), signal.SIGINT)
        elif b"A 3 mm" in request.content:
            return httpx2.Response(429, headers={"retry-after": "500"})
        return answer(request)

    asked = ask(handle, texts=200)
    assert (asked.interrupted, asked.fault) == (True, None)
    assert {status.status for status in asked.outcomes} == {Status.ACCEPTED}
    assert 1 <= len(asked.outcomes) < 200
    assert not any("A 3 mm" in outcome.findings for outcome in asked.outcomes)


def test_progress_says_what_an_operator_wants_to_know_and_no_text(
    ask: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unix.progress.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    caplog.set_level(logging.INFO, logger="unix")
    seen: list[int] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(1)
        if len(seen) == 1:
            return httpx2.Response(429, headers={"retry-after": "0"})
        response = answer(request, tokens=1000)
        body = json.loads(response.content)
        body["usage"].update(prompt_cache_hit_tokens=5)
        return httpx2.Response(200, json=body)

    ask(handle, texts=4, price=PRICE)
    line = next(message for message in caplog.messages if message.startswith("clean: 2/4"))
    assert re.search(r"in flight of \d+, 1 x 429, cache 50%, 0\.00\d0 USD, 0\.00\d0 to go$", line)
    assert "nodule" not in caplog.text


def test_answers_move_from_the_journal_into_the_table_while_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("unix.data.cleaning.ask._OUTCOMES_PER_COMMIT", 5)

    async def handle(request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0.01)  # as a network does, so that the recording thread has its turn
        return answer(request)

    transport = httpx2.MockTransport(handle)
    monkeypatch.setattr(client_module, "http_client", lambda *_: httpx2.AsyncClient(transport=transport))
    store = Store(tmp_path)
    batches: list[int] = []
    left: list[int] = []

    def record(outcomes: Sequence[Outcome]) -> None:
        batches.append(len(outcomes))
        left.append(len(list((tmp_path / "journal" / "clean").glob("*.jsonl"))))

    endpoint = Endpoint(name="x", model="m", base_url="http://127.0.0.1:1/v1", limits=Limits(concurrency=2))
    journal = Journal(store)
    ask_all(ChatClient(endpoint, load_prompt("v1")), [report(index) for index in range(40)], journal, record)
    assert sum(batches) == 40
    assert len(batches) > 2
    assert max(left) <= 2
    assert not list((tmp_path / "journal" / "clean").glob("*.jsonl"))
    journal.close()


def test_a_table_that_cannot_be_written_ends_the_run_and_the_journal_keeps_the_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    transport = httpx2.MockTransport(answer)
    monkeypatch.setattr(client_module, "http_client", lambda *_: httpx2.AsyncClient(transport=transport))

    def record(_: Sequence[Outcome]) -> None:
        raise StoreError("the table is locked")

    endpoint = Endpoint(name="x", model="m", base_url="http://127.0.0.1:1/v1", limits=Limits(concurrency=2))
    journal = Journal(Store(tmp_path))
    asked = ask_all(ChatClient(endpoint, load_prompt("v1")), [report(0), report(1)], journal, record)
    assert str(asked.fault) == "the table is locked"
    journal.close()
    assert len(Journal(Store(tmp_path)).replay()[0]) == 2


def test_a_full_disk_ends_the_run(ask: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_: Journal) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "flush", no_space)
    asked = ask(answer)
    assert isinstance(asked.fault, StoreError)
    assert "No space left on device" in str(asked.fault)


def test_a_rejected_answer_is_asked_once_more_with_its_fault(ask: Callable[..., Finished]) -> None:
    seen: list[list[dict[str, str]]] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(json.loads(request.content)["messages"])
        if len(seen) > 1:
            return answer(request)
        content = json.dumps({"findings": "Large right pneumothorax.", "impression": "", "removed": []})
        return httpx2.Response(200, json={"choices": [{"finish_reason": "stop", "message": {"content": content}}]})

    asked = ask(handle, texts=1)
    assert (asked.calls, asked.retries) == (2, 1)
    assert [outcome.status for outcome in asked.outcomes] == [Status.ACCEPTED]
    assert "Large right pneumothorax." in seen[1][-2]["content"]
    assert seen[1][-1]["content"].startswith("That answer is refused.")


def test_sigterm_drains_exits_75_and_the_next_run_asks_the_rest_alone(
    chat_server: Callable[..., Any],
    phantom_store: Callable[..., Store],
    clean_command: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = chat_server("--latency-ms", "150")
    store = phantom_store(40)
    endpoints = server.endpoints(concurrency=8)
    process = clean_command(store, endpoints)
    while not server.kinds()["ok"] and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    kinds = server.kinds()
    assert 0 < kinds["ok"] == kinds["asked"] < 40
    assert store.read("cleaned_reports")["report_sha256"].n_unique() == kinds["ok"]
    monkeypatch.setenv("UNIX_ENDPOINTS", str(endpoints))
    summary = clean(CleanConfig(store=store.uri, endpoint="stand-in"))
    assert summary.already_final + summary.reports == 40
    asked = [event.report for event in server.events() if event.kind == "asked"]
    assert len(asked) == len(set(asked))


def test_neither_proxies_nor_account_ids_nor_headers_of_the_environment_are_used(
    chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ask: Callable[..., Finished]
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = chat_server("--latency-ms", "1")
    client = ChatClient(Endpoint(name="x", model="m", base_url=server.url), load_prompt("v1"))
    journal = Journal(Store(tmp_path / "proxied"))
    assert ask_all(client, [report(0)], journal, lambda _: None).num_outcomes == 1
    journal.close()

    monkeypatch.setenv("OPENAI_ORG_ID", "an-organization")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "a-project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: a-secret")
    headers: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        headers.extend(map(str, request.headers.items()))
        return answer(request)

    ask(handle, texts=1)
    assert "authorization" in " ".join(headers)
    assert not {"an-organization", "a-project", "a-secret"} & {part.split("'")[-2] for part in headers}


def test_a_host_that_turns_public_during_the_run_gets_nothing(
    chat_server: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = chat_server("--latency-ms", "1")
    port = int(server.url.rsplit(":", 1)[1].removesuffix("/v1"))
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]
    )
    endpoint = Endpoint(name="x", model="m", base_url=f"http://inside.example:{port}/v1")
    journal = Journal(Store(tmp_path / "journalled"))
    asked = ask_all(ChatClient(endpoint, load_prompt("v1"), private_only=True), [report(0)], journal, lambda _: None)
    journal.close()
    assert isinstance(asked.fault, PolicyError)
    assert "PhysioNet" in str(asked.fault)
    assert not server.events()
