"""Several sets read as one, each with its share of the samples.

An epoch of a mixture is as long as its sets together. Each set goes through passes of its own: in every pass each of
its samples comes exactly once, and a pass ends where it ends, in the middle of a mixture's epoch or not. The shares
hold to within one sample in every stretch of an epoch, so every batch is mixed alike.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unix.config import json_digest
from unix.data.stream import Sample, ShardReader
from unix.errors import ConfigError


class Mixture:
    """Readers with a positive weight each; samples come in proportion to the weights.

    Args:
        parts: the readers and their weights. Order matters: it is part of the fingerprint.

    Raises:
        ConfigError: there is no part, a weight is not positive, or a part has no samples.
    """

    def __init__(self, parts: Sequence[tuple[ShardReader, float]]) -> None:
        for reader, weight in parts:
            if not (weight > 0 and np.isfinite(weight)):
                raise ConfigError(f"weight {weight} of {reader} must be positive: leave a set out instead")
            if reader.samples == 0:
                raise ConfigError(f"{reader} has no samples to mix")
        if not parts:
            raise ConfigError("a mixture needs at least one set")
        self._readers = [reader for reader, _ in parts]
        sizes = [reader.samples for reader in self._readers]
        self.counts = _apportion(sum(sizes), [weight for _, weight in parts])
        """Samples of each part in an epoch."""
        self._starts = np.cumsum([0, *sizes])
        self.fingerprint = json_digest(
            [[reader.fingerprint, count] for reader, count in zip(self._readers, self.counts, strict=True)]
        )[:16]

    @property
    def samples(self) -> int:
        """Samples in an epoch."""
        return sum(self.counts)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Part -> damaged samples left out so far."""
        return {str(reader): reader.skipped.total() for reader in self._readers}

    def epoch_order(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """The epoch's samples in order: int64 [samples], for `read_many`; some come twice: a pass ends within it."""
        indices = [
            self._starts[number] + self._pass_slice(number, seed, epoch * count, count)
            for number, count in enumerate(self.counts)
        ]
        return np.concatenate(indices)[self._interleaving()].astype(np.int64)

    def spread(self, stretch: int) -> list[tuple[int, int]]:
        """Fewest and most samples of each part in the `stretch` samples that a rank gets of a batch, over an epoch."""
        parts = np.repeat(np.arange(len(self.counts)), self.counts)[self._interleaving()]
        stretches = parts[: len(parts) // stretch * stretch].reshape(-1, stretch)
        found = [(stretches == number).sum(axis=1) for number in range(len(self.counts))]
        return [(int(each.min()), int(each.max())) for each in found]

    def _interleaving(self) -> npt.NDArray[np.int64]:
        """Order that lays the parts, one after another, evenly over an epoch."""
        # The i-th of c samples stands at (i + 1/2) / c of the epoch.
        places = np.concatenate([(np.arange(count) + 0.5) / count for count in self.counts])
        return np.argsort(places, kind="stable")

    def read_many(self, indices: Sequence[int]) -> list[Sample]:
        """The decoded samples at `indices`, in that order."""
        samples: list[Sample] = []
        for index in indices:
            number = int(np.searchsorted(self._starts, index, side="right")) - 1
            samples += self._readers[number].read_many([index - int(self._starts[number])])
        return samples

    def _pass_slice(self, number: int, seed: int, first: int, count: int) -> npt.NDArray[np.int64]:
        """`count` samples of a part from its `first`-th on, counted over its passes."""
        reader = self._readers[number]
        if count == 0:
            return np.zeros(0, dtype=np.int64)
        passes = range(first // reader.samples, (first + count - 1) // reader.samples + 1)
        orders = np.concatenate([reader.epoch_order(seed + number, each) for each in passes])
        begin = first - passes.start * reader.samples
        return orders[begin : begin + count]

    def __str__(self) -> str:
        return f"a mixture of {len(self._readers)} sets"


def _apportion(total: int, weights: Sequence[float]) -> list[int]:
    """`total` in whole parts that are proportional to `weights`, by largest remainder."""
    exact = np.array(weights) * (total / sum(weights))
    counts = np.floor(exact).astype(int)
    for number in np.argsort(counts - exact, kind="stable")[: total - int(counts.sum())]:
        counts[number] += 1
    return counts.tolist()
