"""Drives the client over many texts: workers, budget, a second try after a rejection, stopping on request."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from unix.data.cleaning.client import ChatClient, Reply
from unix.data.cleaning.guards import Pair, Verdict, explain, judge
from unix.data.cleaning.journal import AnswerKey, Journal, Outcome
from unix.data.cleaning.pacing import Budget
from unix.data.cleaning.prompt import Message
from unix.errors import EndpointError
from unix.progress import Progress
from unix.records import CleanedReport, Status, text_digest

_FAILURES_UNTIL_STOP = 25
_CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class Asked:
    """What asking came to: outcomes by report digest, and why it stopped early ("" where it did not)."""

    outcomes: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    calls: int = 0
    retries: int = 0
    stopped: str = ""
    interrupted: bool = False
    fault: EndpointError | None = None


def ask_all(client: ChatClient, texts: Sequence[str], journal: Journal, budget_usd: float | None) -> Asked:
    """Ask for every text, each once; answers reach the journal as they come.

    Stops early, keeping every answer that came, when the budget is used up, on SIGINT or SIGTERM, and when the endpoint
    cannot be asked at all.
    """
    return asyncio.run(_Run(client, texts, journal, budget_usd).run())


class _Run:
    """One run over a list of texts."""

    def __init__(self, client: ChatClient, texts: Sequence[str], journal: Journal, budget_usd: float | None) -> None:
        self._client = client
        self._texts = iter(texts)
        self._total = len(texts)
        self._journal = journal
        self._budget = Budget(budget_usd)
        self._asked = Asked()
        self._failures_in_a_row = 0

    async def run(self) -> Asked:
        async with self._client:
            flusher = asyncio.create_task(self._journal.flush_regularly())
            try:
                with Progress("clean", self._total) as progress, _stop_signals(self._interrupt):
                    for _ in range(self._client.endpoint.warm_up):
                        await self._work(progress, once=True)
                    workers = min(self._client.concurrency.limit, self._total) or 1
                    await asyncio.gather(*(self._work(progress) for _ in range(workers)))
            finally:
                flusher.cancel()
                with suppress(asyncio.CancelledError):
                    await flusher
        return self._asked

    def _interrupt(self) -> None:
        self._asked.interrupted = True
        self._stop("interrupted")

    def _stop(self, reason: str) -> None:
        self._asked.stopped = self._asked.stopped or reason

    async def _work(self, progress: Progress, once: bool = False) -> None:
        while not self._asked.stopped:
            text = next(self._texts, None)
            if text is None:
                return
            worst = self._worst_cost(text)
            if not self._budget.reserve(worst):
                self._stop("budget")
                return
            spent = 0.0
            try:
                outcome = await self._clean(text)
                spent = outcome.usage.cost_usd
            except EndpointError as error:
                self._asked.fault = self._asked.fault or error
                self._stop("endpoint")
                return
            finally:
                self._budget.settle(worst, spent)
            self._asked.outcomes[outcome.key.report_sha256] = outcome
            self._journal.add(outcome)
            self._count_failures(outcome)
            progress.advance(note=self._note())
            if once:
                return

    async def _clean(self, text: str) -> Outcome:
        reply = await self._ask(text)
        usage = reply.usage
        verdict = self._judge(text, reply)
        if verdict.status is Status.REJECTED and not self._client.endpoint.embedded and not self._asked.stopped:
            self._asked.retries += 1
            second = await self._ask(text, _correction(reply, verdict))
            usage += second.usage
            if second.answer is not None:
                reply, verdict = second, self._judge(text, second)
        cleaned = reply.answer.report if reply.answer is not None else CleanedReport("", "")
        endpoint, prompt = self._client.endpoint, self._client.prompt
        return Outcome(
            key=AnswerKey(text_digest(text), prompt.digest, endpoint.model, endpoint.parameters_digest),
            status=verdict.status,
            flags=verdict.flags,
            findings=cleaned.findings,
            impression=cleaned.impression,
            removed=cleaned.removed,
            usage=usage,
            created_at=time.time(),
        )

    async def _ask(self, text: str, correction: Sequence[Message] = ()) -> Reply:
        self._asked.calls += 1
        return await self._client.clean(text, correction)

    def _judge(self, text: str, reply: Reply) -> Verdict:
        if reply.answer is None:
            return Verdict(Status.FAILED, (reply.failure,))
        prompt = self._client.prompt
        return judge(Pair(text, reply.answer.report, reply.answer.repaired, prompt.removes_priors))

    def _worst_cost(self, text: str) -> float:
        """Dollars if every attempt is paid for, none of the prompt is cached, and every answer is the longest."""
        endpoint = self._client.endpoint
        if endpoint.price is None:
            return 0.0
        characters = len(text) + sum(len(message["content"]) for message in self._client.prompt.prefix)
        dollars = (characters / _CHARACTERS_PER_TOKEN * endpoint.price.input) / 1e6
        dollars += endpoint.max_output_tokens * endpoint.price.output / 1e6
        return 2 * dollars * endpoint.price.peak_factor

    def _count_failures(self, outcome: Outcome) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if outcome.status is Status.FAILED else 0
        if self._failures_in_a_row >= _FAILURES_UNTIL_STOP:
            self._asked.fault = EndpointError(
                f"endpoint {self._client.endpoint.name} failed {_FAILURES_UNTIL_STOP} times in a row, last with "
                f"{outcome.flags[0]}; look at its log, then run again: what was answered is kept"
            )
            self._stop("endpoint")

    def _note(self) -> str:
        concurrency = self._client.concurrency
        note = f"{concurrency.in_flight} in flight of {concurrency.limit}"
        return f"{note}, {self._budget.spent:.4f} USD" if self._budget.spent else note


def _correction(reply: Reply, verdict: Verdict) -> list[Message]:
    """The rejected answer and what was wrong with it."""
    demand = f"That answer is refused. {explain(verdict.flags)} Answer again, with the words of the report alone."
    return [{"role": "assistant", "content": reply.content}, {"role": "user", "content": demand}]


@contextmanager
def _stop_signals(stop: Callable[[], None]) -> Generator[None]:
    """Call `stop` on SIGINT and SIGTERM. Outside the main thread signals cannot be caught and stay as they are."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
