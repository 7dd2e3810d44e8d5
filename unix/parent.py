"""Lets a subprocess end with the process that started it, however that one died.

The parent passes `parent_environment()` on; the child calls `stop_with_parent()`.
"""

import os
import signal
import threading
import time

_VARIABLE = "UNIX_PARENT_PID"
_SECONDS_BETWEEN_LOOKS = 1.0


def parent_environment() -> dict[str, str]:
    """This process's environment, with its own id for a child to watch."""
    return {**os.environ, _VARIABLE: str(os.getpid())}


def stop_with_parent() -> None:
    """Send this process SIGTERM soon after the parent that asked for it has gone; do nothing where none did."""
    parent = os.environ.pop(_VARIABLE, None)
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
