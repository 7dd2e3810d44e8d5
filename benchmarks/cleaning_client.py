"""What a request costs the client: CPU seconds per 1,000 chat completions, ours beside its peers.

Every client asks the same server (`chat_server.py`, a process of its own) with the same prompts, latency and
concurrency, in a process of its own, its turn after the others', over several rounds. A client's figure is the CPU
time of its process, children included, beyond that of the same process with only a few requests; so imports and
start-up do not count. `ours` retries, validates and journals, with the guards off; `openai` is a plain loop over
`chat.completions.create`, and `openai-aiohttp` the same on the package's aiohttp transport.

    python benchmarks/cleaning_client.py --json client.json
    python benchmarks/cleaning_client.py --clients ours,aiohttp --rounds 5
"""

import argparse
import asyncio
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = ("curator", "distilabel")
PACKAGES = {
    "ours": "openai",
    "aiohttp": "aiohttp",
    "openai": "openai",
    "openai-aiohttp": "openai",
    "curator": "bespokelabs-curator",
    "distilabel": "distilabel",
}
_SECONDS_AT_MOST = 180.0
"""A process that takes longer is killed and counts as failed."""

BAR = {"ours": 2.5, "ratio": 3.0}
_SYSTEM = "You clean radiology reports and answer in json. " + "Keep the wording, remove what is no finding. " * 50
_WORDS = "lungs clear effusion left right small basal atelectasis heart size normal tube tip no acute".split()  # noqa: SIM905


def prompts(count: int) -> list[str]:
    """As many reports, every one another text of about 180 tokens."""
    draw = random.Random(0)
    return [f" FINDINGS: {number} " + " ".join(draw.choices(_WORDS, k=120)) + ".\n" for number in range(count)]


def messages(prompt: str) -> list[dict[str, str]]:
    """The chat that the peers send: as long as ours."""
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": prompt}]


async def _spread(texts: list[str], concurrency: int, ask: Callable[[str], Awaitable[object]]) -> None:
    """Ask for each text, so many at a time."""
    left = iter(texts)

    async def work() -> None:
        for text in left:
            await ask(text)

    await asyncio.gather(*(work() for _ in range(concurrency)))


def run_ours(url: str, texts: list[str], concurrency: int) -> None:
    """Our client over all texts: retries, validation and journal, guards off."""
    from unix.data.cleaning.ask import ask_all
    from unix.data.cleaning.client import ChatClient
    from unix.data.cleaning.endpoint import Endpoint
    from unix.data.cleaning.guards import Verdict
    from unix.data.cleaning.journal import Journal
    from unix.data.cleaning.prompt import CleanPrompt, load_prompt
    from unix.records import Status
    from unix.store import Store

    schema = load_prompt("v1").schema
    prompt = CleanPrompt("benchmark", "benchmark", schema, ({"role": "system", "content": _SYSTEM},))
    endpoint = Endpoint(name="benchmark", model="m", base_url=url, json_mode="object")
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Store(folder))
        client = ChatClient(endpoint, prompt, concurrency)
        accept = Verdict(Status.ACCEPTED, ())
        asked = ask_all(client, texts, journal, record=lambda _: None, judge=lambda _: accept)
        journal.discard()
    assert asked.num_outcomes == len(texts)


def run_aiohttp(url: str, texts: list[str], concurrency: int) -> None:
    """No client at all: the least that the requests can cost."""
    import aiohttp

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask(text: str) -> object:
                body = {"model": "m", "temperature": 0, "messages": messages(text)}
                async with session.post(f"{url}/chat/completions", json=body) as response:
                    return (await response.json())["choices"][0]["message"]["content"]

            await _spread(texts, concurrency, ask)

    asyncio.run(main())


def run_openai(url: str, texts: list[str], concurrency: int, aiohttp: bool = False) -> None:
    """The plain loop."""
    import openai

    async def main() -> None:
        transport = openai.DefaultAioHttpClient() if aiohttp else None
        async with openai.AsyncOpenAI(api_key="unused", base_url=url, http_client=transport) as client:

            async def ask(text: str) -> object:
                answer = await client.chat.completions.create(model="m", temperature=0, messages=messages(text))  # type: ignore[arg-type]
                return answer.choices[0].message.content

            await _spread(texts, concurrency, ask)

    asyncio.run(main())


def run_openai_aiohttp(url: str, texts: list[str], concurrency: int) -> None:
    """The plain loop on the package's aiohttp transport."""
    run_openai(url, texts, concurrency, aiohttp=True)


def run_curator(url: str, texts: list[str], concurrency: int) -> None:
    """One curator `LLM` over a list of rows."""
    os.environ.update(TELEMETRY_ENABLED="false", OPENAI_API_KEY="unused", CURATOR_DISABLE_RICH_DISPLAY="1")
    litellm = importlib.util.find_spec("litellm")
    if litellm is not None and litellm.origin:  # it ships the encoding that tiktoken would download
        tokenizers = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
        os.environ["TIKTOKEN_CACHE_DIR"] = str(tokenizers)
    from bespokelabs import curator  # type: ignore[import-not-found]

    class Cleaner(curator.LLM):
        def prompt(self, row: dict[str, str]) -> list[dict[str, str]]:
            return messages(row["text"])

        def parse(self, row: dict[str, str], response: str) -> dict[str, str]:
            return {"answer": response}

    limits = {
        "base_url": url,
        "max_requests_per_minute": 1_000_000,
        "max_tokens_per_minute": 1_000_000_000,
        "max_concurrent_requests": concurrency,
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CURATOR_CACHE_DIR"] = folder
        cleaner = Cleaner(model_name="gpt-4o-mini", backend="openai", backend_params=limits)
        answers = cleaner([{"text": text} for text in texts], working_dir=folder)
        assert len(getattr(answers, "dataset", answers)) == len(texts)


def run_distilabel(url: str, texts: list[str], concurrency: int) -> None:
    """distilabel's model class over batches, without its pipeline's processes, which would add to it."""
    from distilabel.models.llms import OpenAILLM  # type: ignore[import-not-found]

    model = OpenAILLM(model="m", base_url=url, api_key="unused")
    model.load()
    for start in range(0, len(texts), concurrency):
        batch = [messages(text) for text in texts[start : start + concurrency]]
        assert len(model.generate(inputs=batch, temperature=0)) == len(batch)


RUNS: dict[str, Callable[[str, list[str], int], None]] = {
    "ours": run_ours,
    "aiohttp": run_aiohttp,
    "openai": run_openai,
    "openai-aiohttp": run_openai_aiohttp,
    "curator": run_curator,
    "distilabel": run_distilabel,
}


@contextmanager
def server(latency_ms: float) -> Generator[str]:
    """The base URL of a server process."""
    command = [sys.executable, str(HERE / "chat_server.py"), "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def pythons(clients: list[str]) -> dict[str, str]:
    """Each client's interpreter; a peer that does not install is named on stderr and left out."""
    found: dict[str, str] = {}
    for name in clients:
        if name not in PEERS:
            found[name] = sys.executable
            continue
        built = subprocess.run([HERE / "peers.sh", name], stdout=subprocess.PIPE, text=True, check=False)
        if built.returncode == 0:
            found[name] = built.stdout.strip()
        else:
            print(f"{name}: its environment could not be built, so it is not measured", file=sys.stderr)
    return found


def version(python: str, package: str) -> str:
    """The package's version in that environment."""
    line = [python, "-c", f"from importlib.metadata import version; print(version({package!r}))"]
    return subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def measure(python: str, name: str, url: str, requests: int, concurrency: int) -> tuple[float, float]:
    """CPU and wall-clock seconds of a process, its descendants included, that makes so many requests."""
    command = [python, __file__, "--run", name, "--url", url]
    command += ["--requests", str(requests), "--concurrency", str(concurrency)]
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        alarm = threading.Timer(_SECONDS_AT_MOST, process.kill)
        alarm.start()
        _, status, used = os.wait4(process.pid, 0)
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            output.seek(0)
            raise RuntimeError(f"{name} failed: {output.read()[-800:].decode(errors='replace')}")
    return used.ru_utime + used.ru_stime, time.monotonic() - started


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every client in turn, round after round."""
    clients = pythons(options.clients.split(","))
    per_thousand: dict[str, list[float]] = {name: [] for name in clients}
    seconds: dict[str, list[float]] = {name: [] for name in clients}
    few = options.concurrency
    with server(options.latency_ms) as url:
        for _ in range(options.rounds):
            for name, python in list(clients.items()):
                try:
                    start_up, _ = measure(python, name, url, few, options.concurrency)
                    cpu, wall = measure(python, name, url, few + options.requests, options.concurrency)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                    del clients[name]
                    continue
                per_thousand[name].append((cpu - start_up) * 1e3 / options.requests)
                seconds[name].append(wall)
    medians = {name: statistics.median(per_thousand[name]) for name in clients}
    return {
        "benchmark": "cleaning_client",
        "requests": options.requests,
        "rounds": options.rounds,
        "concurrency": options.concurrency,
        "latency_ms": options.latency_ms,
        "versions": {name: f"{PACKAGES[name]} {version(python, PACKAGES[name])}" for name, python in clients.items()},
        "cpu_seconds_per_thousand": {name: round(value, 3) for name, value in medians.items()},
        "every_round": {name: [round(value, 3) for value in per_thousand[name]] for name in clients},
        "wall_seconds": {name: round(statistics.median(seconds[name]), 2) for name in clients},
        "times_ours": {name: round(value / medians["ours"], 2) for name, value in medians.items() if "ours" in medians},
        "bar": BAR,
    }


def main() -> None:
    """Compare, or be one of the measured processes (`--run`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", default=",".join(RUNS))
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--json", metavar="PATH", default="")
    parser.add_argument("--run", choices=tuple(RUNS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        RUNS[options.run](options.url, prompts(options.requests), options.concurrency)
        return
    result = compare(options)
    print(
        f"{options.requests} requests, {options.concurrency} at a time, {options.latency_ms:.0f} ms latency, "
        f"median of {options.rounds} rounds, N = {options.requests * options.rounds} requests per client"
    )
    print(f"{'client':<16}{'CPU-s / 1,000':>14}{'x ours':>8}   version")
    for name, cost in result["cpu_seconds_per_thousand"].items():
        print(
            f"{name:<16}{cost:>14.2f}{result['times_ours'].get(name, float('nan')):>8.1f}   {result['versions'][name]}"
        )
    print(json.dumps(result))
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
