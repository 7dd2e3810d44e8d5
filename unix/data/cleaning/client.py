"""Asks an OpenAI-compatible endpoint to clean one report at a time, and takes nothing for an answer that is not one.

The official `openai` client carries the requests, without its own retries and models: it accepts cut and blank answers
as success, and decoding them into its models costs more than everything else. The embedded endpoint is reached through
an ASGI transport, so it passes through the same code.
"""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, cast

import httpx2
import openai

from unix.data.cleaning.answer import ParsedAnswer, parse_answer
from unix.data.cleaning.endpoint import Endpoint
from unix.data.cleaning.pacing import Concurrency, Rate
from unix.data.cleaning.prompt import CleanPrompt, Message
from unix.errors import AnswerError, EndpointError

_STOP_AT_ONCE = {
    401: "the key was refused",
    402: "the account has no balance",
    403: "access was denied",
    404: "the address or the model is unknown",
}
_RETRIED = frozenset({408, 409, 425, 429})
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """What requests used; `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    latency_ms: float = 0.0
    attempts: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cost_usd + other.cost_usd,
            self.latency_ms + other.latency_ms,
            self.attempts + other.attempts,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking: an answer, or the reason why there is none. Usage covers every attempt."""

    answer: ParsedAnswer | None
    failure: str
    usage: Usage
    content: str = ""
    """The message's text, for quoting it back."""


class _AttemptFailed(Exception):
    """One request failed in a way that the next may not."""

    def __init__(self, reason: str, wait_seconds: float | None = None, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds
        self.usage = usage or Usage()


class ChatClient:
    """Cleans reports through one endpoint; an async context manager."""

    def __init__(self, endpoint: Endpoint, prompt: CleanPrompt, concurrency: int | None = None, seed: int = 0) -> None:
        self.endpoint = endpoint
        self.prompt = prompt
        self.concurrency = Concurrency(concurrency or endpoint.limits.concurrency)
        self._requests = Rate(endpoint.limits.requests_per_minute)
        self._tokens = Rate(endpoint.limits.tokens_per_minute)
        self._jitter = random.Random(seed)
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.api_key(),
            base_url=endpoint.base_url or "http://embedded/v1",
            max_retries=0,
            timeout=endpoint.limits.timeout_seconds,
            http_client=_http_client(endpoint, self.concurrency.limit),
        )
        self._body: dict[str, Any] = {
            "model": endpoint.model,
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_output_tokens,
            **endpoint.extra_body,
        }
        if endpoint.json_mode == "schema":
            schema = {"name": "cleaned_report", "strict": True, "schema": prompt.schema}
            self._body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif endpoint.json_mode == "object":
            self._body["response_format"] = {"type": "json_object"}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def clean(self, report: str, correction: Sequence[Message] = ()) -> Reply:
        """Ask for one report; `correction` follows it (an earlier answer and what was wrong with it).

        Raises:
            EndpointError: nothing can be asked there at all (key, balance, address, model).
        """
        messages = [*self.prompt.messages(report), *correction]
        usage = Usage()
        reason = ""
        wait: float | None = None
        for attempt in range(self.endpoint.limits.attempts):
            if attempt:
                await asyncio.sleep(self._wait(attempt, wait))
            try:
                async with self.concurrency.slot():
                    content, attempt_usage = await self._request(messages)
                usage += attempt_usage
                return Reply(parse_answer(content), "", usage, content)
            except _AttemptFailed as failed:
                usage += failed.usage
                reason, wait = failed.reason, failed.wait_seconds
                if reason.startswith("refused"):
                    break
            except AnswerError as error:
                reason, wait = str(error), 0.0
        return Reply(None, reason, usage)

    def _wait(self, attempt: int, asked: float | None) -> float:
        """Seconds before the next attempt: what the endpoint asked for, else full jitter below a doubling bound."""
        if asked is not None:
            return asked
        return self._jitter.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt))

    async def _request(self, messages: list[Message]) -> tuple[str, Usage]:
        await self._requests.take()
        await self._tokens.take(sum(len(message["content"]) for message in messages) / _CHARACTERS_PER_TOKEN)
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.endpoint.limits.timeout_seconds):
                response = await self._client.post(
                    "/chat/completions", body={**self._body, "messages": messages}, cast_to=httpx2.Response
                )
        except openai.APIStatusError as error:
            raise self._status_fault(error) from None
        except (TimeoutError, openai.APITimeoutError):
            raise _AttemptFailed("timeout", usage=_attempt(started)) from None
        except (openai.APIConnectionError, httpx2.HTTPError, OSError) as error:
            raise _AttemptFailed(f"connection failed ({type(error).__name__})", usage=_attempt(started)) from None
        if response.is_redirect:
            raise EndpointError(
                f"endpoint {self.endpoint.name} redirects to another address; set base_url to the address it means"
            )
        content, finish, usage = self._read(response.content, started)
        self.concurrency.succeeded()
        if finish != "stop":
            raise _AttemptFailed(f"finish_reason {finish}", wait_seconds=0.0, usage=usage)
        return content, usage

    def _status_fault(self, error: openai.APIStatusError) -> Exception:
        status = error.status_code
        if status in _STOP_AT_ONCE:
            return EndpointError(f"endpoint {self.endpoint.name} answered {status}: {_STOP_AT_ONCE[status]}")
        if 300 <= status < 400:
            return EndpointError(
                f"endpoint {self.endpoint.name} redirects ({status}); set base_url to the address it means"
            )
        if status == 429:
            self.concurrency.refused()
        if status in _RETRIED or status >= 500:
            return _AttemptFailed(
                f"status {status}", _retry_after(error.response.headers.get("retry-after")), Usage(attempts=1)
            )
        return _AttemptFailed(f"refused with status {status}", usage=Usage(attempts=1))

    def _read(self, body: bytes, started: float) -> tuple[str, str, Usage]:
        """Content, finish reason and usage of a response's body, which may begin with keep-alive lines."""
        try:
            value = cast(dict[str, Any], json.loads(body if body[:1] == b"{" else _without_keep_alive(body)))
            choice = value["choices"][0]
            content, finish = choice["message"]["content"] or "", str(choice["finish_reason"])
        except (ValueError, KeyError, IndexError, TypeError):
            raise _AttemptFailed("malformed response", wait_seconds=0.0, usage=_attempt(started)) from None
        used = cast(dict[str, Any], value.get("usage") or {})
        prompt_tokens, completion_tokens = int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0)
        details = cast(dict[str, Any], used.get("prompt_tokens_details") or {})
        cached = int(used.get("prompt_cache_hit_tokens") or details.get("cached_tokens") or 0)
        price = self.endpoint.price
        cost = price.cost(prompt_tokens, cached, completion_tokens, datetime.now(UTC)) if price is not None else 0.0
        latency = (time.monotonic() - started) * 1e3
        return str(content), finish, Usage(prompt_tokens, completion_tokens, cached, cost, latency, 1)


def _attempt(started: float) -> Usage:
    return Usage(latency_ms=(time.monotonic() - started) * 1e3, attempts=1)


def _without_keep_alive(body: bytes) -> bytes:
    return b"\n".join(line for line in body.splitlines() if not line.startswith(b":"))


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, None where there is none that makes sense."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(max(seconds, 0.0), _LONGEST_WAIT_SECONDS)


def _http_client(endpoint: Endpoint, concurrency: int) -> httpx2.AsyncClient:
    """The transport. No redirects, for they could lead to another host; no proxy from the environment, likewise."""
    if endpoint.embedded:
        from unix.data.cleaning.server import app

        return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), follow_redirects=False)
    return openai.DefaultAioHttpClient(
        follow_redirects=False,
        trust_env=False,
        limits=httpx2.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
    )
