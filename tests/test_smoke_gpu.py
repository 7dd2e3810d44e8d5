"""`benchmarks/smoke_gpu.py` where there is no GPU: it says so, and runs every stage at tiny size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_dry_run_takes_five_steps_of_each_stage(repository: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(repository / "benchmarks/smoke_gpu.py"), "--json", str(tmp_path / "smoke.json")],
        cwd=tmp_path,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No GPU here" in done.stdout
    result = json.loads((tmp_path / "smoke.json").read_text())
    assert result["dry_run"]
    assert [(row["stage"], row["steps"], row["finite"]) for row in result["rows"]] == [
        (f"stage{number}", 5, True) for number in (1, 2, 3)
    ]
