"""Fixtures for flows."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines import steps
from pipelines.runtime import CommandError, CommandSummary, words
from unix.cli import run


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Flows call their commands instead of starting them."""

    def call(
        command: str, *arguments: str, log: Callable[[str], object], timeout: float | None = None, **options: Any
    ) -> CommandSummary:
        summary = tmp_path / "summary.json"
        line = [*command.split(), *arguments, *words(**options)]
        if status := run([*line, "--json", str(summary)]):
            raise CommandError(command, status, " ".join(line))
        return CommandSummary(command, 0.0, json.loads(summary.read_text()))

    monkeypatch.setattr(steps, "run_command", call)
