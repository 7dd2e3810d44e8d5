"""Prefect's worker, which waits for its server and ends when it no longer asks for work: `python -m pipelines.worker`.

A worker whose server is away for minutes gives up asking, and its process stays (Prefect 3.8; its own health check then
says 503). Ended, it is started again by what supervises it.
"""

import os
import runpy
import signal
import sys
import threading
import time

import httpx
from prefect.settings import get_current_settings

from pipelines.server import SECONDS_FOR_THE_SERVER, api_url, await_api
from unix.errors import UnixError

POOL = "unix"
_SECONDS_BETWEEN_LOOKS = 10.0
_SECONDS_TO_STOP = 60.0


def end_when_it_gave_up(url: str) -> None:
    """Return never; end this process once the health check at `url` says that the worker stopped asking."""
    with httpx.Client(trust_env=False) as client:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            try:
                gave_up = client.get(url).is_server_error
            except httpx.TransportError:
                gave_up = False  # not serving yet, or too busy to answer
            if gave_up:
                sys.stderr.write("the worker no longer asks for work; ending it\n")
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(_SECONDS_TO_STOP)
                os._exit(1)


if __name__ == "__main__":
    try:
        await_api(api_url(), SECONDS_FOR_THE_SERVER)
    except UnixError as error:
        sys.exit(f"error: {error}")
    webserver = get_current_settings().worker.webserver
    health = f"http://{webserver.host}:{webserver.port}/health"
    threading.Thread(target=end_when_it_gave_up, args=(health,), daemon=True).start()
    sys.argv = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--with-healthcheck"]
    runpy.run_module("prefect", run_name="__main__")
