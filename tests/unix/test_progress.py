"""Progress: lines where there is no terminal, and nothing lost on the way through."""

import logging
import time

import pytest

from unix.progress import Progress, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the module sees; tests set its only element."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_track_yields_every_item_in_order() -> None:
    assert list(track(iter(range(5)), "counting", 5)) == [0, 1, 2, 3, 4]


def test_one_line_every_ten_seconds(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("reading", 100) as progress:
        progress.advance(10)
        assert caplog.messages == []
        clock[0] += 10
        progress.advance(10, "loss 1.5")
        clock[0] += 9
        progress.advance(10)
    assert caplog.messages == ["reading: 20/100, 2.0/s, 40 s left, loss 1.5"]


def test_an_unknown_total_shows_count_and_rate(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("reading", None) as progress:
        clock[0] += 20
        progress.advance(10)
    assert caplog.messages == ["reading: 10 done, 0.5/s"]


def test_no_progress_yet_leaves_the_time_open(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("reading", 10) as progress:
        clock[0] += 20
        progress.advance(0)
    assert caplog.messages == ["reading: 0/10, 0.0/s, inf s left"]
