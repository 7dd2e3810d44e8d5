"""`metrics.jsonl`: one JSON object per optimizer step, appended as the run goes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from unix.runs import METRICS_FILE
from unix.training.tensorboard import TensorBoard


class MetricsFile:
    """Appends rows; opening it drops every row past `step`, so that a resumed run has each step once.

    With `tensorboard`, every row goes there as well.
    """

    def __init__(self, run_dir: str | Path, step: int, tensorboard: bool = False) -> None:
        path = Path(run_dir) / METRICS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step] if step else []
        aside = path.with_suffix(".partial")
        aside.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        aside.replace(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._tensorboard = TensorBoard(Path(run_dir), step) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Append the row of optimizer step `step` (counted from 1); a number that is not finite becomes null."""
        row = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        if self._tensorboard is not None:
            self._tensorboard.write(step, values)


def read_metrics(run_dir: str | Path) -> list[dict[str, float]]:
    """All rows of a run, oldest first; a number that was not finite is NaN."""
    rows = (json.loads(line) for line in _whole_lines(Path(run_dir) / METRICS_FILE))
    return [{name: math.nan if value is None else value for name, value in row.items()} for row in rows]


def _whole_lines(path: Path) -> list[str]:
    """Lines that were written to their end; a crash may leave a torn last one."""
    if not path.is_file():
        return []
    return [
        line.rstrip("\n") for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")
    ]
