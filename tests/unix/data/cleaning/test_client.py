"""The client against scripted endpoints: what is retried, what is refused, what stops everything."""

import asyncio
import json
from collections.abc import Callable

import httpx2
import pytest

from unix.data.cleaning import client as module
from unix.data.cleaning.client import ChatClient, Reply
from unix.data.cleaning.endpoint import Endpoint, Limits, load_endpoint
from unix.data.cleaning.pacing import Budget, Concurrency
from unix.data.cleaning.prompt import load_prompt
from unix.errors import RefusedError

ANSWER = json.dumps({"findings": "Clear.", "impression": "", "removed": []})
Handler = Callable[[httpx2.Request], httpx2.Response]


def whole(content: object = ANSWER, finish: object = "stop", usage: object = None) -> dict[str, object]:
    return {"choices": [{"finish_reason": finish, "message": {"content": content}}], "usage": usage}


def completion(content: str = ANSWER, finish: str = "stop", prefix: str = "") -> httpx2.Response:
    body = {
        "choices": [{"finish_reason": finish, "message": {"content": content}}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "prompt_cache_hit_tokens": 4},
    }
    return httpx2.Response(200, content=(prefix + json.dumps(body)).encode())


def ask(monkeypatch: pytest.MonkeyPatch, *responses: httpx2.Response | Exception) -> tuple[Reply, list[httpx2.Request]]:
    """The reply after the endpoint gave these responses one by one, and what it was sent."""
    queue = list(responses)
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        response = queue.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    monkeypatch.setattr(module, "_FIRST_WAIT_SECONDS", 0.0)
    transport = httpx2.MockTransport(handle)
    monkeypatch.setattr(module, "http_client", lambda *_: httpx2.AsyncClient(transport=transport))
    endpoint = Endpoint(name="x", model="m", base_url="http://127.0.0.1:1/v1", limits=Limits(attempts=4))

    async def run() -> Reply:
        async with ChatClient(endpoint, load_prompt("v1")) as client:
            return await client.clean("FINDINGS: Clear.")

    return asyncio.run(run()), seen


FAULTS: list[httpx2.Response | Exception] = [
    httpx2.Response(429, headers={"retry-after": "0"}),
    httpx2.Response(500),
    httpx2.Response(503),
    completion(finish="length"),
    completion(finish="content_filter"),
    completion(finish="insufficient_system_resource"),
    completion(ANSWER[:-10]),
    completion("   "),
    completion('{"findings": "Clear."}'),
    httpx2.Response(200, content=b""),
    httpx2.Response(200, content=b"not json"),
    httpx2.Response(200, content=b"[" * 100_000),
    *(httpx2.Response(200, json=whole(usage=usage)) for usage in ([1], "x", {"prompt_tokens": "10"})),
    *(httpx2.Response(200, json=whole(usage={name: -1})) for name in ("prompt_tokens", "completion_tokens")),
    *(httpx2.Response(200, json=whole(content=content)) for content in (None, ["text"], {"text": ANSWER})),
    httpx2.Response(200, json={"choices": []}),
    httpx2.Response(200, json=["choices"]),
    httpx2.ReadTimeout("slow"),
    httpx2.ConnectError("reset"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: getattr(fault, "text", type(fault).__name__)[:20])
def test_a_passing_fault_is_asked_again(fault: httpx2.Response | Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, seen = ask(monkeypatch, fault, completion())
    assert reply.answer is not None
    assert reply.answer.report.findings == "Clear."
    assert reply.usage.attempts == 2 == len(seen)


def test_a_lasting_fault_ends_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, _ = ask(monkeypatch, *[completion(finish="length") for _ in range(4)])
    assert (reply.answer, reply.failure, reply.usage.attempts) == (None, "finish_reason length", 4)
    assert reply.usage.prompt_tokens == 40


def test_a_reason_is_never_the_endpoints_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reasons reach tables, summaries and Prefect; an endpoint could put report text there."""
    for finish in ("Clear lungs.", None, 7, ["stop"]):
        reply, _ = ask(monkeypatch, *[httpx2.Response(200, json=whole(finish=finish)) for _ in range(4)])
        assert reply.failure == "finish_reason unknown"


def test_more_cached_tokens_than_tokens_cost_nothing_less_than_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = {"prompt_tokens": 10, "prompt_cache_hit_tokens": 1000}
    reply, _ = ask(monkeypatch, httpx2.Response(200, json=whole(usage=usage)))
    assert (reply.usage.prompt_tokens, reply.usage.cached_tokens) == (10, 10)


def test_a_refusal_for_being_too_many_is_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [httpx2.Response(429, headers={"retry-after": "0"}) for _ in range(10)]
    reply, seen = ask(monkeypatch, *refusals, completion())
    assert reply.answer is not None
    assert len(seen) == 11


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_report_is_not_asked_again(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    reply, seen = ask(monkeypatch, httpx2.Response(status))
    assert reply.failure == f"refused with status {status}"
    assert len(seen) == 1


@pytest.mark.parametrize("status", [401, 402, 403, 404, 307])
def test_a_closed_endpoint_stops_the_job(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    response = httpx2.Response(status, headers={"location": "https://elsewhere.example/v1"})
    with pytest.raises(RefusedError, match="endpoint x") as raised:
        ask(monkeypatch, response)
    assert raised.value.exit_code == 2  # which no flow tries again


def test_keep_alive_lines_are_skipped_and_the_cache_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reply, _ = ask(monkeypatch, completion(prefix="\n: keep-alive\n\n"))
    assert reply.answer is not None
    assert reply.usage.cached_tokens == 4


def test_the_request_carries_the_schema_and_the_report_last(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (request,) = ask(monkeypatch, completion())
    body = json.loads(request.content)
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["findings", "impression", "removed"]
    assert "FINDINGS: Clear." in body["messages"][-1]["content"]


def test_the_embedded_endpoint_goes_through_the_same_client() -> None:
    async def run() -> Reply:
        async with ChatClient(load_endpoint("embedded"), load_prompt("v1")) as client:
            return await client.clean(" FINDINGS: Clear lungs. Thank you.\n")

    reply = asyncio.run(run())
    assert reply.answer is not None
    assert reply.answer.report.findings == "Clear lungs."


def test_concurrency_halves_on_refusal_and_grows_back() -> None:
    concurrency = Concurrency(8)
    for _ in range(3):
        concurrency.refused(sent_in_round=0)
    assert (concurrency.limit, concurrency.num_refused) == (4, 3)
    for _ in range(40):
        concurrency.succeeded()
    assert concurrency.limit == 8


def test_a_refusal_now_and_then_does_not_bring_the_concurrency_down_for_long() -> None:
    """One request in a hundred is refused whatever the load: more than an eighth of the maximum stays in use."""
    concurrency = Concurrency(256)
    limits: list[int] = []
    for hundred in range(200):
        for _ in range(99):
            concurrency.succeeded()
            limits.append(concurrency.limit)
        concurrency.refused(sent_in_round=hundred)
    steady = limits[len(limits) // 2 :]
    assert sum(steady) / len(steady) > 256 / 8


def test_the_budget_waits_for_what_is_in_flight_and_then_holds() -> None:
    async def run() -> tuple[bool, bool, float]:
        budget = Budget(1.0)
        assert await budget.reserve(0.6)
        second = asyncio.create_task(budget.reserve(0.6))
        await asyncio.sleep(0)
        assert not second.done()
        budget.settle(0.6, 0.1)
        allowed = await second
        budget.settle(0.6, None)  # an answer that never came may have cost as much
        return allowed, await budget.reserve(0.6), budget.spent

    allowed, beyond, spent = asyncio.run(run())
    assert (allowed, beyond, spent) == (True, False, pytest.approx(0.1))
