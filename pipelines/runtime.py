"""Runs one command of `unix` in a process of its own and returns the summary it writes.

A flow holds no job's code: it starts the command that a person would type. So a step has its own memory, imports and
signals, flows stay free of torch and of image and model libraries, and what Prefect sees is numbers, never text.
"""

import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from unix.errors import UnixError
from unix.parent import parent_environment

Option = str | int | float | bool | Path | list[str] | None
FAILED = 1
"""Exit status of a job that may pass when it is tried again."""

_ITEMS_PER_PARTITION = 2000
_SECONDS_TO_STOP = 60
"""How long a command may take to save its state when it is asked to stop."""


class CommandError(UnixError):
    """A command ended with another status than 0, which `exit_code` repeats (2 usage or policy, 75 interrupted)."""

    def __init__(self, command: str, exit_code: int, message: str) -> None:
        super().__init__(f"unix {command}: exit {exit_code}: {message}")
        self.exit_code = exit_code if exit_code > 0 else 1


@dataclass(frozen=True, slots=True)
class CommandSummary:
    """What a command reported about its work."""

    command: str
    seconds: float
    values: dict[str, Any]
    """The JSON object that `--json` writes."""

    def count(self, *names: str) -> int:
        """The sum of the named whole numbers; an unknown name is an error, never 0."""
        return sum(int(self.values[name]) for name in names)

    def numbers(self) -> dict[str, int | float]:
        """Every number of the summary by its dotted name; text is left out."""
        return dict(_numbers(self.values))


def words(**options: Option) -> list[str]:
    """Options as words: `dry_run=True` is `--dry-run`, a list repeats its option, None and False are left out."""
    line: list[str] = []
    for name, value in options.items():
        flag = f"--{name.rstrip('_').replace('_', '-')}"
        if value is True:
            line.append(flag)
        elif isinstance(value, list):
            line.extend(word for item in value for word in (flag, item))
        elif value is not None and value is not False:
            line.extend((flag, str(value)))
    return line


def partition_names(num_items: int, at_least: int = 1) -> list[str]:
    """Such as `["0/2", "1/2"]`: as many as it takes for parts of at most 2,000 items, about equal by digest."""
    count = max(1, at_least, math.ceil(num_items / _ITEMS_PER_PARTITION))
    return [f"{index}/{count}" for index in range(count)]


def run_command(
    command: str,
    *arguments: str,
    log: Callable[[str], object],
    timeout: float | None = None,
    **options: Option,
) -> CommandSummary:
    """Run `unix COMMAND ARGUMENTS --option value ... --json FILE`.

    Args:
        command: the command's words, such as `"evaluate understanding"`.
        arguments: positional arguments after it.
        log: receives the command's progress, line by line.
        timeout: seconds after which the command is asked to stop, and killed if it does not.
        options: see `words`.

    Raises:
        CommandError: the command failed, and the message is its own one-line error; or it took too long.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="unix-") as folder:
        summary = Path(folder, "summary.json")
        line = [sys.executable, "-m", "unix", *command.split(), *arguments, *words(**options), "--json", str(summary)]
        last_lines: deque[str] = deque(maxlen=20)
        with subprocess.Popen(
            line,
            env=parent_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process:
            late = threading.Event()

            def stop_late() -> None:
                late.set()
                _stop(process)

            alarm = threading.Timer(timeout or 0, stop_late)
            if timeout is not None:
                alarm.start()
            try:
                for text in cast(Any, process.stderr):
                    last_lines.append(text.rstrip())
                    log(text.rstrip())
            except BaseException:
                _stop(process)
                raise
            finally:
                alarm.cancel()
        if process.returncode != 0 and late.is_set():
            raise CommandError(command, FAILED, f"not done after {timeout} s; what it finished is kept")
        if process.returncode != 0:
            raise CommandError(command, process.returncode, _reason(last_lines))
        values = json.loads(summary.read_text(encoding="utf-8"))
    return CommandSummary(command, time.monotonic() - start, values)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()


def _reason(last_lines: deque[str]) -> str:
    errors = [line.removeprefix("error: ") for line in last_lines if line.startswith("error: ")]
    return errors[-1] if errors else (last_lines[-1] if last_lines else "it said nothing")


def _numbers(values: dict[str, Any], prefix: str = "") -> list[tuple[str, int | float]]:
    found: list[tuple[str, int | float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found.extend(_numbers(cast(dict[str, Any], value), f"{prefix}{name}."))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((f"{prefix}{name}", value))
    return found
