"""What the audit pages cost: milliseconds per kind of request and the server's memory, over 200,000 phantom studies.

`unix serve` runs as a process of its own; one client asks over loopback, so a figure is the server's time and a little
more. Beside it stands the CPU time that the server spent, which a busy machine does not stretch. Every filter and
search differs from those before it, so nothing is answered from what the server remembers. The cleaned reports are the
phantom's own truth under a seeded draw of statuses and flags: cleaning is another benchmark.

    python benchmarks/web.py --json web.json
    python benchmarks/web.py --studies 20000 --work build/web20k
"""

import argparse
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import polars as pl

from unix.data.cleaning.prompt import load_prompt
from unix.data.ingest import IngestConfig, ingest
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.phantom.truth import read_truth
from unix.data.text_labels import label_texts
from unix.records import CHEXPERT_14
from unix.store import Store, now

LIMIT_MS, LIMIT_MB = 300.0, 1000.0
FLAGS = ("finding_lost", "added_word", "reworded", "date_left", "number_lost", "added_content", "laterality_changed")
CATEGORIES = ("technique", "header", "indication", "notification", "prior_comparison", "signature")


def main() -> int:
    """Build the store where it is missing, ask, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keeps the store; default: build/web-<studies>")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = options.work or Path("build") / f"web-{options.studies}"
    store = build(work, options.studies, options.seed)
    result = measure(store, options.requests, options.seed) | {
        "studies": options.studies,
        "requests": options.requests,
        "versions": {name: version(name) for name in ("fastapi", "polars", "deltalake", "uvicorn")},
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }
    for kind, figures in result["milliseconds"].items():
        times = f"p50 {figures['p50']:>7.1f}  p95 {figures['p95']:>7.1f}  cpu {figures['cpu_mean']:>6.1f}"
        print(f"{kind:<14} n {figures['n']:>5}  {times}")
    print({name: result[name] for name in ("start_seconds", "rss_mb", "peak_rss_mb", "slowest_p95", "load_average")})
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def build(work: Path, studies: int, seed: int) -> Store:
    """The store of the benchmark; a second call finds it."""
    store, phantom = Store(work / "store"), work / "phantom"
    if store.version("text_labels") is None:
        write_phantom(PhantomConfig(out=str(phantom), studies=studies, seed=seed, images=False))
        ingest(IngestConfig(store=store.uri, source="phantom", root=str(phantom)))
        store.upsert("cleaned_reports", cleaned_rows(store, phantom, seed))
        label_texts(store)
    return store


def cleaned_rows(store: Store, phantom: Path, seed: int) -> pl.DataFrame:
    """Of ten reports nine accepted; the rest flagged, rejected or failed."""
    chance = random.Random(seed)
    truth = read_truth(phantom).select("study_id", "findings", "impression", removed="noise")
    rows = store.read("studies", ["source", "study_id", "report_sha256"]).join(truth, on="study_id").sort("study_id")
    statuses = chance.choices(["accepted", "flagged", "rejected", "failed"], [90, 7, 2.5, 0.5], k=rows.height)
    flags = [[] if status == "accepted" else chance.sample(FLAGS, chance.randint(1, 3)) for status in statuses]
    return rows.with_columns(
        status=pl.Series(statuses),
        flags=pl.Series(flags, dtype=pl.List(pl.String)),
        prompt_version=pl.lit("v1"),
        prompt_digest=pl.lit(load_prompt("v1").digest),
        model=pl.lit("rules-3"),
        parameters_digest=pl.lit("0" * 64),
        endpoint=pl.lit("embedded"),
        **{name: pl.lit(1) for name in ("prompt_tokens", "completion_tokens", "cached_tokens", "attempts")},
        cost_usd=pl.lit(0.0),
        latency_ms=pl.lit(5.0),
        created_at=now(),
    )


def measure(store: Store, requests: int, seed: int) -> dict[str, Any]:
    """Ask a server for every kind of page in turn."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "unix", "serve", "--store", store.uri, "--port", str(port)]
    started = time.monotonic()
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while True:
                try:
                    page = client.get("/studies").text
                    break
                except httpx.TransportError:
                    if server.poll() is not None or time.monotonic() - started > 120:
                        raise
                    time.sleep(0.1)
            ready = time.monotonic() - started
            return {"start_seconds": round(ready, 2), **ask(client, server.pid, page, store, requests, seed)}
    finally:
        server.terminate()
        server.wait(30)


def ask(client: httpx.Client, pid: int, page: str, store: Store, requests: int, seed: int) -> dict[str, Any]:
    """Time `requests` requests, the kinds in turn, and note the memory on the way."""
    chance = random.Random(seed)
    token = re.search(r'name="csrf_token" value="(\w+)"', page)[1]
    studies = store.read("studies", ["study_id"])["study_id"].to_list()
    words = sorted({word for text in sample_texts(store, chance) for word in re.findall(r"[a-z]{4,}", text.lower())})
    took: dict[str, list[float]] = {}
    burnt: dict[str, float] = {}
    memory: list[float] = []
    for number in range(requests):
        kind, method, path, fields = request(number, chance, studies, words, token)
        spent, begun = cpu_ms(pid), time.perf_counter()
        answer = client.request(method, path, data=fields)
        took.setdefault(kind, []).append(1000 * (time.perf_counter() - begun))
        burnt[kind] = burnt.get(kind, 0.0) + cpu_ms(pid) - spent
        if answer.status_code not in (200, 303):
            raise SystemExit(f"{method} {path}: {answer.status_code}")
        if number % max(1, requests // 10) == 0 or number + 1 == requests:
            memory.append(resident(pid))
    figures = {
        kind: {
            "n": len(times),
            "p50": statistics.median(times),
            "p95": sorted(times)[int(0.95 * (len(times) - 1))],
            "worst": max(times),
            "cpu_mean": burnt[kind] / len(times),
        }
        for kind, times in sorted(took.items())
    }
    slowest = max(one["p95"] for one in figures.values())
    return {
        "milliseconds": figures,
        "slowest_p95": slowest,
        "within_limit": slowest <= LIMIT_MS and max(memory) < LIMIT_MB,
        "rss_mb": [round(one) for one in memory],
        "peak_rss_mb": round(resident(pid, "VmHWM")),
    }


def request(
    number: int, chance: random.Random, studies: list[str], words: list[str], token: str
) -> tuple[str, str, str, dict[str, str] | None]:
    """The next request: kind, method, path, form."""
    kinds = ("first page", "filter", "search", "filter+search", "sorted", "study", "overview", "decision", "sample")
    kind = kinds[number % len(kinds)]
    narrow = {
        "filter": {
            **chance.choice(
                [
                    {"status": chance.choice(["accepted", "flagged", "rejected", "failed"])},
                    {"flag": chance.choice(FLAGS)},
                    {"noise": chance.choice(CATEGORIES)},
                    {"view": chance.choice(["PA", "AP", "LATERAL"])},
                    {"review": chance.choice(["none", "any", "reject"])},
                    {"label": f"{chance.choice(['raw', 'clean', 'lost', 'gained'])}:{chance.choice(CHEXPERT_14)}"},
                ]
            ),
            "words": f"{chance.randint(1, 60)}-{chance.randint(61, 400)}",
        },
        "search": {"q": " ".join(chance.sample(words, chance.randint(1, 3)))},
        "sorted": {
            "sort": chance.choice(["subject", "status", "flags", "raw_words", "kept"]),
            "order": chance.choice(["up", "down"]),
            "words": f"{chance.randint(1, 60)}-",
        },
    }
    match kind:
        case "study":
            study = chance.choice(studies)
            return kind, "GET", f"/study?{urlencode({'study': f'phantom/{study}', 'status': 'accepted'})}", None
        case "overview":
            return kind, "GET", "/", None
        case "decision":
            fields = {"csrf_token": token, "study": f"phantom/{chance.choice(studies)}", "decision": "reject"}
            return kind, "POST", "/decide", {**fields, "query": "status=flagged"}
        case "sample":
            return kind, "GET", f"/sample?sample={chance.randint(0, 10**6)}:100:status", None
        case "first page":
            return kind, "GET", "/studies", None
        case "filter+search":
            return kind, "GET", f"/studies?{urlencode(narrow['filter'] | narrow['search'])}", None
        case _:
            return kind, "GET", f"/studies?{urlencode(narrow[kind])}", None


def sample_texts(store: Store, chance: random.Random) -> list[str]:
    """A few hundred reports to take search words from."""
    texts = store.scan("studies").select("report_raw").head(2_000).collect()["report_raw"].to_list()
    return chance.sample(texts, min(300, len(texts)))


def cpu_ms(pid: int) -> float:
    """CPU milliseconds that a process has spent, in steps of the kernel's clock."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int, field: str = "VmRSS") -> float:
    """Memory of a process in MB."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(match[1]) / 1000 if match else float("nan")


if __name__ == "__main__":
    sys.exit(main())
