"""What Prefect and a process per step add to curation: the flow `curate` beside the same jobs called directly.

Both sides curate the same phantom, whose images come from a small pool, into stores of their own: `jobs` calls the four
jobs and the drift in one process, `flow` runs the flow on a temporary Prefect server. They run at the same time, each
held to one core, and change cores after every round, so that a machine whose speed changes within minutes changes for
both. Counted are wall seconds and CPU seconds of all processes of a side, children and server included; not the
server's start, and not what it uses when nothing runs, which a standing one does anyway and which stands beside. The
overhead is flow over jobs, the median of the rounds. Images and sets are those that `unix phantom` and `curate` make by
default; some seconds are added whatever they are, which weigh more beside smaller ones.

    python benchmarks/orchestration.py --studies 20000 --json orchestration.json
    python benchmarks/orchestration.py --studies 20000 --image-size 96 --sets understanding-64
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

SIDES = ("jobs", "flow")
BAR = 0.05
_SECONDS_IDLE = 10.0
"""How long the server is watched after the flow, to tell what it uses when nothing runs."""


def prepare(folder: Path, studies: int, pool: int, image_size: int | None) -> None:
    """Write the phantom."""
    from unix.data.phantom import PhantomConfig, write_phantom

    size = {} if image_size is None else {"image_size": image_size}
    write_phantom(PhantomConfig.build({"studies": studies, "out": str(folder), "image_pool": pool, **size}))


def jobs(phantom: Path, store: Path, sets: list[str] | None) -> None:
    """Call the jobs."""
    from unix.data.cleaning.run import CleanConfig, clean
    from unix.data.drift import DriftConfig, drift
    from unix.data.ingest import IngestConfig, ingest
    from unix.data.shards import ShardsConfig, build_shards
    from unix.data.splits import SplitsConfig, build_splits

    started = time.monotonic()
    ingest(IngestConfig(store=str(store), source="phantom", root=str(phantom)))
    clean(CleanConfig(store=str(store)))
    build_splits(SplitsConfig(store=str(store)))
    build_shards(ShardsConfig.build({"store": str(store), **({} if sets is None else {"sets": tuple(sets)})}))
    drift(DriftConfig(store=str(store)))
    tell(time.monotonic() - started)


def flow(phantom: Path, store: Path, sets: list[str] | None) -> None:
    """Run the flow."""
    from pipelines.server import temporary_api

    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"PREFECT_HOME": home, "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        with temporary_api(Path(home)) as url:
            starting, started = cpu_seconds_of_children(), time.monotonic()
            os.environ["PREFECT_API_URL"] = url
            from pipelines.curation import curate

            curate("phantom", str(phantom), str(store), sets=sets)
            wall, before = time.monotonic() - started, cpu_seconds_of_children()
            time.sleep(_SECONDS_IDLE)
            idle = cpu_seconds_of_children() - before
            tell(wall, starting + idle, idle / _SECONDS_IDLE * wall)
    # Prefect's client would try for minutes to tell a server that is gone about its last events.
    os._exit(0)


def tell(wall: float, apart: float = 0.0, idle: float = 0.0) -> None:
    """Print a side's wall seconds, the CPU seconds that are not the work's, and those of a server without work."""
    print(wall, apart, idle, flush=True)


def cpu_seconds_of_children() -> float:
    """What the running children of this process have used so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # after the name, which may hold anything: state, parent, ...; user and system time are fields 14 and 15
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12]) if int(fields[1]) == os.getpid() else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(side: str, core: int, phantom: Path, store: Path, sets: list[str] | None) -> dict[str, float]:
    """One side in processes of its own on one core: its seconds."""
    words = [sys.executable, __file__, "--side", side, "--core", str(core), "--folder", str(phantom)]
    words += ["--store", str(store), *(["--sets", *sets] if sets else [])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        said = running.stdout.read()
        _, status, usage = os.wait4(running.pid, 0)  # of this side alone, with all that it has waited for
        running.returncode = os.waitstatus_to_exitcode(status)
    if running.returncode != 0:
        raise SystemExit(f"{side} failed: {' '.join(words)}")
    wall, apart, idle = map(float, said.splitlines()[-1].split())
    shutil.rmtree(store)
    return {
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime - apart - idle, 1),
        "idle_server_cpu_seconds": round(idle, 1),
    }


def measure_both(number: int, phantom: Path, work: Path, sets: list[str] | None) -> dict[str, dict[str, float]]:
    """Both sides at once, on cores that they change with every round."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    with ThreadPoolExecutor() as pool:
        running = {
            side: pool.submit(measure, side, cores[(place + number) % 2], phantom, work / side, sets)
            for place, side in enumerate(SIDES)
        }
        measured = {side: each.result() for side, each in running.items()}
    for side in SIDES:
        wall, cpu, idle = measured[side].values()
        print(f"{side:<6} {wall:8.1f} s wall {cpu:8.1f} s CPU, and {idle:4.1f} of an idle server", flush=True)
    return measured


def main() -> int:
    """Measure the rounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pool", type=int, default=50, help="studies whose images are drawn")
    parser.add_argument("--image-size", type=int, help="long side of the images; else the phantom's own choice")
    parser.add_argument("--sets", nargs="+", help="shard sets; else the job's own choice")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--core", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        os.sched_setaffinity(0, {asked.core})
        {"jobs": jobs, "flow": flow}[asked.side](asked.folder, asked.store, asked.sets)
        return 0
    with tempfile.TemporaryDirectory() as work:
        phantom = Path(work, "phantom")
        prepare(phantom, asked.studies, asked.pool, asked.image_size)
        rounds = [measure_both(number, phantom, Path(work), asked.sets) for number in range(asked.rounds)]
    overhead = {
        name: statistics.median(each["flow"][name] / each["jobs"][name] - 1 for each in rounds)
        for name in ("wall_seconds", "cpu_seconds")
    }
    print(f"overhead {overhead['wall_seconds']:.1%} wall, {overhead['cpu_seconds']:.1%} CPU, {asked.studies} studies")
    if asked.json:
        result = {
            "studies": asked.studies,
            "image_size": asked.image_size,
            "sets": asked.sets,
            "rounds": rounds,
            "overhead": overhead,
            "bar": BAR,
            "versions": {name: version(name) for name in ("prefect", "polars", "deltalake")},
        }
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
