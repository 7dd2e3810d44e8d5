"""The one process that holds models for the playground: it reads and draws, says how far it is, and can be stopped.

It lives beside the server, so that pages are answered while it computes; it keeps the last two models, so that a report
begins at once; it ends after a while without work, and with the server.
"""

import logging
import multiprocessing
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import Field

from unix.config import Config
from unix.data.images import Pixels, encode_png
from unix.errors import UnixError
from unix.evaluation.settings import PredictorConfig
from unix.runs import newest_step

if TYPE_CHECKING:
    from unix.evaluation.predictor import Predictor

_SPAWN = multiprocessing.get_context("spawn")  # a forked process would inherit the server's threads' locks
_SECONDS_TO_STOP = 5.0
_SECONDS_IDLE = 900.0
_MODELS_KEPT = 2


class DrawSettings(Config):
    """What to draw, and how."""

    findings: str = Field(min_length=1, max_length=2000)
    seed: int = Field(default=0, ge=0, lt=1 << 62)
    """Of the first image; each further one counts on by one."""
    images: int = Field(default=1, ge=1, le=8)
    num_steps: int = Field(default=50, ge=1, le=250)
    """Euler steps."""
    guidance: float = Field(default=2.0, ge=0, le=20)
    resolution: int | None = Field(default=None, ge=16, le=512, multiple_of=16)
    """Side in pixels; None: what the checkpoint was last trained to draw."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Write the report of one picture, uint8 [S, S]."""

    checkpoint: str
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class Drawing:
    """Draw, then read each image back."""

    checkpoint: str
    settings: DrawSettings


@dataclass(frozen=True, slots=True)
class WarmingUp:
    """Load a model, so that what comes next begins sooner."""

    checkpoint: str


@dataclass(frozen=True, slots=True)
class Words:
    """A further piece of a report: of the picture, or of drawn image number `image`."""

    text: str
    image: int | None = None


@dataclass(frozen=True, slots=True)
class StepDone:
    """So many Euler steps are done."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn image, as PNG."""

    image: int
    png: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The work is done, or why it is not."""

    fault: str = ""


Event = Words | StepDone | Picture | Ended
Work = Reading | Drawing | WarmingUp
STOPPED = "stopped"
"""The fault of work that was stopped on request."""


class ModelProcess:
    """Starts the process when there is work; one piece of work at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._stop: ProcessEvent | None = None
        self._closed = False

    def warm_up(self, checkpoint: str) -> None:
        """Load a model in the background, unless work is going on."""
        if not self._lock.locked():
            work = WarmingUp(checkpoint)
            threading.Thread(target=lambda: list(self.perform(work)), name="warm-up", daemon=True).start()

    def perform(self, work: Work, unwanted: Callable[[], bool] = lambda: False) -> Iterator[Event]:
        """Do the work once what goes on is done, unless it is `unwanted` by then; the last event is `Ended`."""
        with self._lock:
            if self._stop is not None:
                self._stop.clear()  # before the question, so that no later request is lost
            if self._closed or unwanted():
                yield Ended(STOPPED)
                return
            try:
                pipe = self._connected()
                pipe.send(work)
                while not isinstance(event := pipe.recv(), Ended):
                    yield event
                yield event
            except (EOFError, OSError):
                stopped = self._closed or (self._stop is not None and self._stop.is_set())
                yield Ended(STOPPED if stopped else "the model's process has ended, most likely for want of memory")

    def stop(self) -> None:
        """Stop the work that is going on; a process that does not listen is ended."""
        process, stop = self._process, self._stop
        if process is None or stop is None or not process.is_alive():
            return
        stop.set()

        def end_unless_stopped() -> None:
            if stop.is_set() and process.is_alive():
                process.terminate()

        timer = threading.Timer(_SECONDS_TO_STOP, end_unless_stopped)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """End the process; no other is started."""
        self._closed = True
        if self._process is not None and self._process.is_alive():
            self._process.terminate()
            self._process.join(_SECONDS_TO_STOP)

    def _connected(self) -> Connection:
        """The pipe to a living process; it is started where there is none."""
        if self._pipe is None or self._process is None or not self._process.is_alive():
            ours, theirs = _SPAWN.Pipe()
            self._pipe = cast("Connection", ours)
            self._stop = _SPAWN.Event()
            self._process = _SPAWN.Process(target=serve, args=(theirs, self._stop), name="playground", daemon=True)
            self._process.start()
            theirs.close()
        return self._pipe


class _Stopped(Exception):
    """Somebody asked to stop."""


def serve(pipe: Connection, stop: ProcessEvent) -> None:
    """The process: does one piece of work after the other until nobody asks any more."""
    os.nice(5)  # pages first
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))
    models = _Models()
    try:
        while pipe.poll(_SECONDS_IDLE):
            work: Work = pipe.recv()
            try:
                for event in _events(models.get(work.checkpoint), work):
                    pipe.send(event)
                    if stop.is_set():
                        raise _Stopped
                fault = ""
            except _Stopped:
                fault = STOPPED
            except (UnixError, OSError, MemoryError) as error:
                fault = str(error) or type(error).__name__
            stop.clear()
            pipe.send(Ended(fault))
    except (EOFError, OSError):  # the server has gone
        return


class _Models:
    """The models that were used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Predictor] = OrderedDict()

    def get(self, checkpoint: str) -> "Predictor":
        from unix.evaluation.predictor import Predictor

        folder = str(newest_step(Path(checkpoint)))  # a run that goes on has a newer step by and by
        if folder not in self._kept:
            self._kept[folder] = Predictor.load(PredictorConfig(checkpoint=folder))
        self._kept.move_to_end(folder)
        while len(self._kept) > _MODELS_KEPT:
            self._kept.popitem(last=False)
        return self._kept[folder]


def _events(predictor: "Predictor", work: Work) -> Iterator[Event]:
    match work:
        case Reading():
            yield from (Words(piece) for piece in predictor.stream(work.pixels))
        case Drawing(settings=settings):
            yield from _draw(predictor, settings)
        case WarmingUp():
            return


def _draw(predictor: "Predictor", settings: DrawSettings) -> Iterator[Event]:
    from unix.model.sampling import SamplerConfig

    sampler = SamplerConfig(num_steps=settings.num_steps, guidance=settings.guidance)
    for number in range(settings.images):
        steps = predictor.drawing(settings.findings, settings.seed + number, settings.resolution, sampler)
        for step, image in steps:
            yield StepDone(number * settings.num_steps + step, settings.images * settings.num_steps)
            if image is None:
                continue
            yield Picture(number, encode_png(image))
            yield from (Words(piece, number) for piece in predictor.stream(image))
