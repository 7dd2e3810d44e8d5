"""Cleaning against an endpoint with faults, in a process that is killed: nothing lost, nothing wrong, nothing twice."""

import json
import logging
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from unix.data.cleaning.run import CleanConfig, clean
from unix.store import KEYS, Store

logger = logging.getLogger(__name__)

FAULTS = {"status_429", "status_500", "length", "truncated", "blank", "hang", "reset"}
ANSWERED = ["source", "study_id", "report_sha256", "status", "findings", "impression", "removed", "flags"]
SECONDS_OF_A_FLUSH = 0.5

Start = Callable[..., subprocess.Popen[str]]
Serve = Callable[..., Any]
Fill = Callable[[int, str], Store]


def answers(store: Store) -> pl.DataFrame:
    return store.read("cleaned_reports", ANSWERED).sort("source", "study_id")


def expected(fill: Fill, studies: int) -> pl.DataFrame:
    """What the embedded rules, whose answers the server gives, make of the same studies."""
    store = fill(studies, "expected")
    clean(CleanConfig(store=store.uri))
    return answers(store)


def no_key_twice(store: Store) -> bool:
    return store.read("cleaned_reports", KEYS["cleaned_reports"]).is_unique().all()


def finish_anew(start: Start, store: Store, endpoints: Path) -> str:
    return finish(start(store, endpoints))


def finish(process: subprocess.Popen[str]) -> str:
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    return errors


def test_a_killed_run_loses_nothing_and_asks_again_only_what_was_in_flight(
    chat_server: Serve, phantom_store: Fill, clean_command: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = chat_server("--latency-ms", "30")
    endpoints = server.endpoints(concurrency=4, timeout_seconds=5)
    monkeypatch.setenv("UNIX_ENDPOINTS", str(endpoints))
    store = phantom_store(60, "store")

    def rerun() -> None:
        clean(CleanConfig(store=store.uri, endpoint="stand-in"))

    kill_and_rerun(server, store, clean_command(store, endpoints), rerun, concurrency=4, asked_before=20)
    assert answers(store).equals(expected(phantom_store, 60))


@pytest.mark.slow
def test_faults_lose_nothing_and_let_nothing_wrong_through(
    chat_server: Serve, phantom_store: Fill, clean_command: Start, tmp_path: Path
) -> None:
    server = chat_server("--faults", "--latency-ms", "60", "--seed", "1")
    store = phantom_store(600, "store")
    summary = tmp_path / "summary.json"
    started = time.monotonic()
    finish(clean_command(store, server.endpoints(concurrency=32, timeout_seconds=2), "--json", str(summary)))
    seconds = time.monotonic() - started
    kinds = server.kinds()
    assert set(kinds) == FAULTS | {"asked", "ok"}, "every kind of fault must have happened"
    numbers = json.loads(summary.read_text())
    assert (numbers["reports"], numbers["failed"]) == (600, 0)
    assert numbers["too_many_requests"] == kinds["status_429"]
    wrong = answers(store).join(expected(phantom_store, 600), on=ANSWERED[:-1], how="anti", nulls_equal=True)
    logger.info(
        f"600 reports, {dict(kinds)}: lost {600 - answers(store).height}, wrong {wrong.height}, {seconds:.1f} s"
    )
    assert answers(store).equals(expected(phantom_store, 600))


@pytest.mark.slow
def test_ten_kills_at_random_moments(chat_server: Serve, phantom_store: Fill, clean_command: Start) -> None:
    right = expected(phantom_store, 600)
    draw = random.Random(3)
    for trial in range(10):
        server = chat_server("--faults", "--latency-ms", "40", "--seed", str(trial))
        endpoints = server.endpoints(concurrency=32, timeout_seconds=2)
        store = phantom_store(600, f"store-{trial}")
        asked_before = draw.randrange(1, 600)
        first = clean_command(store, endpoints)
        rerun = partial(finish_anew, clean_command, store, endpoints)
        again, bound = kill_and_rerun(server, store, first, rerun, concurrency=32, asked_before=asked_before)
        logger.info(f"trial {trial}: killed after {asked_before} requests, asked again {again} <= {bound}")
        assert answers(store).equals(right)


def kill_and_rerun(
    server: Any,
    store: Store,
    first: subprocess.Popen[str],
    rerun: Callable[[], object],
    concurrency: int,
    asked_before: int,
) -> tuple[int, int]:
    """Kill a run once so many requests were made, finish it with another; texts asked in both, and their bound."""
    while server.kinds()["asked"] < asked_before and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    killed = time.time()
    before = server.events()
    rerun()
    after = server.events()[len(before) :]
    assert no_key_twice(store)
    asked = {event.report for event in before if event.kind == "asked"}
    again = asked & {event.report for event in after if event.kind == "asked"}
    unflushed = {e.report for e in before if e.kind == "ok" and e.time > killed - SECONDS_OF_A_FLUSH}
    bound = concurrency + len(unflushed)
    assert len(again) <= bound
    late = [
        f"{killed - event.time:.2f} s"
        for event in before
        if event.kind == "ok" and event.time <= killed - SECONDS_OF_A_FLUSH and event.report in again
    ]
    assert not late, f"paid for twice: answers that came {', '.join(late)} before the kill"
    return len(again), bound
