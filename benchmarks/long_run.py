"""Lands 2,000 phantom studies in ten drops on all that `make up` runs, breaks things meanwhile, and says what is left.

`unix watch` sees each drop and Prefect's own automation starts `curate`, as on a machine that nobody looks after. In
between the endpoint that cleans is down for a minute, the worker is killed twice, and the disk with the store (a small
tmpfs, which takes root to mount) is full for a minute. Every five seconds the pages are asked and the memory of every
process is noted. At the end the store is compared with that of the same commands run once, undisturbed, without
Prefect: tables, and every live sample of every shard set byte by byte. Nothing is trained.

    python benchmarks/long_run.py --json long_run.json
    python benchmarks/long_run.py --minutes 24    # the same, with less rest between drops
"""

import argparse
import csv
import gzip
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from unattended import (
    CHECKOUT,
    FINAL,
    SECONDS_AT_MOST,
    SECONDS_OF_A_FLUSH,
    Endpoint,
    Unattended,
    asked_of,
    differing_tables,
    run_chain,
    run_unix,
    wait_for,
)

from unix.data.stream import ShardReader
from unix.records import Split

SETS = ["understanding-64", "generation-64"]
CONCURRENCY, LATENCY_MS = 4, 400
DISK_MB = 128
SECONDS_OF_A_FAULT = 60.0
SECONDS_BETWEEN_SAMPLES = 5.0
ASKED_BEFORE_A_FAULT = 20
FAULTS = {3: "endpoint", 5: "worker", 6: "disk", 8: "worker"}
"""Drop -> what breaks while it is being cleaned. The last two drops are left alone."""

STAYING = {
    "server": ("prefect\0server\0start", "prefect.server.api.server"),
    "worker": ("pipelines.worker",),
    "pages": ("unix\0serve",),
    "watch": ("unix\0watch",),
    "supervisord": ("supervisord",),
}
"""Processes that stay up, by words in their command lines; the others come and go with each run."""

MOST_GROWTH, MOST_GROWTH_MB = 0.10, 16.0


@dataclass
class Drop:
    """A drop, and when it was curated."""

    studies: int
    landed_at: float
    """Seconds since the beginning; likewise below."""
    curated_after_seconds: float | None = None


@dataclass
class Fault:
    """What was broken, for how long, and where it can be seen."""

    kind: str
    drop: int
    began_at: float
    ended_at: float
    seen: list[str] = field(default_factory=list[str])
    """Prefect's words for the runs it met, without their messages; what supervisord said."""


@dataclass
class Outcome:
    """What became of it."""

    studies: int
    minutes: float
    versions: dict[str, str]
    drops: list[Drop] = field(default_factory=list[Drop])
    faults: list[Fault] = field(default_factory=list[Fault])
    runs: dict[str, int] = field(default_factory=dict[str, int])
    """How many flow runs ended in which state."""
    differing_tables: list[str] = field(default_factory=list[str])
    samples: int = 0
    samples_lost: int = 0
    samples_too_many: int = 0
    samples_that_differ: int = 0
    texts: int = 0
    asked_again: int = 0
    asked_again_at_most: int = 0
    """For each fault: in flight, plus what was answered in the half second before."""
    pages: dict[str, float] = field(default_factory=dict[str, float])
    memory_mb: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    growing: list[str] = field(default_factory=list[str])

    @property
    def nothing_wrong(self) -> bool:
        """Nothing lost or doubled, every fault visible, memory flat, every page answered."""
        wrong = len(self.differing_tables) + self.samples_lost + self.samples_too_many + self.samples_that_differ
        hidden = [fault for fault in self.faults if not fault.seen]
        again = self.asked_again > self.asked_again_at_most
        return not (wrong or hidden or again or self.growing or self.pages["failed"] or set(self.runs) - FINAL)


class Source:
    """A whole phantom, and the folder in which its studies land group by group, tables last."""

    def __init__(self, whole: Path, landing: Path, drops: int) -> None:
        self._whole, self.landing = whole, landing
        rows = list(csv.DictReader(_lines(whole / "cxr-study-list.csv.gz")))
        self._groups = [rows[number::drops] for number in range(drops)]
        self._landed: set[str] = set()
        landing.mkdir()

    def land(self, number: int) -> int:
        """Land a group; how many studies it has."""
        for row in self._groups[number]:
            report = Path(row["path"])
            for path in (
                report,
                *(each.relative_to(self._whole) for each in (self._whole / report).parent.glob(f"{report.stem}/*")),
            ):
                (self.landing / path).parent.mkdir(parents=True, exist_ok=True)
                os.link(self._whole / path, self.landing / path)
            self._landed.add(row["study_id"])
        for table in self._whole.glob("*.csv.gz"):
            head, *lines = _lines(table)
            column = next(csv.reader([head])).index("study_id")
            kept = [line for line in lines if next(csv.reader([line]))[column] in self._landed]
            aside = self.landing / f".{table.name}"
            aside.write_bytes(gzip.compress(("\n".join([head, *kept]) + "\n").encode(), mtime=0))
            aside.replace(self.landing / table.name)
        return len(self._groups[number])


class Samples(threading.Thread):
    """Asks the pages and notes the memory of every process, every five seconds, until it is told to stop."""

    def __init__(self, system: Unattended, endpoint: Endpoint, began: float) -> None:
        super().__init__(daemon=True)
        self._system, self._endpoint, self._began = system, endpoint, began
        self._ended = threading.Event()
        self._pages = httpx.Client(base_url=system.pages, trust_env=False, timeout=30)
        self.answers: list[float] = []
        """Milliseconds per page."""
        self.failed = 0
        self.memory: dict[str, list[tuple[float, float]]] = {}
        """Role -> seconds since the beginning, MB resident."""

    def run(self) -> None:
        """Sample until stopped."""
        while not self._ended.wait(SECONDS_BETWEEN_SAMPLES):
            for path in ("/", "/studies"):
                begun = time.perf_counter()
                try:
                    self._pages.get(path).raise_for_status()
                    self.answers.append(1000 * (time.perf_counter() - begun))
                except httpx.HTTPError:
                    self.failed += 1
            self._note_memory()

    def _note_memory(self) -> None:
        found: dict[str, float] = {"endpoint": _resident_mb(self._endpoint.pid)}
        for pid, command in self._system.processes():
            role = next((role for role, words in STAYING.items() if any(word in command for word in words)), None)
            if role is not None:
                found[role] = found.get(role, 0.0) + _resident_mb(pid)
            elif "\0unix\0" in command or "prefect.engine" in command:
                name = "a flow" if "prefect.engine" in command else f"unix {command.split(chr(0))[3]}"
                found[name] = max(found.get(name, 0.0), _resident_mb(pid))
        for role, resident in found.items():
            if resident:
                self.memory.setdefault(role, []).append((time.monotonic() - self._began, resident))

    def stop(self) -> None:
        """Take no more samples."""
        self._ended.set()
        self.join(60)


def main() -> int:
    """Parse the command line, run, print and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="over which the drops land (default: 60)")
    parser.add_argument("--studies", type=int, default=2_000)
    parser.add_argument("--drops", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", type=Path, help="an empty small file system for the store, in place of a tmpfs")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="unix-long-run-") as folder,
        _small_disk(Path(folder), options.disk) as disk,
    ):
        outcome = long_run(Path(folder), disk, options)
    if options.json:
        options.json.write_text(json.dumps({**asdict(outcome), "load_average": os.getloadavg()[0]}, indent=1))
    for drop in outcome.drops:
        print(drop)
    for fault in outcome.faults:
        print(fault)
    for role, figures in outcome.memory_mb.items():
        print(f"{role:<16} {figures}")
    print({name: value for name, value in asdict(outcome).items() if name not in ("drops", "faults", "memory_mb")})
    return 0 if outcome.nothing_wrong else 1


def long_run(work: Path, disk: Path, options: argparse.Namespace) -> Outcome:
    """Land, break, wait for the end, compare."""
    versions = {name: version(name) for name in ("prefect", "deltalake", "supervisor")}
    outcome = Outcome(options.studies, options.minutes, {**versions, "python": sys.version.split()[0]})
    words = ["--studies", str(options.studies), "--seed", str(options.seed), "--image-size", "96"]
    run_unix("phantom", "--out", str(work / "whole"), *words)
    source = Source(work / "whole", work / "landing", options.drops)
    store = disk / "store"
    endpoint = Endpoint(work, CONCURRENCY, LATENCY_MS)
    system = Unattended(work / "prefect", endpoint.file, UNIX_STORE=str(store))
    try:
        with system.running(keep=("curate",)):
            settings = {**system.deployment("curate")["parameters"], "endpoint": "counting", "sets": SETS, "settle": 2}
            system.ask("PATCH", f"/deployments/{system.deployment('curate')['id']}", {"parameters": settings})
            began = time.monotonic()
            samples = Samples(system, endpoint, began)
            with watching(system, source.landing, store):
                samples.start()
                interval = 60 * options.minutes / options.drops
                for number in range(options.drops):
                    wait_for(lambda due=began + number * interval: time.monotonic() >= due, "the next drop")
                    before = len(endpoint.events())
                    outcome.drops.append(Drop(source.land(number), time.monotonic() - began))
                    print(f"{time.monotonic() - began:6.0f} s  drop {number + 1}", flush=True)
                    if (kind := FAULTS.get(number + 1)) is not None:
                        _await_cleaning(endpoint, before)
                        outcome.faults.append(_break(kind, number + 1, system, endpoint, disk, began))
                        print(f"{time.monotonic() - began:6.0f} s  {kind} is back", flush=True)
                wait_for(lambda: _is_curated(system, outcome, began), "the last drop to be curated", 1800)
            samples.stop()
            _look_at_runs(outcome, system, began)
        _look_at_samples(outcome, samples, time.monotonic() - began)
        events = endpoint.events()
        run_chain(work / "undisturbed", source.landing, SETS, endpoint.file)
        _compare(outcome, work / "undisturbed", store, events, endpoint.events()[len(events) :])
    finally:
        endpoint.close()
    return outcome


@contextmanager
def _small_disk(work: Path, given: Path | None) -> Iterator[Path]:
    """A folder with little room: the one given, else a tmpfs."""
    if given is not None:
        yield given
        return
    disk = work / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False).returncode:
        raise SystemExit("no tmpfs can be mounted here: be root, or give --disk a small file system of your own")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


@contextmanager
def watching(system: Unattended, landing: Path, store: Path) -> Iterator[None]:
    """Run `unix watch` while the body runs."""
    words = ["unix", "watch", "--source", "phantom", "--root", str(landing), "--store", str(store), "--interval", "5"]
    with (system.home / "logs" / "watch.log").open("wb") as output:
        watch = subprocess.Popen(words, cwd=CHECKOUT, env=system.environment, stdout=output, stderr=output)
        try:
            yield
            if watch.poll() is not None:
                raise SystemExit(f"unix watch ended with {watch.returncode}")
        finally:
            watch.terminate()
            watch.wait(60)


def _await_cleaning(endpoint: Endpoint, before: int) -> None:
    """Wait until the drop is being cleaned; on a machine that is too busy for that, break something all the same."""
    until = time.monotonic() + SECONDS_AT_MOST
    while len(asked_of(endpoint.events()[before:])) < ASKED_BEFORE_A_FAULT and time.monotonic() < until:
        time.sleep(0.5)


def _break(kind: str, drop: int, system: Unattended, endpoint: Endpoint, disk: Path, began: float) -> Fault:
    """Break something, mend it after a minute where it does not mend itself, and say when."""
    started = time.monotonic()
    match kind:
        case "endpoint":
            endpoint.kill()
            _rest(endpoint.serve)
        case "worker":
            system.kill("worker", "")
        case _:
            filler = disk / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
            _rest(filler.unlink)
    return Fault(kind, drop, started - began, time.monotonic() - began)


def _rest(then: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS_OF_A_FAULT
    wait_for(lambda: time.monotonic() >= until, "the fault to end")
    then()


def _is_curated(system: Unattended, outcome: Outcome, began: float) -> bool:
    """Whether every run has ended, and one began after the last drop."""
    last = time.time() - (time.monotonic() - began - outcome.drops[-1].landed_at)
    runs = _curations(system.runs())
    return bool(runs) and all(run["state_type"] in FINAL for run in runs) and _time(runs[-1]["created"]) > last


def _curations(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of `curate` among all, those that it starts itself left out."""
    return [run for run in runs if run["parent_task_run_id"] is None]


def _look_at_runs(outcome: Outcome, system: Unattended, began: float) -> None:
    """When each drop was curated, how the runs ended, and where the faults can be seen."""
    zero = time.time() - (time.monotonic() - began)
    runs = system.runs()
    for run in _curations(runs):
        outcome.runs[run["state_type"]] = outcome.runs.get(run["state_type"], 0) + 1
    for drop in outcome.drops:
        ends = [
            _time(run["end_time"]) - zero - drop.landed_at
            for run in _curations(runs)
            if run["state_type"] == "COMPLETED" and _time(run["start_time"]) - zero > drop.landed_at
        ]
        drop.curated_after_seconds = round(min(ends), 1) if ends else None
    for fault in outcome.faults:
        for run in runs:
            first, last = _time(run["start_time"] or run["created"]) - zero, _time(run["end_time"]) - zero
            if first <= fault.ended_at and last >= fault.began_at:
                tasks = system.ask("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
                retried = sum(task["run_count"] > 1 for task in tasks)
                if run["state_type"] != "COMPLETED" or retried:
                    fault.seen.append(f"{run['name']} {run['state_name']}, {retried} of its commands tried again")
                logged = system.ask("POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
                if failing := [each for each in logged if each["message"].startswith("endpoint counting: ")]:
                    fault.seen.append(f"{run['name']} logged {len(failing)} times: {failing[0]['message']}")
    ended = [line for line in system.log.read_text().splitlines() if "exited: worker" in line]
    for fault, line in zip([fault for fault in outcome.faults if fault.kind == "worker"], ended, strict=False):
        fault.seen.append(f"supervisord: {line.partition('exited: ')[2]}")


def _look_at_samples(outcome: Outcome, samples: Samples, seconds: float) -> None:
    """The pages' times, and for each process what it held after the first drops and at the end."""
    answers = sorted(samples.answers)
    outcome.pages = {"n": len(answers), "failed": samples.failed, "p50_ms": round(statistics.median(answers), 1)}
    outcome.pages |= {"p95_ms": round(answers[int(0.95 * (len(answers) - 1))], 1), "worst_ms": round(answers[-1], 1)}
    for role, noted in sorted(samples.memory.items()):
        early = [resident for when, resident in noted if 0.2 * seconds <= when < 0.45 * seconds]
        late = [resident for when, resident in noted if when >= 0.75 * seconds]
        figures = {"n": len(noted), "peak": round(max(resident for _, resident in noted), 1)}
        if early and late:
            before, after = statistics.median(early), statistics.median(late)
            figures |= {"early": round(before, 1), "late": round(after, 1)}
            if role in {*STAYING, "endpoint"} and after - before > max(MOST_GROWTH * before, MOST_GROWTH_MB):
                outcome.growing.append(role)
        outcome.memory_mb[role] = figures


def _compare(
    outcome: Outcome,
    undisturbed: Path,
    store: Path,
    events: list[tuple[float, str, str]],
    usual: list[tuple[float, str, str]],
) -> None:
    """Compare the store with the undisturbed one, and count what was asked more often than there."""
    outcome.differing_tables = differing_tables(undisturbed, store)
    expected, found = _live_samples(undisturbed), _live_samples(store)
    outcome.samples = len(expected)
    outcome.samples_lost = sum(key not in found for key in expected)
    outcome.samples_too_many = sum(1 if key not in expected else len(found[key]) - 1 for key in found)
    outcome.samples_that_differ = sum(key in found and found[key] != expected[key] for key in expected)
    asked, once = asked_of(events), asked_of(usual)
    outcome.texts = len(once)
    outcome.asked_again = sum(max(0, times - once[report]) for report, times in asked.items())
    per_fault = CONCURRENCY + round(CONCURRENCY * SECONDS_OF_A_FLUSH / (LATENCY_MS / 1000))
    outcome.asked_again_at_most = per_fault * len(outcome.faults)


def _live_samples(store: Path) -> dict[tuple[str, str], list[str]]:
    """Set and image id -> split and digest of each live sample under it; more than one would be doubled."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in SETS:
        for split in Split:
            with ShardReader(store / "shards" / name, split) as shards:
                for index in range(shards.samples):
                    key, members = shards.read_members(index)
                    content = b"".join(members[extension] for extension in sorted(members))
                    found.setdefault((name, key), []).append(f"{split} {hashlib.sha256(content).hexdigest()}")
    return found


def _lines(table: Path) -> list[str]:
    return gzip.decompress(table.read_bytes()).decode().splitlines()


def _resident_mb(pid: int) -> float:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000
    return 0.0


def _time(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


if __name__ == "__main__":
    sys.exit(main())
