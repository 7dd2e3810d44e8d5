"""Asks an OpenAI-compatible endpoint to clean one report at a time, and takes nothing for an answer that is not one.

The official `openai` client carries the requests, without its own retries and models: it accepts cut and blank answers
as success, and decoding them into its models costs more than everything else. The embedded endpoint is reached through
an ASGI transport, so it passes through the same code.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, cast

import aiohttp
import httpx2
import openai
from typing_extensions import override

from unix import __version__
from unix.data.cleaning.answer import ParsedAnswer, parse_answer
from unix.data.cleaning.endpoint import Endpoint
from unix.data.cleaning.pacing import Budget, Concurrency, Rate
from unix.data.cleaning.prompt import CleanPrompt, Message
from unix.data.cleaning.transport import http_client
from unix.data.cleaning.usage import Usage
from unix.errors import AnswerError, RefusedError

logger = logging.getLogger(__name__)

_STOP_AT_ONCE = {
    401: "the key was refused",
    402: "the account has no balance",
    403: "access was denied",
    404: "the address or the model is unknown",
}
_REDIRECTS = "redirects to another address, where nothing was sent; set base_url to the address that is meant"
_RETRIED = frozenset({408, 409, 425})
_FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls", "insufficient_system_resource"})
"""Those with a name; an endpoint's own invention could be anything, and reasons reach tables and logs."""

_MOST_REFUSALS = 30
"""429 answers to one report at most; they do not count as attempts, for they say nothing about the report."""

_EMBEDDED_URL = "http://embedded/v1"
_USER_AGENT = f"unix/{__version__}"
_REQUEST_OPTIONS: openai.RequestOptions = {
    "headers": {"x-stainless-retry-count": openai.Omit(), "x-stainless-read-timeout": openai.Omit()}
}
_FIRST_WAIT_SECONDS = 0.5
_LONGEST_WAIT_SECONDS = 60.0
_LONGEST_RETRY_AFTER_SECONDS = 600.0
_SECONDS_BETWEEN_COMPLAINTS = 10.0

UNREACHABLE = "connection failed"
"""How the reason begins where no connection came about, or it broke."""
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of asking: an answer, or the reason why there is none. Usage covers every attempt."""

    answer: ParsedAnswer | None
    failure: str
    usage: Usage
    content: str = ""
    """The message's text, for quoting it back."""


class Stopped(Exception):
    """The client was asked to stop before this request was sent."""


class OutOfBudget(Exception):
    """The next request could cost more than the budget still holds."""


class _AttemptFailed(Exception):
    """One request failed in a way that the next may not."""

    def __init__(self, reason: str, wait_seconds: float | None = None, usage: Usage | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_seconds = wait_seconds
        self.usage = usage or Usage()


class _TooManyRequests(_AttemptFailed):
    """The endpoint answered 429."""


class _Refused(_AttemptFailed):
    """The endpoint will not answer this request, however often it is asked."""


class _PlainOpenAI(openai.AsyncOpenAI):
    """The official client with no more headers than a request needs.

    By itself it describes the platform in nine of them, which costs a fifth of a request's CPU time, and sends the ids
    of an OpenAI account and other headers that it finds in the environment, to whatever host.
    """

    @property
    @override
    def default_headers(self) -> dict[str, str | openai.Omit]:
        return {"Accept": "application/json", "Content-Type": "application/json", "User-Agent": _USER_AGENT}


class ChatClient:
    """Cleans reports through one endpoint; an async context manager.

    Args:
        endpoint: whom to ask.
        prompt: what to ask.
        concurrency: requests in flight at most; None: as the endpoint's limits say.
        budget_usd: what all requests together may cost.
        private_only: connect to loopback and private addresses alone (`check_policy` says when).
        seed: of the jitter between attempts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        prompt: CleanPrompt,
        concurrency: int | None = None,
        budget_usd: float | None = None,
        private_only: bool = False,
        seed: int = 0,
    ) -> None:
        self.endpoint = endpoint
        self.prompt = prompt
        self.concurrency = Concurrency(concurrency or endpoint.limits.concurrency)
        self.budget = Budget(budget_usd)
        self._requests = Rate(endpoint.limits.requests_per_minute)
        self._tokens = Rate(endpoint.limits.tokens_per_minute)
        self._jitter = random.Random(seed)
        self._complained_at = -_SECONDS_BETWEEN_COMPLAINTS
        self._stopping = False
        self._waiting = set[asyncio.Task[object]]()
        self._url = f"{endpoint.base_url or _EMBEDDED_URL}".rstrip("/") + "/chat/completions"
        self._client = _PlainOpenAI(
            api_key=endpoint.api_key(),
            base_url=endpoint.base_url or _EMBEDDED_URL,
            max_retries=0,
            timeout=endpoint.limits.timeout_seconds,
            http_client=http_client(endpoint, self.concurrency.limit, private_only),
        )
        body: dict[str, Any] = {
            "model": endpoint.model,
            "temperature": endpoint.temperature,
            "max_tokens": endpoint.max_output_tokens,
            **endpoint.extra_body,
        }
        if endpoint.json_mode == "schema":
            schema = {"name": "cleaned_report", "strict": True, "schema": prompt.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif endpoint.json_mode == "object":
            body["response_format"] = {"type": "json_object"}
        # The part of the body that every request has in common is written once; messages come last.
        body["messages"] = list(prompt.prefix)
        self._body_start = _json(body)[: -len(b"]}")] + (b"," if prompt.prefix else b"")
        self._prefix_characters = sum(len(message["content"]) for message in prompt.prefix)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    def stop(self) -> None:
        """Send nothing any more: what is in flight may finish, whatever waits to be sent raises `Stopped`."""
        self._stopping = True
        for task in self._waiting:
            task.cancel()

    async def clean(self, report: str, correction: Sequence[Message] = ()) -> Reply:
        """Ask for one report; `correction` follows it (an earlier answer and what was wrong with it).

        Raises:
            RefusedError: nothing can be asked there at all (key, balance, address, model).
            PolicyError: the host now resolves to an address where the report must not go.
            OutOfBudget: asking could cost more than is left.
            Stopped: `stop` was called, and there is no answer yet.
        """
        messages = [*self.prompt.messages(report)[len(self.prompt.prefix) :], *correction]
        usage = Usage()
        attempts = refusals = 0
        while True:
            wait: float | None = None
            try:
                content, attempt_usage = await self._request(messages)
                usage += attempt_usage
                return Reply(parse_answer(content), "", usage, content)
            except _AttemptFailed as failed:
                usage += failed.usage
                reason, wait = failed.reason, failed.wait_seconds
                if isinstance(failed, _Refused):
                    return Reply(None, reason, usage)
                if isinstance(failed, _TooManyRequests):
                    refusals += 1
                else:
                    attempts += 1
                    self._complain(reason, attempts)
            except AnswerError as error:
                reason, wait = str(error), 0.0
                attempts += 1
            if attempts >= self.endpoint.limits.attempts or refusals >= _MOST_REFUSALS:
                return Reply(None, reason, usage)
            with self._may_stop():
                await asyncio.sleep(self._wait(attempts + refusals, wait))

    def _complain(self, reason: str, attempts: int) -> None:
        """Say that the endpoint fails, at most every ten seconds: otherwise a run that waits for it looks well."""
        if time.monotonic() - self._complained_at >= _SECONDS_BETWEEN_COMPLAINTS:
            self._complained_at = time.monotonic()
            tries = f"try {attempts} of {self.endpoint.limits.attempts} for this report"
            logger.warning("endpoint %s: %s, %s", self.endpoint.name, reason, tries)

    def _wait(self, attempt: int, asked: float | None) -> float:
        """Seconds before the next attempt: what the endpoint asked for, else full jitter below a doubling bound."""
        if asked is not None:
            return asked * self._jitter.uniform(1.0, 1.1)  # so that those who were told the same do not meet again
        return self._jitter.uniform(0, min(_LONGEST_WAIT_SECONDS, _FIRST_WAIT_SECONDS * 2**attempt))

    @contextmanager
    def _may_stop(self) -> Generator[None]:
        """The body only waits: `stop` ends it, as `Stopped`."""
        if self._stopping:
            raise Stopped
        task = cast(asyncio.Task[object], asyncio.current_task())
        self._waiting.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self._stopping and task.uncancel() == 0:
                raise Stopped from None
            raise
        finally:
            self._waiting.discard(task)

    async def _request(self, messages: list[Message]) -> tuple[str, Usage]:
        characters = self._prefix_characters + sum(len(message["content"]) for message in messages)
        worst = self._worst_cost(characters)
        with self._may_stop():
            await self._requests.take()
            await self._tokens.take(characters / _CHARACTERS_PER_TOKEN)
            sent_in_round = await self.concurrency.enter()
            try:
                if not await self.budget.reserve(worst):
                    raise OutOfBudget
            except BaseException:
                self.concurrency.leave()
                raise
        cost: float | None = None
        try:
            content, finish, usage = await self._send(messages, sent_in_round)
            cost = usage.cost_usd
        except _StatusFault as fault:
            cost = 0.0
            raise fault.meaning from None
        finally:
            self.budget.settle(worst, cost)
            self.concurrency.leave()
        self.concurrency.succeeded()
        if finish != "stop":
            raise _AttemptFailed(f"finish_reason {finish}", wait_seconds=0.0, usage=usage)
        return content, usage

    async def _send(self, messages: list[Message], sent_in_round: int) -> tuple[str, str, Usage]:
        body = self._body_start + _json(messages)[1:] + b"}"
        started = time.monotonic()
        try:
            async with asyncio.timeout(self.endpoint.limits.timeout_seconds):
                response = await self._client.post(
                    self._url, content=body, cast_to=httpx2.Response, options=_REQUEST_OPTIONS
                )
        except openai.APIStatusError as error:
            raise _StatusFault(self._status_fault(error, sent_in_round)) from None
        except (TimeoutError, openai.APITimeoutError) as error:
            # the aiohttp transport calls a connection that was refused at once a ConnectTimeout, too
            connecting = isinstance(error.__cause__, httpx2.ConnectTimeout)
            reason = f"{UNREACHABLE} (nobody answers at its address)" if connecting else "timeout"
            raise _AttemptFailed(reason, usage=_attempt(started)) from None
        except (openai.APIConnectionError, httpx2.HTTPError, OSError, aiohttp.ClientError) as error:
            raise _AttemptFailed(f"{UNREACHABLE} ({type(error).__name__})", usage=_attempt(started)) from None
        if response.is_redirect:
            raise RefusedError(f"endpoint {self.endpoint.name} {_REDIRECTS}")
        return self._read(response.content, started)

    def _status_fault(self, error: openai.APIStatusError, sent_in_round: int) -> Exception:
        status = error.status_code
        if status in _STOP_AT_ONCE:
            return RefusedError(f"endpoint {self.endpoint.name} answered {status}: {_STOP_AT_ONCE[status]}")
        if 300 <= status < 400:
            return RefusedError(f"endpoint {self.endpoint.name} {_REDIRECTS}")
        wait = _retry_after(error.response.headers.get("retry-after"))
        if status == 429:
            self.concurrency.refused(sent_in_round)
            return _TooManyRequests("status 429", wait, Usage(attempts=1))
        if status in _RETRIED or status >= 500:
            return _AttemptFailed(f"status {status}", wait, Usage(attempts=1))
        return _Refused(f"refused with status {status}", usage=Usage(attempts=1))

    def _read(self, body: bytes, started: float) -> tuple[str, str, Usage]:
        """Content, finish reason and usage of a response's body, which may begin with keep-alive lines."""
        try:
            value = cast(dict[str, Any], json.loads(body if body[:1] == b"{" else _without_keep_alive(body)))
            choice = value["choices"][0]
            content, finish = choice["message"]["content"] or "", choice["finish_reason"]
            if not isinstance(content, str):
                raise TypeError
            used = cast(dict[str, Any], value.get("usage") or {})
            details = cast(dict[str, Any], used.get("prompt_tokens_details") or {})
            prompt_tokens, completion_tokens = _count(used.get("prompt_tokens")), _count(used.get("completion_tokens"))
            cached = _count(used.get("prompt_cache_hit_tokens") or details.get("cached_tokens"))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _AttemptFailed("malformed response", wait_seconds=0.0, usage=_attempt(started)) from None
        cached = min(cached, prompt_tokens)
        price = self.endpoint.price
        cost = price.cost(prompt_tokens, cached, completion_tokens, datetime.now(UTC)) if price is not None else 0.0
        latency = (time.monotonic() - started) * 1e3
        usage = Usage(prompt_tokens, completion_tokens, cached, cost, latency, 1)
        known = isinstance(finish, str) and finish in _FINISH_REASONS
        return content, finish if known else "unknown", usage

    def _worst_cost(self, characters: int) -> float:
        """Dollars for one request if none of it is cached, each character a token and the answer the longest."""
        endpoint, price = self.endpoint, self.endpoint.price
        if price is None:
            return 0.0
        return (characters * price.input + endpoint.max_output_tokens * price.output) / 1e6 * price.peak_factor


class _StatusFault(Exception):
    """The endpoint answered with an error, which costs nothing; `meaning` is what follows from it."""

    def __init__(self, meaning: Exception) -> None:
        super().__init__()
        self.meaning = meaning


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _count(value: object) -> int:
    """A number of tokens; 0 where none is given.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return 0
    if not isinstance(value, int) or value < 0:
        raise TypeError
    return value


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
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_SECONDS)
