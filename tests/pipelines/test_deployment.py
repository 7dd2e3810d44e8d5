"""The real thing: what `make up` runs, with the deployments of prefect.yaml, and runs followed to their end."""

import contextlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from unix.cli import run
from unix.records import Status
from unix.store import Store

pytestmark = pytest.mark.slow

SECONDS_TO_START = 240
STUDIES = 60


@contextlib.contextmanager
def background(*command: str, log: Path, environment: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is stopped at the end, its output in a file."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=cwd)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(180)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Webhook(http.server.ThreadingHTTPServer):
    """Keeps what is posted to it."""

    def __init__(self) -> None:
        self.messages = list[str]()
        messages = self.messages

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                messages.append(json.loads(self.rfile.read(int(self.headers["content-length"])))["text"])
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    server = Webhook()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def unattended(repository: Path, tmp_path: Path, webhook: Webhook) -> Iterator[dict[str, str]]:
    """All that `make up` runs, with ports and a home of its own; yields the environment to reach it."""
    home, port = tmp_path / "prefect", free_port()
    (home / "logs").mkdir(parents=True)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "UNIX_"))},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(repository),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
        "UNIX_SERVE_PORT": str(free_port()),
        "UNIX_NOTIFY_URL": webhook.url,
        "DO_NOT_TRACK": "1",
    }
    words = ("supervisord", "--configuration", "supervisord.conf")
    with background(*words, log=tmp_path / "up.log", environment=environment, cwd=repository) as process:
        wait_for(lambda: process.poll() is not None or "Prefect: http" in (tmp_path / "up.log").read_text())
        assert process.poll() is None, logs(tmp_path)
        yield environment


def wait_for(condition: Callable[[], bool], seconds: float = SECONDS_TO_START) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.5)


def logs(folder: Path) -> str:
    files = [folder / "up.log", *sorted((folder / "prefect" / "logs").iterdir())]
    return "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in files)


def call(*words: str, cwd: Path, environment: dict[str, str]) -> str:
    result = subprocess.run(
        words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_unattended(repository: Path, unattended: dict[str, str], webhook: Webhook, tmp_path: Path) -> None:
    """A run completes, and another has nothing to do; one that fails is told of; deploying again changes nothing."""
    phantom, store = str(tmp_path / "phantom"), str(tmp_path / "store")
    assert run(["phantom", "--studies", str(STUDIES), "--out", phantom, "--no-images"]) == 0
    assert run(["ingest", "--source", "phantom", "--root", phantom, "--store", store]) == 0
    clean = ("prefect", "deployment", "run", "clean-reports/clean-reports", "--watch", "--param")

    for _ in range(2):
        told = call(*clean, f"store={store}", cwd=tmp_path, environment=unattended)
        assert "Completed" in told, logs(tmp_path)
        rows = Store(store).read("cleaned_reports", ["study_id", "status"])
        assert rows["study_id"].n_unique() == rows.height == STUDIES
        assert Status.FAILED not in rows["status"].to_list()

    call("prefect", "deployment", "run", "clean-reports/clean-reports", "--param", f"store={tmp_path / 'absent'}",
         cwd=tmp_path, environment=unattended)  # fmt: skip
    wait_for(lambda: bool(webhook.messages))
    assert webhook.messages[0].startswith("clean-reports Failed")
    assert "holds no studies" in webhook.messages[0]

    before = declared(unattended)
    assert set(before["deployments"]) == {each["name"] for each in deployments(repository)}
    extra = copy_of(repository, tmp_path / "checkout", add="ingest-nightly")
    deploy = (sys.executable, "-m", "pipelines.deployments")
    call(*deploy, cwd=extra, environment=unattended)
    assert "ingest-nightly" in declared(unattended)["deployments"]
    assert "removed ingest-nightly" in call(*deploy, cwd=repository, environment=unattended)
    assert declared(unattended) == before


def declared(environment: dict[str, str]) -> dict[str, list[str]]:
    """Names of what the server has."""
    with httpx.Client(base_url=environment["PREFECT_API_URL"], trust_env=False) as client:
        return {
            kind: sorted(each["name"] for each in client.post(f"/{kind}/filter", json={}).raise_for_status().json())
            for kind in ("deployments", "automations", "work_pools")
        }


def deployments(repository: Path) -> list[dict[str, Any]]:
    return yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]


def copy_of(repository: Path, folder: Path, add: str) -> Path:
    """A checkout whose prefect.yaml declares one more deployment."""
    folder.mkdir()
    for name in ("automations.yaml", "prefect.toml"):
        shutil.copy(repository / name, folder)
    shutil.copytree(repository / "pipelines", folder / "pipelines")
    project = yaml.safe_load((repository / "prefect.yaml").read_text())
    project["deployments"].append({**project["deployments"][0], "name": add})
    (folder / "prefect.yaml").write_text(yaml.safe_dump(project))
    return folder
