"""How fast an endpoint is asked: requests in flight, requests and tokens per minute, dollars."""

import asyncio
import time
from collections import deque


class Concurrency:
    """Requests in flight: a few more after each round of successes, half after a round with a refusal (429).

    "A few" are a sixteenth of the maximum: with one, an endpoint that refuses one request in a hundred, whatever the
    load, would be sent some fourteen at a time, however many it can serve. Requests that were sent before the limit was
    last halved say nothing about the new limit: a burst of refusals halves it once.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = float(maximum)
        self._step = max(1.0, maximum / 16)
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._round = 0
        self.num_refused = 0
        """Refusals so far."""

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return max(1, int(self._limit))

    @property
    def in_flight(self) -> int:
        """How many are in flight now."""
        return self._in_flight

    async def enter(self) -> int:
        """Wait for a place in flight and take it; returns the round, which `refused` wants to know."""
        while self._in_flight >= self.limit:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        self._in_flight += 1
        return self._round

    def leave(self) -> None:
        """Give the place back."""
        self._in_flight -= 1
        self._wake()

    def succeeded(self) -> None:
        """An answer came: allow a little more."""
        if self._limit < self._maximum:
            self._limit = min(self._maximum, self._limit + self._step / self._limit)
            self._wake()

    def refused(self, sent_in_round: int) -> None:
        """The endpoint said that a request was too much: allow half, once a round."""
        self.num_refused += 1
        if sent_in_round == self._round:
            self._round += 1
            self._limit = max(1.0, self._limit / 2)

    def _wake(self) -> None:
        free = self.limit - self._in_flight
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1


class Rate:
    """At most `per_minute` units a minute, spread evenly after a burst of one second's worth; None = no limit."""

    def __init__(self, per_minute: int | None) -> None:
        self._per_second = per_minute / 60 if per_minute is not None else None
        self._next = 0.0

    async def take(self, units: float = 1.0) -> None:
        """Wait until `units` more are allowed."""
        if self._per_second is None:
            return
        now = time.monotonic()
        start = max(self._next, now - 1.0)
        self._next = start + units / self._per_second
        if start > now:
            await asyncio.sleep(start - now)


class Budget:
    """Dollars: what is in flight is reserved at its worst, so the limit holds even if every answer is the longest."""

    def __init__(self, limit_usd: float | None) -> None:
        self._limit = limit_usd
        self._reserved = 0.0
        self._num_reserved = 0
        self._unknown = 0.0
        self._settled = asyncio.Event()
        self.spent = 0.0
        """Dollars that answers are known to have cost."""

    async def reserve(self, worst_usd: float) -> bool:
        """Set aside the worst cost of a request, where need be once others in flight have settled for less.

        False where the budget does not allow it even then.
        """
        while self._limit is not None and self.spent + self._unknown + self._reserved + worst_usd > self._limit:
            if not self._num_reserved:
                return False
            self._settled.clear()
            await self._settled.wait()
        self._reserved += worst_usd
        self._num_reserved += 1
        return True

    def settle(self, reserved_usd: float, cost_usd: float | None) -> None:
        """Replace a reservation by what it really cost; None = nobody knows, so the worst keeps counting."""
        self._num_reserved -= 1
        self._reserved -= reserved_usd
        if cost_usd is None:
            self._unknown += reserved_usd
        else:
            self.spent += cost_usd
        self._settled.set()
