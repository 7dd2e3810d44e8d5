"""An endpoint in a process of its own, with faults on purpose, and stores to clean against it."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from unix.data.ingest import IngestConfig, ingest
from unix.data.phantom import PhantomConfig, write_phantom
from unix.store import Store

_MODEL = "stand-in"


class Event(NamedTuple):
    """What the server wrote down: when, about which report's digest, and `asked`, `ok` or a fault."""

    time: float
    report: str
    kind: str


@dataclass(frozen=True)
class ChatServer:
    """A running `benchmarks/chat_server.py`."""

    url: str
    log: Path
    process: subprocess.Popen[str]

    def events(self) -> list[Event]:
        lines = [line.split() for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [Event(float(when), report, kind) for when, report, kind in lines]

    def kinds(self) -> Counter[str]:
        return Counter(event.kind for event in self.events())

    def endpoints(self, name: str = "stand-in", **limits: float) -> Path:
        """An `endpoints.yaml` that knows this server as `name`."""
        path = self.log.with_suffix(".yaml")
        settings = ", ".join(f"{key}: {value}" for key, value in limits.items())
        path.write_text(
            f"{name}: {{base_url: '{self.url}', model: {_MODEL}, json_mode: object, limits: {{{settings}}},\n"
            "  price: {as_of: 2026-01-01, input: 1, cached_input: 0.1, output: 2}}\n"
        )
        return path


@pytest.fixture
def chat_server(repository: Path, tmp_path: Path) -> Iterator[Callable[..., ChatServer]]:
    """`chat_server("--faults", ...)` starts one more server, which lives as long as the test."""
    with ExitStack() as stack:

        def start(*options: str) -> ChatServer:
            log = tmp_path / f"chat-server-{len(list(tmp_path.glob('chat-server-*.log')))}.log"
            command = [sys.executable, str(repository / "benchmarks" / "chat_server.py"), "--answers", "rules"]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, "--log", str(log), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            stack.callback(process.stdin.close)
            return ChatServer(process.stdout.readline().strip(), log, process)

        yield start


@pytest.fixture
def phantom_store(tmp_path: Path) -> Callable[[int, str], Store]:
    """`phantom_store(studies, name)`: a store that holds so many phantom studies."""

    def fill(studies: int, name: str = "store") -> Store:
        source = tmp_path / f"phantom-{studies}"
        if not source.exists():
            write_phantom(PhantomConfig(studies=studies, out=str(source), seed=11, images=False))
        store = Store(tmp_path / name)
        ingest(IngestConfig(store=store.uri, source="phantom", root=str(source)))
        return store

    return fill


@pytest.fixture
def clean_command() -> Callable[..., subprocess.Popen[str]]:
    """`clean_command(store, endpoints, *options)` starts `unix clean` in a process of its own."""

    def start(store: Store, endpoints: Path, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "unix", "clean", "--store", store.uri, "--endpoint", "stand-in", *options]
        environment = {**os.environ, "UNIX_ENDPOINTS": str(endpoints), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=endpoints.parent
        )

    return start
