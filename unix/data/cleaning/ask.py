"""Drives the client over many texts: workers, a second try after a rejection, when to stop and how."""

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from unix.data.cleaning.client import UNREACHABLE, ChatClient, OutOfBudget, Reply, Stopped
from unix.data.cleaning.guards import Pair, Verdict, explain
from unix.data.cleaning.guards import judge as judge_by_guards
from unix.data.cleaning.journal import AnswerKey, Journal, Outcome
from unix.data.cleaning.prompt import Message
from unix.data.cleaning.usage import Usage
from unix.errors import EndpointError, PolicyError, StoreError, UnixError
from unix.progress import Progress
from unix.records import CleanedReport, Status, text_digest

_FAILURES_UNTIL_STOP = 25
"""Reports in a row without an answer, after which the endpoint counts as down."""

_REFUSALS_UNTIL_STOP = 3
"""Requests that the endpoint calls wrong (400, 422) before it answered any: then it is the settings that are wrong."""

_OUTCOMES_PER_COMMIT = 5000
_SECONDS_BETWEEN_COMMITS = 60.0
"""Answers are in the table after so many or so long, whichever comes first."""

_ALLOCATIONS_PER_COLLECTION = 20_000

SECONDS_TO_DRAIN = 30.0
"""How long what is in flight may take after a request to stop; a second request ends the wait."""


@dataclass(slots=True)
class Asked:
    """What asking came to, and why it stopped early ("" where it did not)."""

    num_outcomes: int = 0
    calls: int = 0
    retries: int = 0
    """Second tries after a rejection."""
    num_refused: int = 0
    """Answers 429."""
    used: Usage = field(default_factory=Usage)
    stopped: str = ""
    interrupted: bool = False
    fault: Exception | None = None


def ask_all(
    client: ChatClient,
    texts: Sequence[str],
    journal: Journal,
    record: Callable[[Sequence[Outcome]], None],
    judge: Callable[[Pair], Verdict] = judge_by_guards,
) -> Asked:
    """Ask for every text, each once; answers reach the journal as they come.

    Every so often, and at the end, `record` puts what came into the table, in a thread and one call at a time; then the
    journal forgets it.

    Stops early, keeping every answer that came, when the budget is used up, on SIGINT or SIGTERM, and when the endpoint
    or the journal cannot be used: then nothing more is sent, and what is in flight has `SECONDS_TO_DRAIN` to finish.
    """
    with _fewer_collections():
        return asyncio.run(_Run(client, texts, journal, record, judge).run())


class _Run:
    """One run over a list of texts."""

    def __init__(
        self,
        client: ChatClient,
        texts: Sequence[str],
        journal: Journal,
        record: Callable[[Sequence[Outcome]], None],
        judge: Callable[[Pair], Verdict],
    ) -> None:
        self._client = client
        self._texts = iter(texts)
        self._total = len(texts)
        self._journal = journal
        self._record = record
        self._judge_pair = judge
        self._batch: list[Outcome] = []
        self._recorded_at = time.monotonic()
        self._recording: asyncio.Task[None] | None = None
        self._asked = Asked()
        self._failures_in_a_row = 0
        self._answered = False
        self._unreachable = ""
        """How connecting failed for the last report; "" where it did not."""
        self._stopping = asyncio.Event()
        self._impatient = asyncio.Event()

    async def run(self) -> Asked:
        loop = asyncio.get_running_loop()

        def cannot_write(error: OSError) -> None:
            loop.call_soon_threadsafe(self._fail, _unwritable(error))

        async with self._client:
            try:
                with (
                    self._journal.flushing(cannot_write),
                    Progress("clean", self._total) as progress,
                    _stop_signals(self._interrupt),
                ):
                    for _ in range(self._client.endpoint.warm_up):
                        await self._finish({asyncio.create_task(self._work(progress, once=True))})
                    workers = min(self._client.concurrency.limit, self._total)
                    await self._finish({asyncio.create_task(self._work(progress)) for _ in range(workers)})
                    await self._record_rest()
            except OSError as error:
                self._fail(_unwritable(error))
        self._asked.num_refused = self._client.concurrency.num_refused
        if self._unreachable and not self._answered and not self._asked.stopped:
            endpoint = self._client.endpoint
            self._fail(EndpointError(f"endpoint {endpoint.name} at {endpoint.base_url}: {self._unreachable}"))
        return self._asked

    async def _finish(self, workers: set[asyncio.Task[None]]) -> None:
        """Wait for workers; once the run is to stop, not longer than what is in flight may take."""
        stopping = asyncio.create_task(self._stopping.wait())
        impatient = asyncio.create_task(self._impatient.wait())
        try:
            pending = workers
            while pending and not self._stopping.is_set():
                _, waited = await asyncio.wait(pending | {stopping}, return_when=asyncio.FIRST_COMPLETED)
                pending = waited & workers
            deadline = time.monotonic() + SECONDS_TO_DRAIN
            while pending and not self._impatient.is_set() and (left := deadline - time.monotonic()) > 0:
                limit = None if self._asked.stopped == "budget" else left
                _, waited = await asyncio.wait(
                    pending | {impatient}, timeout=limit, return_when=asyncio.FIRST_COMPLETED
                )
                pending = waited & workers
            for worker in pending:
                worker.cancel()
            for error in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(error, Exception):
                    raise error
        finally:
            stopping.cancel()
            impatient.cancel()

    def _interrupt(self) -> None:
        if self._asked.interrupted:
            self._impatient.set()
        self._asked.interrupted = True
        self._stop("interrupted")

    def _fail(self, fault: Exception) -> None:
        self._asked.fault = self._asked.fault or fault
        self._stop("endpoint")

    def _stop(self, reason: str) -> None:
        self._asked.stopped = self._asked.stopped or reason
        self._client.stop()
        self._stopping.set()

    async def _work(self, progress: Progress, once: bool = False) -> None:
        try:
            while not self._stopping.is_set():
                text = next(self._texts, None)
                if text is None:
                    return
                outcome = await self._clean(text)
                self._asked.num_outcomes += 1
                self._journal.add(outcome)
                self._batch.append(outcome)
                self._count_failures(outcome)
                if self._should_record():
                    self._recording = asyncio.create_task(self._record_batch())
                progress.advance(note=self._note())
                if once:
                    return
        except Stopped:
            return
        except OutOfBudget:
            self._stop("budget")
        except (EndpointError, PolicyError) as error:
            self._fail(error)
        except Exception:
            self._stop("error")
            raise

    def _should_record(self) -> bool:
        if self._recording is not None and not self._recording.done():
            return False
        waited = time.monotonic() - self._recorded_at
        return len(self._batch) >= _OUTCOMES_PER_COMMIT or waited >= _SECONDS_BETWEEN_COMMITS

    async def _record_batch(self) -> None:
        """Move what came since the last time from the journal into the table; where that fails it stays there."""
        batch, self._batch = self._batch, []
        try:
            files = self._journal.rotate()
            try:
                await asyncio.to_thread(self._record, batch)
                files.discard()
            finally:
                files.close()
        except OSError as error:
            self._fail(_unwritable(error))
        except UnixError as error:
            self._fail(error)
        self._recorded_at = time.monotonic()

    async def _record_rest(self) -> None:
        if self._recording is not None:
            await self._recording
        if self._batch:
            await self._record_batch()

    async def _clean(self, text: str) -> Outcome:
        reply = await self._ask(text)
        usage = reply.usage
        verdict = self._judge(text, reply)
        if verdict.status is Status.REJECTED and not self._client.endpoint.embedded:
            try:
                second = await self._ask(text, _correction(reply, verdict))
            except (Stopped, OutOfBudget):  # the first answer is paid for, and final
                second = Reply(None, "", Usage())
            else:
                self._asked.retries += 1
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
            prompt_version=prompt.version,
            endpoint=endpoint.name,
        )

    async def _ask(self, text: str, correction: Sequence[Message] = ()) -> Reply:
        self._asked.calls += 1
        reply = await self._client.clean(text, correction)
        self._asked.used += reply.usage
        return reply

    def _judge(self, text: str, reply: Reply) -> Verdict:
        if reply.answer is None:
            return Verdict(Status.FAILED, (reply.failure,))
        prompt = self._client.prompt
        return self._judge_pair(Pair(text, reply.answer.report, reply.answer.repaired, prompt.removes_priors))

    def _count_failures(self, outcome: Outcome) -> None:
        failed = outcome.status is Status.FAILED
        self._answered = self._answered or not failed
        self._unreachable = outcome.flags[0] if failed and outcome.flags[0].startswith(UNREACHABLE) else ""
        self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        refused_from_the_start = failed and not self._answered and outcome.flags[0].startswith("refused")
        limit = _REFUSALS_UNTIL_STOP if refused_from_the_start else _FAILURES_UNTIL_STOP
        if self._failures_in_a_row >= limit:
            self._fail(
                EndpointError(
                    f"endpoint {self._client.endpoint.name} failed {limit} reports in a row, the last with "
                    f"`{outcome.flags[0]}`; look at its log and its settings, then run again: what was answered is kept"
                )
            )

    def _note(self) -> str:
        """The state in a few words: in flight, refusals, cache, dollars so far and to go."""
        concurrency, used, done = self._client.concurrency, self._asked.used, self._asked.num_outcomes
        parts = [f"{concurrency.in_flight} in flight of {concurrency.limit}"]
        if concurrency.num_refused:
            parts.append(f"{concurrency.num_refused} x 429")
        if used.cached_tokens:
            parts.append(f"cache {used.cached_tokens / used.prompt_tokens:.0%}")
        if spent := self._client.budget.spent:
            parts.append(f"{spent:.4f} USD, {spent / done * (self._total - done):.4f} to go")
        return ", ".join(parts)


@contextmanager
def _fewer_collections() -> Generator[None]:
    """Look for garbage less often: requests make many objects and few cycles, and looking takes a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _unwritable(error: OSError) -> StoreError:
    return StoreError(
        f"cannot write the journal of answers ({error.strerror or type(error).__name__}); nothing more was asked. Make "
        "room or mend the store, then run again"
    )


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
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
