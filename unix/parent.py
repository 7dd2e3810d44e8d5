"""Lets a subprocess end with the process that started it, however that one died.

The parent passes `parent_environment()` on, or its id; the child calls `stop_with_parent()`.
"""

import os
import signal
import threading
import time

_VARIABLE = "UNIX_PARENT_PID"
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_SIGNALS = 60.0


def parent_environment() -> dict[str, str]:
    """This process's environment, with its own id for a child to watch."""
    return {**os.environ, _VARIABLE: str(os.getpid())}


def stop_with_parent(parent: int | None = None) -> None:
    """Send this process SIGTERM soon after its parent has gone, and again every minute until it ends.

    The parent is the one given, else the one that asked for it through the environment; do nothing where none did.
    """
    asked = os.environ.pop(_VARIABLE, None)
    if parent is None and asked is None:
        return
    watched = int(asked or 0) if parent is None else parent

    def watch() -> None:
        while os.getppid() == watched:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_SECONDS_BETWEEN_SIGNALS)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
