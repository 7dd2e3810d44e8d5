"""Prefect's API: the one that this folder's settings name, or a temporary one for one process and never longer than it.

Prefect starts a temporary server by itself where none is configured, but leaves it running when its owner is killed.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from unix.errors import ConfigError, UnixError
from unix.parent import parent_environment, stop_with_parent

LOOPBACK = "127.0.0.1"
SECONDS_FOR_THE_SERVER = 300.0
_SECONDS_TO_STOP = 10


@contextmanager
def temporary_api(home: Path) -> Generator[str]:
    """Serve the API while the body runs, with its database and log in `home`; yields its URL.

    Raises:
        UnixError: the server did not start; the message names its log.
    """
    home.mkdir(parents=True, exist_ok=True)
    port, log = _free_port(), home / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "pipelines.server", str(port)],
            env={**parent_environment(), "PREFECT_HOME": str(home), "PREFECT_UI_ENABLED": "false"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for its owner, who still tells it how the runs ended
        )
    try:
        url = f"http://{LOOPBACK}:{port}/api"
        try:
            await_api(url, SECONDS_FOR_THE_SERVER, alive=lambda: server.poll() is None)
        except UnixError as error:
            raise UnixError(f"the temporary Prefect server at {url} did not start; its log is {log}") from error
        yield url
    finally:
        server.terminate()
        try:
            server.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def api_url() -> str:
    """The address of the API that Prefect's settings name.

    Raises:
        ConfigError: they name none.
    """
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if url is None:
        raise ConfigError("no Prefect server is named: run this in the checkout, whose prefect.toml names one")
    return url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def await_api(url: str, seconds: float, alive: Callable[[], bool] = lambda: True) -> None:
    """Wait until the API at `url` answers, while the process that is to serve it is alive.

    Raises:
        UnixError: it did not, in so many seconds.
    """
    deadline = time.monotonic() + seconds
    with httpx.Client(trust_env=False) as client:  # a configured proxy has no business on loopback
        while alive() and time.monotonic() < deadline:
            try:
                if client.get(f"{url}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
    raise UnixError(f"no Prefect server answers at {url}")


def _serve(port: int) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    uvicorn.run(create_app(ephemeral=True), host=LOOPBACK, port=port, log_level="error")


if __name__ == "__main__":
    stop_with_parent()
    _serve(int(sys.argv[1]))
