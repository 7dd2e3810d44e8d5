"""The numbers of `metrics.jsonl` as TensorBoard scalars, for watching curves; nothing reads them back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unix.errors import ConfigError

FOLDER = "tensorboard"


class TensorBoard:
    """Appends scalars to `<run_dir>/tensorboard`; steps after `step`, where a run is resumed, are taken back."""

    def __init__(self, run_dir: Path, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tensorboard: true needs the package tensorboardX; install 'unix-cxr[tensorboard]' or leave it off: "
                "metrics.jsonl has the same numbers"
            ) from error
        # files are named by the second: a restart within it must not write over the one before
        self._writer: Any = SummaryWriter(str(run_dir / FOLDER), purge_step=step + 1, filename_suffix=f".{step:09d}")

    def write(self, step: int, values: Mapping[str, float | str]) -> None:
        """Every number of a row, one that is not finite included."""
        for name, value in values.items():
            if isinstance(value, float):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is waiting."""
        self._writer.close()
