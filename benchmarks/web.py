"""What the audit pages cost: milliseconds per kind of request and the server's memory, over 200,000 phantom studies.

`unix serve` runs as a process of its own; one client asks over loopback, so a figure is the server's time and a little
more. Beside it stands the CPU time that the server spent, which a busy machine does not stretch. Every filter and
search differs from those before it, so nothing is answered from what the server remembers. The cleaned reports are the
phantom's own truth under a seeded draw of statuses and flags: cleaning is another benchmark.

With `--runs` the playground's model draws without a pause meanwhile. Before that it is asked for a report and an image,
first by a server that has just started and has loaded no model, then again: seconds from the request until a browser
has the first words, and the image.

    python benchmarks/web.py --json web.json
    python benchmarks/web.py --studies 20000 --work build/web20k
    python benchmarks/web.py --runs runs
"""

import argparse
import io
import json
import os
import platform
import random
import re
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import polars as pl
from PIL import Image

from unix.data.cleaning.prompt import load_prompt
from unix.data.ingest import IngestConfig, ingest
from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.phantom.truth import read_truth
from unix.data.text_labels import label_texts
from unix.records import CHEXPERT_14
from unix.store import Store, now

LIMIT_MS, LIMIT_MB = 300.0, 1000.0
FIRST_WORDS_LIMIT_SECONDS, FIRST_IMAGE_LIMIT_SECONDS = 2.0, 10.0
FLAGS = ("finding_lost", "added_word", "reworded", "date_left", "number_lost", "added_content", "laterality_changed")
CATEGORIES = ("technique", "header", "indication", "notification", "prior_comparison", "signature")


def main() -> int:
    """Build the store where it is missing, ask, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200_000)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="keeps the store; default: build/web-<studies>")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="runs whose model is kept busy; default: none")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    work = options.work or Path("build") / f"web-{options.studies}"
    store = build(work, options.studies, options.seed)
    result = measure(store, options.requests, options.seed, options.runs) | {
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
    told = ("start_seconds", "playground", "rss_mb", "peak_rss_mb", "slowest_p95", "within_limit", "load_average")
    print({name: result[name] for name in told if name in result})
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


def measure(store: Store, requests: int, seed: int, runs: Path | None) -> dict[str, Any]:
    """Ask a server for every kind of page in turn, with a model that draws beside it where there are runs."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "unix", "serve", "--store", store.uri, "--port", str(port)]
    command += [] if runs is None else ["--runs", str(runs)]
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
            ready = {"start_seconds": round(time.monotonic() - started, 2)}
            if runs is None:
                return ready | ask(client, server.pid, page, store, requests, seed)
            first = {"cold": play(client), "warm": play(client)}
            within = all(
                one["first_words_seconds"] <= FIRST_WORDS_LIMIT_SECONDS
                and one["first_image_seconds"] <= FIRST_IMAGE_LIMIT_SECONDS
                for one in first.values()
            )
            with drawing(client) as drawn:
                asked = ask(client, server.pid, page, store, requests, seed)
                during = {"euler_steps_meanwhile": drawn()}
            return ready | asked | {"playground": first | during, "within_limit": within and asked["within_limit"]}
    finally:
        server.terminate()
        server.wait(30)


def play(client: httpx.Client) -> dict[str, float]:
    """Bring a picture to be read, then ask for an image: seconds until the first words and until the image."""
    fields = playground_form(client)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (512, 512), dtype=np.uint8)).save(buffer, "PNG")
    started = time.perf_counter()
    headers = {"content-type": "application/octet-stream", "x-csrf-token": fields["csrf_token"]}
    upload = client.post("/playground/uploads", content=buffer.getvalue(), headers=headers).json()["upload"]
    words = await_card(client, "/playground/read", fields | {"upload": upload}, r'class="report[^"]*">\s*\w')
    begun = time.perf_counter()
    image = await_card(client, "/playground/draw", fields | {"findings": "Large left effusion."}, r"/0/0\.png")
    return {"first_words_seconds": round(words - started, 2), "first_image_seconds": round(image - begun, 2)}


def playground_form(client: httpx.Client) -> dict[str, str]:
    """Token and first checkpoint of the playground's page, which begins to load that model when it is opened."""
    page = client.get("/playground").text
    token, checkpoint = re.search(r'name="csrf_token" value="(\w+)"', page), re.search(r'<option value="(\w+)"', page)
    if token is None or checkpoint is None:
        raise SystemExit("the playground offers no checkpoint: does --runs hold one?")
    return {"csrf_token": token[1], "checkpoint": checkpoint[1]}


def await_card(client: httpx.Client, path: str, fields: dict[str, str], wanted: str) -> float:
    """Ask for something, watch its card as a browser does, and say when it first showed what is `wanted`."""
    card = client.post(path, data=fields, headers={"hx-request": "true"}).raise_for_status().text
    key = re.search(r"/playground/turns/([\w-]+)/", card)[1]
    found = None
    with client.stream("GET", f"/playground/turns/{key}/events") as answer:
        text = ""
        for part in answer.iter_text():
            text += part
            if found is None and re.search(wanted, text):
                found = time.perf_counter()
    if found is None:
        raise SystemExit(f"{path}: nothing came")
    return found


@contextmanager
def drawing(client: httpx.Client) -> Iterator[Any]:
    """Keep the model drawing; gives what says how many Euler steps it has done so far."""
    fields = playground_form(client) | {"findings": "Clear.", "images": "8", "num_steps": "250"}
    ended, steps = threading.Event(), {"done": 0, "now": 0}

    def draw_on() -> None:
        with httpx.Client(base_url=client.base_url, cookies=client.cookies, timeout=60) as watcher:
            while not ended.is_set():
                posted = watcher.post("/playground/draw", data=fields, headers={"hx-request": "true"})
                card = posted.raise_for_status().text
                key = re.search(r"/playground/turns/([\w-]+)/", card)[1]
                while not ended.wait(1) and "data-live" in card:
                    card = watcher.get(f"/playground/turns/{key}").text
                    if counted := re.search(r">(\d+) of \d+ steps<", card):
                        steps["now"] = int(counted[1])
                steps["done"], steps["now"] = steps["done"] + steps["now"], 0

    thread = threading.Thread(target=draw_on, daemon=True)
    thread.start()
    try:
        yield lambda: steps["done"] + steps["now"]
    finally:
        ended.set()
        thread.join(60)


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
