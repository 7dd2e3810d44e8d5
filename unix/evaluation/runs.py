"""What a training run's folder tells without loading it: its stage, its losses, its size. Free of torch."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unix.errors import WeightsError
from unix.evaluation.charts import Series
from unix.runs import MACHINE_COLUMNS, META_FILE, METRICS_FILE, newest_checkpoint

_NO_LOSS = MACHINE_COLUMNS | {"step", "part", "grad_norm", "learning_rate"}


@dataclass(frozen=True, slots=True)
class Run:
    """One finished stage."""

    folder: Path
    """The newest step's."""
    stage: str
    steps: int
    seed: int
    configuration_digest: str
    notes: tuple[str, ...]
    losses: dict[str, tuple[Series, ...]]
    """Curves by the stage's part; "" where it has none."""


def read_run(folder: str | Path) -> Run:
    """Read a run's newest step and its metrics.

    Raises:
        WeightsError: the folder holds no whole checkpoint.
    """
    root = Path(folder)
    newest = newest_checkpoint(root)
    if newest is None:
        raise WeightsError(f"no checkpoint in {root}: expected step-<N> with meta.json inside")
    meta = json.loads((newest / META_FILE).read_bytes())
    metrics = root / METRICS_FILE
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return Run(
        folder=newest,
        stage=meta["stage"],
        steps=meta["step"],
        seed=meta["seed"],
        configuration_digest=meta["configuration_digest"],
        notes=tuple(meta.get("notes", ())),
        losses=loss_series([json.loads(line) for line in lines]),
    )


def loss_series(rows: list[dict[str, Any]]) -> dict[str, tuple[Series, ...]]:
    """Curves by part of the stage, one per loss term; a total that is its only term's double is left out."""
    curves: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in rows:
        terms = {name: value for name, value in row.items() if name not in _NO_LOSS}
        if len(terms) == 2 and "loss" in terms and len(set(terms.values())) == 1:
            del terms["loss"]
        for name, value in terms.items():
            steps, values = curves.setdefault(row.get("part", ""), {}).setdefault(name, ([], []))
            steps.append(float(row["step"]))
            values.append(math.nan if value is None else float(value))
    return {
        part: tuple(Series(name, steps, values) for name, (steps, values) in terms.items())
        for part, terms in curves.items()
    }
