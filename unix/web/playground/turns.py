"""What people asked the model to do: a queue, worked off one by one, which everyone sees and may leave."""

import logging
import queue
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from unix.data.images import Pixels, encode_png
from unix.data.labels import label_report
from unix.errors import ConfigError
from unix.records import CHEXPERT_14
from unix.web.playground.checkpoints import Checkpoint
from unix.web.playground.model_process import (
    STOPPED,
    Drawing,
    DrawSettings,
    Ended,
    Event,
    ModelProcess,
    Picture,
    Reading,
    StepDone,
    Words,
)

logger = logging.getLogger(__name__)
_MOST_KEPT = 60
_MOST_WAITING = 20
_MOST_WAITING_EACH = 4

State = Literal["waiting", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The picture that is read."""

    name: str
    pixels: Pixels
    reference: str = ""
    """The report that belongs to it, where there is one."""


@dataclass
class Drawn:
    """An image and what the model reads in it."""

    png: bytes
    report: str = ""


@dataclass
class Result:
    """What one checkpoint has made so far."""

    checkpoint: Checkpoint
    report: str = ""
    step: int = 0
    steps: int = 0
    images: list[Drawn] = field(default_factory=list[Drawn])

    def take(self, event: Event) -> None:
        """Add what has just been made."""
        match event:
            case Words(text, image):
                if image is None:
                    self.report += text
                else:
                    self.images[image].report += text
            case StepDone(step, steps):
                self.step, self.steps = step, steps
            case Picture(_, png):
                self.images.append(Drawn(png))
            case Ended():
                pass


@dataclass(eq=False)
class Turn:
    """One thing to do: read a picture, or draw findings, with one checkpoint or with two to compare.

    Two turns are never equal: whoever asks for the same again gets a turn of its own.
    """

    session: str
    results: tuple[Result, ...]
    source: Source | None = None
    settings: DrawSettings | None = None
    state: State = "waiting"
    fault: str = ""
    unwanted: bool = False
    """Whether somebody cancelled it."""
    version: int = 0
    """Counts changes, so that whoever watches knows when to look."""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    source_png: bytes = b""

    @property
    def live(self) -> bool:
        """Whether it may still change."""
        return self.state in ("waiting", "running")


def findings_in(text: str) -> frozenset[str]:
    """The CheXpert-14 classes that a text calls present or possible; none for an empty text."""
    labels = label_report(text) if text.strip() else {}
    return frozenset(name for name in CHEXPERT_14 if labels.get(name) in (1, -1))


class Turns:
    """The queue and the thread that works it off."""

    def __init__(self, models: ModelProcess) -> None:
        self._models = models
        self._queue: queue.Queue[Turn | None] = queue.Queue()
        self._turns: OrderedDict[str, Turn] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="playground", daemon=True)
        self._thread.start()

    def read(self, session: str, source: Source, checkpoints: tuple[Checkpoint, ...]) -> Turn:
        """Queue the reading of a picture.

        Raises:
            ConfigError: too much is waiting.
        """
        turn = Turn(session, tuple(map(Result, checkpoints)), source=source, source_png=encode_png(source.pixels))
        return self._add(turn)

    def draw(self, session: str, settings: DrawSettings, checkpoints: tuple[Checkpoint, ...]) -> Turn:
        """Queue a drawing; errors as `read`."""
        return self._add(Turn(session, tuple(map(Result, checkpoints)), settings=settings))

    def of(self, session: str) -> list[Turn]:
        """A session's turns, the newest first."""
        return [turn for turn in reversed(self._turns.values()) if turn.session == session]

    def get(self, session: str, key: str) -> Turn | None:
        """A session's turn."""
        turn = self._turns.get(key)
        return turn if turn is not None and turn.session == session else None

    def before(self, turn: Turn) -> int:
        """How many turns are done before a waiting one."""
        ahead = list(self._turns.values())
        return sum(one.live for one in ahead[: ahead.index(turn)]) if turn in ahead else 0

    @property
    def live(self) -> int:
        """How many turns wait or run, of all sessions."""
        return sum(turn.live for turn in self._turns.values())

    def cancel(self, turn: Turn) -> None:
        """Take a turn out of the queue, or stop it."""
        with self._lock:
            turn.unwanted = True
            if turn.state == "waiting":
                turn.state = "cancelled"
            elif turn.state == "running":
                self._models.stop()
            turn.version += 1

    def forget(self, session: str) -> None:
        """Cancel and drop everything of a session."""
        for turn in self.of(session):
            self.cancel(turn)
            self._turns.pop(turn.key, None)

    def close(self) -> None:
        """Stop what runs and end the thread and the model's process."""
        for turn in self._turns.values():
            self.cancel(turn)
        self._queue.put(None)
        self._models.close()
        self._thread.join(10)

    def _add(self, turn: Turn) -> Turn:
        with self._lock:
            waiting = [one for one in self._turns.values() if one.live]
            if (
                len(waiting) >= _MOST_WAITING
                or sum(one.session == turn.session for one in waiting) >= _MOST_WAITING_EACH
            ):
                raise ConfigError("Too much is waiting for the model already: cancel something, or wait a little.")
            self._turns[turn.key] = turn
            while len(self._turns) > _MOST_KEPT:
                done = next((key for key, one in self._turns.items() if not one.live), None)
                if done is None:
                    break
                del self._turns[done]
        self._queue.put(turn)
        return turn

    def _work(self) -> None:
        while (turn := self._queue.get()) is not None:
            with self._lock:
                if turn.state != "waiting":
                    continue
                turn.state = "running"
            try:
                self._do(turn)
            except Exception as error:  # the thread must live on for the turns behind this one
                logger.error("playground: %s", type(error).__name__)
                turn.fault = f"the server met a {type(error).__name__}"
            turn.state = "cancelled" if turn.fault == STOPPED else "failed" if turn.fault else "done"
            turn.version += 1

    def _do(self, turn: Turn) -> None:
        for result in turn.results:
            folder = result.checkpoint.folder
            work = Reading(folder, turn.source.pixels) if turn.source else None
            if turn.settings is not None:
                work = Drawing(folder, turn.settings)
            if work is None:
                continue
            for event in self._models.perform(work, lambda: turn.unwanted):
                result.take(event)
                if isinstance(event, Ended) and event.fault:
                    turn.fault = event.fault
                    return
                turn.version += 1
