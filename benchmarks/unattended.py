"""All that `make up` runs, with ports and a home of its own, and an endpoint that writes down who asked: for the
benchmarks that disturb them (`chaos.py`, `long_run.py`).
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from unix.store import SCHEMAS, Store

CHECKOUT = Path(__file__).resolve().parent.parent
WORDS = {"worker": "pipelines.worker", "server": "prefect\0server\0start", "flow": "prefect.engine"}
"""In the command line of each process that is killed."""

TABLES = ("studies", "images", "cleaned_reports", "splits", "rejections")
TIME_AND_EFFORT = {
    *("created_at", "ingested_at", "latency_ms", "attempts", "cost_usd"),
    *("prompt_tokens", "completion_tokens", "cached_tokens"),
}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SECONDS_OF_A_FLUSH = 0.5
SECONDS_AT_MOST = 1200.0


class Unattended:
    """What `make up` runs, and ways to start flows and to kill."""

    def __init__(self, home: Path, endpoints: Path, **environment: str) -> None:
        self.home = home
        self.log = home / "up.log"
        """What supervisord says: which program ended, and that it was started again."""
        self.url = f"http://127.0.0.1:{free_port()}/api"
        self.pages = f"http://127.0.0.1:{(pages := free_port())}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "UNIX_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_PORT": self.url.split(":")[2].removesuffix("/api"),
            "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
            "UNIX_SERVE_PORT": str(pages),
            "UNIX_ENDPOINTS": str(endpoints),
            "DO_NOT_TRACK": "1",
            **environment,
        }
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    @contextlib.contextmanager
    def running(self, keep: tuple[str, ...] = ()) -> Iterator[None]:
        """Run all of it while the body runs; of the automations that start a deployment, only those of `keep` stay."""
        (self.home / "logs").mkdir(parents=True)
        words = ("supervisord", "--configuration", "supervisord.conf")
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                words, cwd=CHECKOUT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                wait_for(lambda: "Prefect: http" in self.log.read_text() or process.poll() is not None, "make up")
                self._start_nothing_else(keep)
                yield
            finally:
                process.terminate()
                process.wait(180)

    def _start_nothing_else(self, keep: tuple[str, ...]) -> None:
        kept = {self.deployment(name)["id"] for name in keep}
        for automation in self.ask("POST", "/automations/filter", {}):
            starts = [each["deployment_id"] for each in automation["actions"] if each["type"] == "run-deployment"]
            if starts and not kept.issuperset(starts):
                self._client.delete(f"/automations/{automation['id']}").raise_for_status()

    def deployment(self, flow: str) -> dict[str, Any]:
        """What the server knows of a flow's deployment."""
        return self.ask("GET", f"/deployments/name/{flow}/{flow}")

    def start(self, flow: str, parameters: dict[str, Any]) -> str:
        """Start a flow's deployment; the run's id."""
        path = f"/deployments/{self.deployment(flow)['id']}/create_flow_run"
        return str(self.ask("POST", path, {"parameters": parameters})["id"])

    def state(self, run: str) -> str:
        """The type of the run's state."""
        return str(self.ask("GET", f"/flow_runs/{run}")["state_type"])

    def runs(self) -> list[dict[str, Any]]:
        """Every flow run that the server knows, in the order in which they were made."""
        runs: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", {"limit": 200})
        return sorted(runs, key=lambda run: run["created"])

    def runs_not_final(self) -> int:
        """How many flow runs Prefect shows in a state that is not final."""
        return sum(run["state_type"] not in FINAL for run in self.runs())

    def processes(self) -> Iterator[tuple[int, str]]:
        """Process ids and command lines (words apart by NUL) of all that runs here."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    if f"PREFECT_HOME={self.home}\0" in (folder / "environ").read_text():
                        yield int(folder.name), (folder / "cmdline").read_text()

    def kill(self, victim: str, run: str) -> bool:
        """Kill -9 the run's process, the worker or the server; False where it was gone already."""
        for pid, command in self.processes():
            with contextlib.suppress(OSError):
                if WORDS[victim] in command and (victim != "flow" or run in Path(f"/proc/{pid}/environ").read_text()):
                    os.kill(pid, signal.SIGKILL)
                    return True
        return False

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server, as long as it takes to come back."""
        deadline = time.monotonic() + SECONDS_AT_MOST
        while True:
            try:
                answer = self._client.request(method, path, json=body).raise_for_status()
                return answer.json() if answer.content else None
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


class Endpoint:
    """A running `chat_server.py`, and who asked it."""

    def __init__(self, folder: Path, concurrency: int, latency_ms: int) -> None:
        self.concurrency = concurrency
        self._log = folder / "asked.log"
        self._log.touch()
        self._port = free_port()
        self._latency = latency_ms
        self.file = folder / "endpoints.yaml"
        url, limits = f"http://127.0.0.1:{self._port}/v1", f"limits: {{concurrency: {concurrency}}}"
        self.file.write_text(f"counting: {{base_url: '{url}', model: counting, json_mode: object, {limits}}}\n")
        self.serve()

    def serve(self) -> None:
        """Serve, again where it was killed."""
        command = [sys.executable, str(CHECKOUT / "benchmarks" / "chat_server.py"), "--answers", "rules"]
        options = ["--latency-ms", str(self._latency), "--log", str(self._log), "--port", str(self._port)]
        self._process = subprocess.Popen([*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it -9."""
        self._process.kill()
        self._process.wait(30)

    def events(self) -> list[tuple[float, str, str]]:
        """Time, report's digest, and `asked` or `ok`, in order."""
        lines = [line.split() for line in self._log.read_text().splitlines()]
        return [(float(when), report, kind) for when, report, kind in lines]

    def close(self) -> None:
        """Stop it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def asked_of(events: list[tuple[float, str, str]]) -> Counter[str]:
    """How often each text was asked about."""
    return Counter(report for _, report, kind in events if kind == "asked")


def run_chain(store: Path, source: Path, sets: list[str], endpoints: Path) -> dict[str, float]:
    """Run ingest to shards directly, without Prefect; the seconds of each command, under the name of its flow."""
    place = ("--store", str(store))
    names = [word for name in sets for word in ("--sets", name)]
    return {
        "ingest": run_unix("ingest", "--source", "phantom", "--root", str(source), *place),
        "clean-reports": run_unix("clean", "--endpoint", "counting", *place, endpoints=endpoints),
        "build-splits": run_unix("splits", *place),
        "build-shards": run_unix("shards", *names, *place),
    }


def run_unix(*words: str, endpoints: Path | None = None) -> float:
    """Run a command of `unix`; how many seconds it took."""
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "UNIX_ENDPOINTS": str(endpoints or "")}
    subprocess.run([sys.executable, "-m", "unix", *words], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - started


def differing_tables(one: Path, other: Path) -> list[str]:
    """Tables in which two stores differ; row order and the columns that tell time or effort do not count."""
    return [name for name in TABLES if not _rows(one, name).equals(_rows(other, name))]


def _rows(store: Path, table: str) -> pl.DataFrame:
    frame = Store(str(store)).read(table)
    kept = [name for name in SCHEMAS[table].names() if name not in TIME_AND_EFFORT]
    return frame.select(kept).select(pl.struct(pl.all()).struct.json_encode()).sort(pl.all())


def wait_for(condition: Callable[[], object], what: str, seconds: float = SECONDS_AT_MOST) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(0.5)


def free_port() -> int:
    """A port on loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
