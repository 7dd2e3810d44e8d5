"""Runs on disk, read without torch: which checkpoint is whole, what its `meta.json` says, and a table of runs.

A run's folder holds `step-<N>/` folders, of which those with a `meta.json` are whole, and `metrics.jsonl`.
"""

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from unix.config import Config, describe
from unix.errors import ConfigError, ResumeError, WeightsError

META_FILE = "meta.json"
METRICS_FILE = "metrics.jsonl"
MACHINE_COLUMNS = frozenset(
    {"tokens_per_second", "data_wait_seconds", "seconds", "memory_gb", "model_flops_utilisation"}
)
"""What in the metrics tells of the machine, not of the training: all else is the same in a run that was resumed."""
INCIDENTS_FILE = "incidents.jsonl"
_LAST_BYTES = 1 << 16


class Meta(Config):
    """`meta.json` of a checkpoint: what it is and what it came from. Written last inside the folder."""

    stage: str
    step: int
    steps: int
    """Length of the whole run."""
    seed: int
    loader: dict[str, Any] | None
    """Where the sample stream stood, so that the next batch is the one an uninterrupted run would see."""
    configuration_digest: str
    architecture_digest: str
    shards_digest: str
    """Digest of the manifest of the shard set that was read."""
    code_revision: str = ""
    """Of the code that wrote it, "" where nobody said."""
    parents: tuple[str, ...] = ()
    """Checkpoints whose weights this run started from, as `<stage>:<configuration digest>:<step>`, the first first."""
    notes: tuple[str, ...] = ()
    """What a user of these weights must know, such as that a warm start stands for pretrained weights."""


class RunRow(Config):
    """One run as `unix runs` shows it."""

    folder: str
    stage: str | None
    """None where there is no whole checkpoint yet."""
    checkpoint: int
    """Step of the newest whole checkpoint; 0 where there is none."""
    step: int
    """The last step in the metrics."""
    steps: int | None
    """Length of the whole run."""
    loss: float | None
    """Of the last step; None where it was not finite or there is none."""
    incidents: int
    """Steps that were not finite, and spikes of the loss."""
    updated: datetime | None
    """When the run last wrote."""
    parents: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None
    """Why the newest checkpoint's meta data cannot be read."""


def newest_checkpoint(run_dir: str | Path) -> Path | None:
    """The whole checkpoint with the highest step, or None; folders without `meta.json` are unfinished and ignored."""
    whole = {
        int(number): path.parent
        for path in Path(run_dir).glob(f"step-*/{META_FILE}")
        if (number := path.parent.name.removeprefix("step-")).isdecimal()
    }
    return whole[max(whole)] if whole else None


def newest_step(folder: Path) -> Path:
    """The checkpoint meant by a run's or a step's folder: itself, or the run's whole `step-<N>` with the largest N.

    Raises:
        WeightsError: there is none.
    """
    if (folder / META_FILE).is_file():
        return folder
    newest = newest_checkpoint(folder)
    if newest is None:
        raise WeightsError(f"no checkpoint in {folder}: give a run's folder with step-<N> inside, or a step's folder")
    return newest


def read_meta(folder: Path) -> Meta:
    """The meta data of one checkpoint.

    Raises:
        ResumeError: `meta.json` is missing or does not have the expected fields.
    """
    path = folder / META_FILE
    try:
        return Meta.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResumeError(f"cannot read {path}: {error.strerror}") from error
    except ValidationError as error:
        raise ResumeError(f"{path}: {describe(error)}") from error


def list_runs(folder: str | Path) -> list[RunRow]:
    """The runs in `folder` and below, the one that wrote last first; `folder` itself may be a run.

    Raises:
        ConfigError: there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(f"there is no folder {root}; name the folder of your runs with --runs")
    found: set[Path] = set()
    for name, folders, files in os.walk(root):
        here = Path(name)
        if METRICS_FILE in files or newest_checkpoint(here) is not None:
            found.add(here)
            folders.clear()
        else:
            folders[:] = [item for item in folders if not item.startswith(".")]
    rows = [_row(run) for run in found]
    return sorted(rows, key=lambda row: (row.updated is not None, row.updated, row.folder), reverse=True)


def _row(run: Path) -> RunRow:
    newest, last = newest_checkpoint(run), _last_row(run / METRICS_FILE)
    meta, problem = None, None
    if newest is not None:
        try:
            meta = read_meta(newest)
        except ResumeError as error:
            problem = str(error)
    loss = last.get("loss")
    step = 0 if newest is None else int(newest.name.removeprefix("step-"))
    places = (run / METRICS_FILE, *(() if newest is None else (newest / META_FILE,)))
    times = [path.stat().st_mtime for path in places if path.is_file()]
    return RunRow(
        folder=str(run),
        stage=None if meta is None else meta.stage,
        checkpoint=step,
        step=int(last.get("step", step)),
        steps=None if meta is None else meta.steps,
        loss=float(loss) if isinstance(loss, int | float) and math.isfinite(loss) else None,
        incidents=_count_lines(run / INCIDENTS_FILE),
        updated=datetime.fromtimestamp(max(times), UTC) if times else None,
        parents=() if meta is None else meta.parents,
        notes=() if meta is None else meta.notes,
        problem=problem,
    )


def _last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a file of JSON lines, read from its end; a crash may leave a torn one after it."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _LAST_BYTES))
        whole, _, _ = file.read().rpartition(b"\n")
    for line in reversed(whole.splitlines()):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            return cast(dict[str, Any], row)
    return {}


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
