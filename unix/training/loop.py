"""The training loop: one optimizer step after another over an exact stream of samples.

Everything random is drawn from (seed, step, sample key), so a run has no generator state: weights, optimizer moments,
the step and the loader's position are all there is to save.
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple, Protocol, Self

from torch import Tensor, nn

from unix.data.stream import LoaderState, Sample
from unix.errors import Interrupted
from unix.progress import Progress
from unix.records import Task
from unix.training.engine import Engine
from unix.training.incidents import Incidents
from unix.training.metrics import MetricsFile
from unix.training.optim import Optimizer


class Losses(Protocol):
    """A named tuple whose first field, `loss`, is what is minimised."""

    @property
    def loss(self) -> Tensor:
        """The scalar to differentiate."""
        ...

    def _asdict(self) -> dict[str, Tensor]: ...


class MicroBatch(NamedTuple):
    """What one forward and backward pass takes."""

    batch: Any
    num_targets: float
    """Loss-bearing items in it: what the loss is divided by, once summed over the global batch."""
    num_tokens: int
    """Positions the decoder runs over, for the throughput figure."""
    task: Task = Task.UNDERSTANDING
    """The branch whose loss it bears: each is divided by its own count."""
    num_flops: float = 0.0
    """What its mathematics needs; 0 where that is not counted."""


class Objective(Protocol):
    """One kind of training: what is trained, how samples become batches, and the loss of a batch."""

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The trainable parameters by unique name; everything else is frozen."""
        ...

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Micro-batches of this rank's samples at `step`."""
        ...

    def losses(self, batch: Any, num_targets: float) -> Losses:
        """Losses of one micro-batch, divided by the global batch's `num_targets` of its task."""
        ...


def count_targets(micro_batches: Sequence[MicroBatch]) -> dict[Task, float]:
    """Loss-bearing items of each task."""
    return {task: sum(item.num_targets for item in micro_batches if item.task == task) for task in Task}


@dataclass
class Position:
    """How far a run has come."""

    step: int
    """Optimizer steps done."""
    loader: LoaderState | None
    """The sample stream's state after them."""


class StopSignal:
    """Notes SIGTERM and SIGINT while open, so that the loop can save and leave between two steps."""

    def __init__(self) -> None:
        self.raised = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.raised = True


def run_steps(
    objective: Objective,
    optimizer: Optimizer,
    engine: Engine,
    stream: Iterator[tuple[list[Sample], LoaderState]],
    position: Position,
    *,
    steps: int,
    metrics: MetricsFile | None,
    incidents: Incidents,
    look: Callable[[int], Mapping[str, float]],
    save: Callable[[Position], None],
    checkpoint_every: int,
    label: str,
    stop: StopSignal,
) -> Position:
    """Train until `steps`, or until `stop` is raised; saves every `checkpoint_every` steps and at the end.

    `look` is asked after every step for what else its row of the metrics shall hold. A step whose loss or gradient is
    not finite counts, but changes no weight.

    Raises:
        Interrupted: on `stop`, after saving.
        UnixError: too many steps in a row were not finite.
    """
    watched = Progress(label, steps - position.step) if engine.is_main else nullcontext()
    with watched as progress:
        while position.step < steps:
            started = time.perf_counter()
            samples, loader = next(stream)
            micro_batches = objective.pack(samples, position.step)
            waited = time.perf_counter() - started

            targets = count_targets(micro_batches)
            tokens = sum(item.num_tokens for item in micro_batches)
            flops = sum(item.num_flops for item in micro_batches)
            sums = engine.sum_numbers([tokens, flops, float(stop.raised), *targets.values()])
            num_tokens, num_flops, stopping, *counts = sums
            num_targets = dict(zip(targets, counts, strict=True))
            terms: dict[str, float] = {}
            for item in micro_batches:
                with engine.autocast():
                    losses = objective.losses(item.batch, num_targets[item.task])
                losses.loss.backward()
                for name, value in losses._asdict().items():
                    terms[name] = terms.get(name, 0.0) + float(value.detach())
            terms = dict(zip(terms, engine.sum_numbers(list(terms.values())), strict=True))
            engine.sum_gradients(optimizer.parameters.values())
            gradient_norm, learning_rate = optimizer.step(position.step, terms["loss"])
            position = Position(position.step + 1, loader)

            seconds = time.perf_counter() - started
            row = {
                **terms,
                "grad_norm": gradient_norm,
                "learning_rate": learning_rate,
                "tokens_per_second": num_tokens / seconds,
                "data_wait_seconds": waited,
                "seconds": seconds,
                "memory_gb": engine.memory_gb(),
                **({"model_flops_utilisation": num_flops / seconds / engine.peak_flops} if num_flops else {}),
                **look(position.step),
            }
            if metrics is not None:
                metrics.write(position.step, row)
            incidents.observe(position.step, terms["loss"], gradient_norm, samples)
            if progress is not None:
                progress.advance(note=f"loss {terms['loss']:.3f}")
            if stopping or position.step % checkpoint_every == 0 or position.step == steps:
                save(position)
            if stopping and position.step < steps:
                raise Interrupted(
                    f"{label} stopped on request after saving step {position.step}; continue with --resume"
                )
    return position
