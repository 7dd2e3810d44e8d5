"""What Prefect and a process per step add to curation: the flow `curate` beside the same jobs called directly.

Both sides curate the same phantom, whose images come from a small pool, into stores of their own: `jobs` calls the four
jobs and the drift in one process, `flow` runs the flow on a temporary Prefect server. Counted are CPU seconds of all
processes of a side, children and server included, and wall seconds; the overhead is flow over jobs.

    python benchmarks/orchestration.py --studies 20000 --json orchestration.json
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

SETS = ["understanding-64"]
BAR = 0.05


def prepare(folder: Path, studies: int, pool: int) -> None:
    """Write the phantom."""
    from unix.data.phantom import PhantomConfig, write_phantom

    write_phantom(PhantomConfig(studies=studies, out=str(folder), image_size=96, image_pool=pool))


def jobs(phantom: Path, store: Path) -> None:
    """Call the jobs."""
    from unix.data.cleaning.run import CleanConfig, clean
    from unix.data.drift import DriftConfig, drift
    from unix.data.ingest import IngestConfig, ingest
    from unix.data.shards import ShardsConfig, build_shards
    from unix.data.splits import SplitsConfig, build_splits

    ingest(IngestConfig(store=str(store), source="phantom", root=str(phantom)))
    clean(CleanConfig(store=str(store)))
    build_splits(SplitsConfig(store=str(store)))
    build_shards(ShardsConfig(store=str(store), sets=tuple(SETS)))
    drift(DriftConfig(store=str(store)))


def flow(phantom: Path, store: Path) -> None:
    """Run the flow."""
    from pipelines.server import temporary_api

    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"PREFECT_HOME": home, "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        with temporary_api(Path(home)) as url:
            starting, started = cpu_seconds_of_children(), time.monotonic()
            os.environ["PREFECT_API_URL"] = url
            from pipelines.curation import curate

            curate("phantom", str(phantom), str(store), sets=SETS)
            sys.stdout.write(f"{time.monotonic() - started} {starting}\n")
    # Prefect's client would try for minutes to tell a server that is gone about its last events.
    sys.stdout.flush()
    os._exit(0)


def cpu_seconds_of_children() -> float:
    """What the running children of this process have used so far."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # after the name, which may hold anything: state, parent, ...; user and system time are fields 14 and 15
            fields = stat.read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12]) if int(fields[1]) == os.getpid() else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(side: str, phantom: Path, store: Path) -> dict[str, float]:
    """One side in a process of its own: wall and CPU seconds."""
    before, started = os.times(), time.monotonic()
    words = [sys.executable, __file__, "--side", side, "--folder", str(phantom), "--store", str(store)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    after, wall = os.times(), time.monotonic() - started
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if side == "flow":
        wall, starting = map(float, done.stdout.splitlines()[-1].split())
        cpu -= starting
    return {"wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def main() -> int:
    """Measure both sides in turn."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=20_000)
    parser.add_argument("--pool", type=int, default=50, help="studies whose images are drawn")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", choices=("jobs", "flow"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        {"jobs": jobs, "flow": flow}[asked.side](asked.folder, asked.store)
        return 0
    with tempfile.TemporaryDirectory() as work:
        phantom = Path(work, "phantom")
        prepare(phantom, asked.studies, asked.pool)
        sides = {side: measure(side, phantom, Path(work, side)) for side in ("jobs", "flow")}
    overhead = {name: sides["flow"][name] / sides["jobs"][name] - 1 for name in sides["jobs"]}
    result = {
        "studies": asked.studies,
        "sides": sides,
        "overhead": overhead,
        "bar": BAR,
        "versions": {name: version(name) for name in ("prefect", "polars", "deltalake")},
    }
    for side, seconds in sides.items():
        print(f"{side:<6} {seconds['wall_seconds']:8.1f} s wall {seconds['cpu_seconds']:8.1f} s CPU")
    print(f"overhead {overhead['wall_seconds']:.1%} wall, {overhead['cpu_seconds']:.1%} CPU, {asked.studies} studies")
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
