"""Kills what runs flows, at random moments, and compares what is left after a rerun with an undisturbed run.

All that `make up` runs is started with ports and a home of its own. Each round starts one flow of the chain (ingest,
clean-reports, build-splits, build-shards), kills -9 its process, the worker, the server (or worker and process at once)
while it runs, waits until Prefect shows the run in a final state, and runs the flow again until it completes. Reports
are cleaned at an endpoint that writes down who asked (`chat_server.py`). After each chain the tables and the shards are
compared with those of the same commands run directly, without Prefect.

    python benchmarks/chaos.py --rounds 10 --studies 300 --json chaos.json
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unattended import (
    FINAL,
    SECONDS_OF_A_FLUSH,
    Endpoint,
    Unattended,
    asked_of,
    differing_tables,
    run_chain,
    run_unix,
    wait_for,
)

FLOWS = ("ingest", "clean-reports", "build-splits", "build-shards")
VICTIMS = ("flow", "worker", "server", "worker and flow")
SETS = ["understanding-64", "generation-64"]
CONCURRENCY = 8
LATENCY_MS = 100


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
    endpoint = Endpoint(work, CONCURRENCY, LATENCY_MS)
    system = Unattended(work / "prefect", endpoint.file)
    try:
        source = work / "source"
        run_unix("phantom", "--studies", str(studies), "--out", str(source), "--seed", str(seed), "--image-size", "96")
        seconds = run_chain(work / "undisturbed", source, SETS, endpoint.file)
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
    found = differing_tables(undisturbed, disturbed)
    if _tars(undisturbed) != _tars(disturbed):
        found.append("shards")
    return found


def _tars(store: Path) -> dict[str, bytes]:
    folder = store / "shards"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.tar"))}


if __name__ == "__main__":
    main()
