"""One round of `benchmarks/chaos.py` for each victim: flow process, worker, server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_what_is_killed_is_made_up_for(repository: Path, tmp_path: Path) -> None:
    summary = tmp_path / "chaos.json"
    words = ["--rounds", "3", "--studies", "60", "--seed", "1", "--json", str(summary)]
    command = [sys.executable, str(repository / "benchmarks" / "chaos.py"), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outcome = json.loads(summary.read_text())
    assert len({each["victim"].removesuffix(" (gone already)") for each in outcome["rounds"]}) == 3
    assert (outcome["chains"], outcome["chains_equal"], outcome["not_final"]) == (1, 1, 0)
