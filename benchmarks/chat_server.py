"""A chat-completions endpoint with fixed latency and faults on purpose: what clients are measured and tested against.

A process of its own, so that its CPU time is not the client's and so that it outlives a client that is killed. It
prints its base URL once it listens, and ends when its standard input closes. Tests and benchmarks both start it as a
program; neither imports it.
"""

import argparse
import asyncio
import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO, cast

PERCENT: dict[str, float] = {
    "status_429": 5,
    "status_500": 2,
    "length": 1,  # cut, and says so
    "truncated": 0.5,  # cut, yet finish_reason is "stop"
    "blank": 0.5,  # spaces, yet finish_reason is "stop"
    "hang": 1,  # never answers
    "reset": 1,  # the connection breaks instead of an answer
}
"""How many of a hundred requests meet which fault under `--faults`."""

FIXED = json.dumps({"findings": "The lungs are clear. " * 6, "impression": "No acute process.", "removed": []})
_OPEN, _CLOSE = "<report>\n", "\n</report>"
_REASONS = {200: "OK", 400: "Bad Request", 402: "Payment Required", 429: "Too Many Requests", 500: "Server Error"}
_SECONDS_BETWEEN_BLANK_LINES = 0.02


class Endpoint:
    """What every connection shares: the faults still to come, the answers, the log."""

    def __init__(self, options: argparse.Namespace, log: TextIO | None) -> None:
        self.latency = options.latency_ms / 1e3
        self.keep_alive = options.faults
        self._percent = PERCENT if options.faults else {}
        self._seed = options.seed
        self._status = options.status
        self._after = options.status_after
        self._seen = Counter[str]()
        self._requests = 0
        self._log = log
        self._answer = _rules() if options.answers == "rules" else lambda _: FIXED

    def respond(self, body: bytes) -> tuple[str, str, int, bytes]:
        """A request's key, its fault ("ok" where it meets none), and the status and body of the response."""
        messages = cast(list[dict[str, str]], json.loads(body)["messages"])
        if not messages:  # such as a client sends to look at the headers
            return "", "status_400", 400, b'{"error": {"message": "no messages"}}'
        reports = [message["content"] for message in messages if message["content"].startswith(_OPEN)]
        text = reports[-1][len(_OPEN) : -len(_CLOSE)] if reports else messages[-1]["content"]
        key = hashlib.sha256(text.encode()).hexdigest()
        self._requests += 1
        if self._status and self._requests > self._after:
            return key, f"status_{self._status}", self._status, b'{"error": {"message": "no"}}'
        fault = self._draw(key)
        if fault.startswith("status_"):
            return key, fault, int(fault[-3:]), b'{"error": {"message": "no"}}'
        content = self._answer(text)
        if fault in ("length", "truncated"):
            content = content[: len(content) // 2]
        elif fault == "blank":
            content = " " * 40
        return key, fault, 200, _completion(content, "length" if fault == "length" else "stop", len(body) // 4)

    def note(self, key: str, event: str) -> None:
        """Write down what came of a request."""
        if self._log is not None:
            self._log.write(f"{time.time():.6f} {key} {event}\n")
            self._log.flush()

    def _draw(self, key: str) -> str:
        """The fault of this request for `key`, the same in every run whatever the order of requests."""
        self._seen[key] += 1
        left = random.Random(f"{self._seed} {key} {self._seen[key]}").uniform(0, 100)
        for name, percent in self._percent.items():
            left -= percent
            if left < 0:
                return name
        return "ok"


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request after the other: as much as a chat client needs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._received = b""
        self._answering: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for the answer any more."""
        if self._answering is not None:
            self._answering.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer once the whole request is there."""
        self._received += data
        head, separator, rest = self._received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) >= length:
            self._received = rest[length:]
            self._answering = asyncio.ensure_future(self._respond(rest[:length]))

    async def _respond(self, body: bytes) -> None:
        endpoint = self._endpoint
        if not body:
            self._transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        key, fault, status, content = endpoint.respond(body)
        endpoint.note(key, "asked")
        if status != 200:
            self._send(status, content)
        elif fault == "hang":
            endpoint.note(key, fault)
            await asyncio.sleep(3600)
        elif endpoint.keep_alive:
            self._send_head(200, "transfer-encoding: chunked")
            left = endpoint.latency
            while left > 0:
                self._transport.write(b"1\r\n\n\r\n" if left % 0.04 < 0.02 else b"e\r\n: keep-alive\n\n\r\n")
                await asyncio.sleep(min(left, _SECONDS_BETWEEN_BLANK_LINES))
                left -= _SECONDS_BETWEEN_BLANK_LINES
            if fault == "reset":
                self._transport.abort()
            else:
                self._transport.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
        else:
            await asyncio.sleep(endpoint.latency)
            self._send(status, content)
        endpoint.note(key, fault)

    def _send_head(self, status: int, header: str) -> None:
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'No')}\r\ncontent-type: application/json\r\n{header}\r\n\r\n"
        self._transport.write(head.encode())

    def _send(self, status: int, content: bytes) -> None:
        self._send_head(status, f"content-length: {len(content)}")
        self._transport.write(content)


def _completion(content: str, finish: str, prompt_tokens: int) -> bytes:
    used = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": len(content) // 4,
        "total_tokens": prompt_tokens + len(content) // 4,
        "prompt_cache_hit_tokens": prompt_tokens // 2,
        "prompt_cache_miss_tokens": prompt_tokens - prompt_tokens // 2,
    }
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "finish_reason": finish, "message": message, "logprobs": None}
    answer: dict[str, Any] = {"id": "x", "object": "chat.completion", "created": 0, "model": "m"}
    return json.dumps({**answer, "choices": [choice], "usage": used}).encode()


def _rules() -> Callable[[str], str]:
    """The embedded rule cleaner's answers, which tests know to be right."""
    from unix.data.cleaning.answer import answer_json
    from unix.data.cleaning.rules import clean_report

    return lambda report: answer_json(clean_report(report))


async def _serve(options: argparse.Namespace) -> None:
    with ExitStack() as stack:
        log = stack.enter_context(Path(options.log).open("a", encoding="utf-8")) if options.log else None
        await _listen(options, Endpoint(options, log))


async def _listen(options: argparse.Namespace, endpoint: Endpoint) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", options.port, backlog=2048)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0 picks a free one")
    parser.add_argument("--latency-ms", type=float, default=200.0)
    parser.add_argument("--answers", choices=("fixed", "rules"), default="fixed")
    parser.add_argument("--faults", action="store_true", help=f"of a hundred requests: {PERCENT}; blank lines first")
    parser.add_argument("--status", type=int, default=0, help="answer every request so after --status-after others")
    parser.add_argument("--status-after", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", default="", help="add a line per event: time, report's digest, asked|ok|fault")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
