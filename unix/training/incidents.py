"""Steps that went wrong: one that is not finite is left out and counted, a jump of the loss is written down.

Both land in `incidents.jsonl` of the run's folder with the image ids of the whole global batch, so that the samples to
look at are known. What is written there changes nothing of the training itself.
"""

import json
import logging
import math
import statistics
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, PositiveInt

from unix.config import Config
from unix.data.stream import Sample
from unix.errors import UnixError
from unix.training.engine import Engine

logger = logging.getLogger(__name__)

FILE_NAME = "incidents.jsonl"


class IncidentConfig(Config):
    """When a step counts as an incident, and how many stop a run."""

    skips_in_a_row: PositiveInt = 5
    """Not finite steps, one after another, that stop the run; fewer are left out."""
    spike_factor: float = Field(default=3.0, gt=1)
    """A loss above this many medians of the losses before it is a spike."""
    spike_window: PositiveInt = 100
    """Losses that the median is taken over; fewer have no spikes."""


class Incidents:
    """Watches the losses of one run, on every rank alike."""

    def __init__(self, config: IncidentConfig, run_dir: Path, engine: Engine, label: str) -> None:
        self._config, self._path, self._engine, self._label = config, run_dir / FILE_NAME, engine, label
        self._losses: deque[float] = deque(maxlen=config.spike_window)
        self._skipped_in_a_row = 0

    def observe(self, step: int, loss: float, gradient_norm: float, samples: Sequence[Sample]) -> None:
        """Judge a finished step by the whole batch's loss and gradient norm; `samples` are this rank's.

        Raises:
            UnixError: it is the last of too many in a row that were not finite.
        """
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            self._skipped_in_a_row += 1
            self._record(step, "not_finite", loss, gradient_norm, samples)
            if self._skipped_in_a_row >= self._config.skips_in_a_row:
                raise UnixError(
                    f"{self._label}: loss or gradient was not finite {self._skipped_in_a_row} times in a row, last in "
                    f"step {step}, and none of these steps was applied; their samples are in {self._path}. Look at "
                    "them or lower learning_rate, then continue with --resume"
                )
            return
        self._skipped_in_a_row = 0
        if len(self._losses) == self._config.spike_window:
            usual = statistics.median(self._losses)
            if loss > self._config.spike_factor * usual:
                self._record(step, "spike", loss, gradient_norm, samples)
        self._losses.append(loss)

    def _record(self, step: int, kind: str, loss: float, gradient_norm: float, samples: Sequence[Sample]) -> None:
        image_ids = sorted(self._engine.gather([sample.image_id for sample in samples]))
        if not self._engine.is_main:
            return
        logger.warning("%s: step %d: %s, loss %g, gradient norm %g", self._label, step, kind, loss, gradient_norm)
        row = {"step": step, "kind": kind, "loss": repr(loss), "grad_norm": repr(gradient_norm), "image_ids": image_ids}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
