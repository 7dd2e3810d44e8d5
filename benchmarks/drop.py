"""How long it takes from files in a watched folder to the run of `retrain` that follows from them.

What `make up` runs, and `unix watch`, on ports and in folders of their own. Once the first studies are curated, more
land; Prefect's automations do the rest. Nothing is trained: for so few studies `retrain` says that none is due, and
ends. At the end two runs of `retrain` are started at once, and it is checked that none ran beside another one.

    python benchmarks/drop.py --studies 30 --json drop.json
"""

import argparse
import json
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from long_run import Source, watching
from unattended import FINAL, Endpoint, Unattended, run_unix, wait_for


def measure(work: Path, studies: int, groups: int) -> dict[str, Any]:
    """Land all groups of studies but one, later that one; what the server says about the runs after the second time."""
    whole = work / "whole"
    run_unix("phantom", "--out", str(whole), "--studies", str(groups * studies), "--image-size", "96")
    source, store = Source(whole, work / "landing", groups), work / "store"
    endpoint = Endpoint(work, concurrency=16, latency_ms=0)
    system = Unattended(work / "prefect", endpoint.file, UNIX_STORE=str(store))

    def runs_of(flow: str, since: datetime) -> list[dict[str, Any]]:
        named = [run for run in system.runs() if run["name"].startswith(f"{flow} ")]
        return [run for run in named if datetime.fromisoformat(run["created"]) > since]

    def is_over(flow: str, since: datetime) -> bool:
        runs = runs_of(flow, since)
        return bool(runs) and all(run["state_type"] in FINAL for run in runs)

    try:
        with system.running(keep=("curate", "retrain")):
            began = datetime.now(UTC)
            for group in range(groups - 1):
                source.land(group)
            with watching(system, source.landing, store):
                wait_for(lambda: is_over("retrain", began), "the first retrain run")
                source.land(groups - 1)
                landed = datetime.now(UTC)
                wait_for(lambda: is_over("retrain", landed), "the retrain run after the drop")
            curation, retraining = runs_of("curate", landed)[0], runs_of("retrain", landed)[0]
            at_once = datetime.now(UTC)
            for _ in range(2):
                system.start("retrain", {"preset": "tiny", "runs": str(work / "runs"), "store": str(store)})
            wait_for(lambda: is_over("retrain", at_once) and len(runs_of("retrain", at_once)) == 2, "two retrain runs")
            intervals = sorted((run["start_time"], run["end_time"]) for run in runs_of("retrain", began))
    finally:
        endpoint.close()
    return {
        "seconds_until_curate_is_made": seconds_after(landed, curation["created"]),
        "seconds_until_curate_ends": seconds_after(landed, curation["end_time"]),
        "seconds_until_retrain_is_made": seconds_after(landed, retraining["created"]),
        "seconds_until_retrain_begins": seconds_after(landed, retraining["start_time"]),
        "retrain_runs": len(intervals),
        "one_at_a_time": all(end <= begin for (_, end), (begin, _) in pairwise(intervals)),
    }


def seconds_after(moment: datetime, time: str) -> float:
    """Seconds from a moment to a time of the server's."""
    return round((datetime.fromisoformat(time) - moment).total_seconds(), 1)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--studies", type=int, default=30, help="studies that land")
    parser.add_argument("--groups", type=int, default=4, help="all but one of so many studies each are there before")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unix-drop-") as work:
        measured = measure(Path(work), asked.studies, asked.groups)
    result = {"studies": asked.studies, "groups": asked.groups, **measured, "prefect": version("prefect")}
    for name, value in result.items():
        print(f"{name:<30} {value}")
    if asked.json:
        asked.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
