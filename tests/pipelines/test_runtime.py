"""Commands as subprocesses: how options become words, and what a failure turns into."""

import os
import sys
from pathlib import Path

import pytest

from pipelines.runtime import CommandError, CommandSummary, partition_names, run_command, words


@pytest.fixture(autouse=True)
def commands_from_the_checkout(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))


def test_options_become_words() -> None:
    assert words(store="s", limit=3, dry_run=True, retry_rejected=False, model=None, from_="x") == [
        *("--store", "s"),
        *("--limit", "3"),
        "--dry-run",
        *("--from", "x"),
    ]
    assert words(set=["a.b=1", "c=2"]) == ["--set", "a.b=1", "--set", "c=2"]


@pytest.mark.parametrize(
    ("items", "at_least", "count"), [(0, 1, 1), (2000, 1, 1), (2001, 1, 2), (3, 4, 4), (9000, 2, 5)]
)
def test_partitions_hold_at_most_2000_items(items: int, at_least: int, count: int) -> None:
    assert partition_names(items, at_least) == [f"{index}/{count}" for index in range(count)]


def test_numbers_leave_text_out() -> None:
    summary = CommandSummary(
        "clean", 1.0, {"kept": 3, "model": "rules", "rejected": {"empty": 1}, "dry_run": False, "flags": ["x"]}
    )
    assert summary.numbers() == {"kept": 3, "rejected.empty": 1}
    assert summary.count("kept") == 3
    with pytest.raises(KeyError):
        summary.count("absent")


def test_a_command_returns_its_summary(tmp_path: Path) -> None:
    summary = run_command("phantom", log=print, studies=3, out=tmp_path / "phantom", image_size=32)
    assert summary.command == "phantom"
    assert summary.seconds > 0
    assert summary.count("studies") == 3
    assert any((tmp_path / "phantom").iterdir())


def test_a_failure_carries_the_commands_own_line_and_status(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(CommandError, match=r"unix ingest: exit 1: .*absent") as raised:
        run_command("ingest", log=lines.append, source="phantom", root=tmp_path / "absent", store=tmp_path / "store")
    assert raised.value.exit_code == 1
    assert lines
    with pytest.raises(CommandError, match="No such option") as raised:
        run_command("ingest", log=lines.append, colour="red")
    assert raised.value.exit_code == 2


def test_a_command_that_takes_too_long_is_asked_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for the interpreter that ignores its words and waits; it ends by the signal alone."""
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    with pytest.raises(CommandError, match=r"not done after 0\.2 s") as raised:
        run_command("train", "stage1", log=print, timeout=0.2)
    assert raised.value.exit_code == 1


def test_a_command_is_stopped_when_its_log_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever ends the flow, its command does not stay behind."""
    talker = tmp_path / "python"
    talker.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\necho line >&2\nexec sleep 60\n")
    talker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(talker))

    def broken(line: str) -> None:
        raise RuntimeError(line)

    with pytest.raises(RuntimeError, match="line"):
        run_command("train", "stage1", log=broken)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
