"""The real thing: a Prefect server, a worker, the deployments of prefect.yaml, one run followed to its end."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from unix.cli import run
from unix.records import Status
from unix.store import Store

pytestmark = pytest.mark.slow

SECONDS_TO_START = 240
STUDIES = 60


@contextlib.contextmanager
def background(*command: str, log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped at the end, its output in a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def prefect_environment(repository: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server and a worker of our own, with every deployment of prefect.yaml; yields the environment to reach them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(repository),
    }
    server = background(
        *(prefect(), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"),
        log=tmp_path / "server.log",
        environment=environment,
    )
    worker = background(
        *(prefect(), "worker", "start", "--pool", "unix"), log=tmp_path / "worker.log", environment=environment
    )
    with server as process:
        await_health(environment["PREFECT_API_URL"], process, tmp_path / "server.log")
        call("--no-prompt", "work-pool", "create", "unix", "--type", "process", cwd=repository, environment=environment)
        call("--no-prompt", "deploy", "--all", cwd=repository, environment=environment)
        with worker:
            yield environment


def prefect() -> str:
    return str(Path(sys.executable).with_name("prefect"))


def await_health(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"the server exited with {server.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.5)
    pytest.fail(f"no server after {SECONDS_TO_START} s: {log.read_text()[-2000:]}")


def call(*words: str, cwd: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        [prefect(), *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_clean_reports_runs_as_a_deployment(prefect_environment: dict[str, str], tmp_path: Path) -> None:
    phantom, store = str(tmp_path / "phantom"), str(tmp_path / "store")
    assert run(["phantom", "--studies", str(STUDIES), "--out", phantom, "--no-images"]) == 0
    assert run(["ingest", "--source", "phantom", "--root", phantom, "--store", store]) == 0

    words = ("deployment", "run", "clean-reports/clean-reports", "--param", f"store={store}", "--watch")
    told = call(*words, cwd=tmp_path, environment=prefect_environment)

    assert "Completed" in told, (tmp_path / "worker.log").read_text()[-3000:]
    rows = Store(store).read("cleaned_reports", ["study_id", "status"])
    assert rows["study_id"].n_unique() == STUDIES
    assert Status.FAILED not in rows["status"].to_list()

    call(*words, cwd=tmp_path, environment=prefect_environment)
    assert Store(store).read("cleaned_reports", ["study_id"]).height == rows.height, "a second run has nothing to do"
