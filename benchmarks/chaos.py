"""Kills what runs flows, at random moments, and compares what is left after a rerun with an undisturbed run.

All that `make up` runs is started with ports and a home of its own. Each round starts one flow of the chain (ingest,
clean-reports, build-splits, build-shards), kills -9 its process, the worker, the server (or worker and process at once)
while it runs, waits until Prefect shows the run in a final state, and runs the flow again until it completes. Reports
are cleaned at an endpoint that writes down who asked (`chat_server.py`). After each chain the tables and the shards are
compared with those of the same commands run directly, without Prefect.

    python benchmarks/chaos.py --rounds 10 --studies 300 --json chaos.json
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from unix.store import SCHEMAS, Store

CHECKOUT = Path(__file__).resolve().parent.parent
FLOWS = ("ingest", "clean-reports", "build-splits", "build-shards")
VICTIMS = ("flow", "worker", "server", "worker and flow")
WORDS = {"worker": "pipelines.worker", "server": "prefect\0server\0start", "flow": "prefect.engine"}
"""In the command line of each process that is killed."""

TABLES = ("studies", "images", "cleaned_reports", "splits", "rejections")
TIME_AND_EFFORT = {
    *("created_at", "ingested_at", "latency_ms", "attempts", "cost_usd"),
    *("prompt_tokens", "completion_tokens", "cached_tokens"),
}
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
SETS = ["understanding-64", "generation-64"]
CONCURRENCY = 8
SECONDS_OF_A_FLUSH = 0.5
SECONDS_AT_MOST = 1200.0


@dataclass
class Round:
    """What happened in one round."""

    flow: str
    victim: str
    killed_after_seconds: float
    """After the run began."""
    state_after_kill: str
    seconds_to_final: float
    reruns: int
    asked_again: int = 0
    asked_again_at_most: int = 0
    """In flight, plus what was answered in the half second before the kill."""


@dataclass
class Outcome:
    """All rounds, and the comparison."""

    studies: int
    seed: int
    versions: dict[str, str]
    rounds: list[Round] = field(default_factory=list[Round])
    chains: int = 0
    """Compared with the undisturbed run; the last chain is finished undisturbed."""
    chains_equal: int = 0
    differences: list[str] = field(default_factory=list[str])
    texts: int = 0
    not_final: int = 0
    """Runs that Prefect shows in a state that is not final, at the end."""


class Unattended:
    """What `make up` runs, and ways to start flows and to kill."""

    def __init__(self, home: Path, endpoints: Path) -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{_free_port()}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "UNIX_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_PORT": self.url.split(":")[2].removesuffix("/api"),
            "PREFECT_WORKER_WEBSERVER_PORT": str(_free_port()),
            "UNIX_SERVE_PORT": str(_free_port()),
            "UNIX_ENDPOINTS": str(endpoints),
            "DO_NOT_TRACK": "1",
        }
        self._client = httpx.Client(base_url=self.url, trust_env=False, timeout=60)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run all of it while the body runs."""
        (self.home / "logs").mkdir(parents=True)
        log = self.home / "up.log"
        words = ("supervisord", "--configuration", "supervisord.conf")
        with log.open("ab") as output:
            process = subprocess.Popen(
                words, cwd=CHECKOUT, env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                wait_for(lambda: "Prefect: http" in log.read_text() or process.poll() is not None, "make up")
                self._start_nothing_by_itself()
                yield
            finally:
                process.terminate()
                process.wait(180)

    def _start_nothing_by_itself(self) -> None:
        """Remove the automations that start a deployment: here only the rounds do."""
        for automation in self._ask("POST", "/automations/filter", {}):
            if any(action["type"] == "run-deployment" for action in automation["actions"]):
                self._client.delete(f"/automations/{automation['id']}").raise_for_status()

    def start(self, flow: str, parameters: dict[str, Any]) -> str:
        """Start a flow's deployment; the run's id."""
        deployment = self._get(f"/deployments/name/{flow}/{flow}")["id"]
        run = self._ask("POST", f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
        return str(run["id"])

    def state(self, run: str) -> str:
        """The type of the run's state."""
        return str(self._get(f"/flow_runs/{run}")["state_type"])

    def runs_not_final(self) -> int:
        """How many flow runs Prefect shows in a state that is not final."""
        runs = self._ask("POST", "/flow_runs/filter", {"limit": 200})
        return sum(run["state_type"] not in FINAL for run in runs)

    def kill(self, victim: str, run: str) -> bool:
        """Kill -9 the run's process, the worker or the server; False where it was gone already."""
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with contextlib.suppress(OSError):
                    command, environment = (folder / "cmdline").read_text(), (folder / "environ").read_text()
                    ours = f"PREFECT_HOME={self.home}\0" in environment and WORDS[victim] in command
                    if ours and (victim != "flow" or run in environment):
                        os.kill(int(folder.name), signal.SIGKILL)
                        return True
        return False

    def _get(self, path: str) -> Any:
        return self._ask("GET", path, None)

    def _ask(self, method: str, path: str, body: Any) -> Any:
        """Ask the server, as long as it takes to come back."""
        deadline = time.monotonic() + SECONDS_AT_MOST
        while True:
            try:
                return self._client.request(method, path, json=body).raise_for_status().json()
            except httpx.HTTPError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)


class Endpoint:
    """A running `chat_server.py`, and who asked it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "asked.log"
        command = [sys.executable, str(CHECKOUT / "benchmarks" / "chat_server.py"), "--answers", "rules"]
        options = ["--latency-ms", "100", "--log", str(self.log)]
        self._process = subprocess.Popen([*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        url = self._process.stdout.readline().strip()
        self.file = folder / "endpoints.yaml"
        limits = f"limits: {{concurrency: {CONCURRENCY}}}"
        self.file.write_text(f"counting: {{base_url: '{url}', model: counting, json_mode: object, {limits}}}\n")

    def events(self) -> list[tuple[float, str, str]]:
        """Time, report's digest, and `asked` or `ok`, in order."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(float(when), report, kind) for when, report, kind in lines]

    def close(self) -> None:
        """Stop it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def main() -> None:
    """Parse the command line, run, print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS[:3], help="each once before any again")
    parser.add_argument("--json", default="", metavar="PATH")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unix-chaos-") as folder:
        outcome = chaos(Path(folder), options.rounds, options.studies, options.seed, options.victims)
    if options.json:
        Path(options.json).write_text(json.dumps(asdict(outcome), indent=1))
    print(f"{outcome.chains_equal} of {outcome.chains} chains equal to the undisturbed run; {outcome.differences}")
    print(f"runs not in a final state: {outcome.not_final}")
    lost = any(each.asked_again > each.asked_again_at_most for each in outcome.rounds)
    sys.exit(outcome.chains_equal != outcome.chains or outcome.not_final > 0 or lost)


def chaos(work: Path, rounds: int, studies: int, seed: int, victims: Sequence[str]) -> Outcome:
    """Run the rounds below `work`."""
    draw = random.Random(seed)
    versions = {name: version(name) for name in ("prefect", "deltalake", "supervisor")}
    outcome = Outcome(studies, seed, {**versions, "python": sys.version.split()[0]})
    endpoint = Endpoint(work)
    system = Unattended(work / "prefect", endpoint.file)
    try:
        source = work / "source"
        _unix("phantom", "--studies", str(studies), "--out", str(source), "--seed", str(seed), "--image-size", "96")
        seconds = _undisturbed(work / "undisturbed", source, endpoint.file)
        usual = asked_of(endpoint.events())
        outcome.texts = len(usual)
        with system.running():
            order: list[str] = []
            for number in range(-(-rounds // len(FLOWS)) * len(FLOWS)):
                chain, step = divmod(number, len(FLOWS))
                store = work / f"store-{chain}"
                parameters = _parameters(FLOWS[step], store, source)
                if number < rounds:
                    if number % len(victims) == 0:
                        order = draw.sample(victims, len(victims))
                    victim = order[number % len(victims)]
                    delay = draw.uniform(0, seconds[FLOWS[step]] + 3)
                    outcome.rounds.append(_disturb(system, endpoint, usual, FLOWS[step], parameters, victim, delay))
                    print(outcome.rounds[-1], flush=True)
                else:
                    _run(system, FLOWS[step], parameters)
                if step == len(FLOWS) - 1:
                    found = differences(work / "undisturbed", store)
                    outcome.chains += 1
                    outcome.chains_equal += not found
                    outcome.differences += [f"chain {chain}: {each}" for each in found]
            outcome.not_final = system.runs_not_final()
    finally:
        endpoint.close()
    return outcome


def _parameters(flow: str, store: Path, source: Path) -> dict[str, Any]:
    chosen: dict[str, Any] = {"store": str(store)}
    if flow == "ingest":
        chosen |= {"source": "phantom", "root": str(source)}
    elif flow == "clean-reports":
        chosen |= {"endpoint": "counting"}
    elif flow == "build-shards":
        chosen |= {"sets": SETS}
    return chosen


def _undisturbed(store: Path, source: Path, endpoints: Path) -> dict[str, float]:
    """Run the chain directly; the seconds of each of its commands, under the names of their flows."""
    place = ("--store", str(store))
    sets = [word for name in SETS for word in ("--sets", name)]
    return {
        "ingest": _unix("ingest", "--source", "phantom", "--root", str(source), *place),
        "clean-reports": _unix("clean", "--endpoint", "counting", *place, endpoints=endpoints),
        "build-splits": _unix("splits", *place),
        "build-shards": _unix("shards", *sets, *place),
    }


def _unix(*words: str, endpoints: Path | None = None) -> float:
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "UNIX_ENDPOINTS": str(endpoints or "")}
    subprocess.run([sys.executable, "-m", "unix", *words], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - started


def _disturb(
    system: Unattended,
    endpoint: Endpoint,
    usual: Counter[str],
    flow: str,
    parameters: dict[str, Any],
    victim: str,
    delay: float,
) -> Round:
    """Start a flow, kill, wait for a final state, run it again until it completes.

    `usual` says how often the undisturbed run asked about each text: a rejected answer is asked for twice.
    """
    before = len(endpoint.events())
    run = system.start(flow, parameters)
    wait_for(lambda: system.state(run) in {*FINAL, "RUNNING"}, f"{flow} to begin")
    time.sleep(delay)
    killed = all([system.kill(each, run) for each in victim.split(" and ")])
    when, at = time.monotonic(), time.time()
    wait_for(lambda: system.state(run) in FINAL, f"a final state of {flow} after killing the {victim}")
    state, took = system.state(run), time.monotonic() - when
    reruns = _run(system, flow, parameters)
    events = endpoint.events()[before:]
    asked = asked_of(events)
    unflushed = {report for time_, report, kind in events if kind == "ok" and at - SECONDS_OF_A_FLUSH < time_ <= at}
    return Round(
        flow,
        victim if killed else f"{victim} (gone already)",
        round(delay, 2),
        state,
        round(took, 1),
        reruns,
        sum(max(0, times - usual[report]) for report, times in asked.items()),
        CONCURRENCY + len(unflushed) if flow == "clean-reports" else 0,
    )


def asked_of(events: list[tuple[float, str, str]]) -> Counter[str]:
    """How often each text was asked about."""
    return Counter(report for _, report, kind in events if kind == "asked")


def _run(system: Unattended, flow: str, parameters: dict[str, Any]) -> int:
    """Run a flow until it completes; how often it took."""
    for number in range(1, 4):
        run = system.start(flow, parameters)
        wait_for(lambda run=run: system.state(run) in FINAL, f"the end of {flow}")
        if system.state(run) == "COMPLETED":
            return number
    raise SystemExit(f"{flow} did not complete in three runs; its log is in Prefect")


def differences(undisturbed: Path, disturbed: Path) -> list[str]:
    """Tables and tars that differ; row order and the columns that tell time or effort do not count."""
    found = [name for name in TABLES if not _rows(undisturbed, name).equals(_rows(disturbed, name))]
    if _tars(undisturbed) != _tars(disturbed):
        found.append("shards")
    return found


def _rows(store: Path, table: str) -> pl.DataFrame:
    frame = Store(str(store)).read(table)
    kept = [name for name in SCHEMAS[table].names() if name not in TIME_AND_EFFORT]
    return frame.select(kept).select(pl.struct(pl.all()).struct.json_encode()).sort(pl.all())


def _tars(store: Path) -> dict[str, bytes]:
    folder = store / "shards"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


def wait_for(condition: Any, what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + SECONDS_AT_MOST
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {SECONDS_AT_MOST:.0f} s in vain for {what}")
        time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main()
