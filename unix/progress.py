"""Progress for people: a bar on a terminal, one line every ten seconds elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `total` items; use as a context manager and call `advance`."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = self._last_line = time.monotonic()
        self._bar = tqdm(total=total, desc=label, leave=False) if sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more items as done; `note` is a short status such as `loss 1.23` (never report text)."""
        self._done += count
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            logger.info("%s", self._line(now, note))

    def _line(self, now: float, note: str) -> str:
        rate = self._done / max(now - self._start, 1e-9)
        if self._total is None:
            text = f"{self._label}: {self._done} done, {rate:.1f}/s"
        else:
            left = (self._total - self._done) / rate if rate > 0 else float("inf")
            text = f"{self._label}: {self._done}/{self._total}, {rate:.1f}/s, {left:.0f} s left"
        return f"{text}, {note}" if note else text


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items while showing progress."""
    with Progress(label, total) as progress:
        for item in items:
            yield item
            progress.advance()
