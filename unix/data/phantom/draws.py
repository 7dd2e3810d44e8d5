"""Seeded randomness, keyed by (seed, study, purpose): scalar choices for plans and words, generators for pixels."""

import hashlib
import struct
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
_BLOCK = struct.Struct("<16I")


def generator(seed: int, index: int, purpose: str) -> np.random.Generator:
    """A generator that depends on nothing but its key."""
    word = int.from_bytes(hashlib.blake2b(purpose.encode(), digest_size=4).digest(), "little")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index, word])))


class Draws:
    """Scalar random choices keyed by (seed, index, purpose).

    The numbers are BLAKE2b of the key and a counter, sixteen at a time. Setting up a numpy generator costs more than
    all choices of a report together, and a hash gives the same numbers under every library version.
    """

    def __init__(self, seed: int, index: int, purpose: str) -> None:
        self._hash = hashlib.blake2b(f"{seed}/{index}/{purpose}".encode())
        self._block: list[int] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._block:
            self._hash.update(b".")
            self._block = list(_BLOCK.unpack(self._hash.digest()))
        return low + (high - low) * (self._block.pop() * 2.0**-32)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        return int(self.uniform() * bound)

    def choose(self, items: Sequence[Item]) -> Item:
        """One of the items, each as likely as the other."""
        return items[int(self.uniform() * len(items))]

    def weighted(self, items: Sequence[Item], weights: Sequence[float]) -> Item:
        """One of the items with probability proportional to its weight."""
        left = self.uniform() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """The items in a random order."""
        return [item for _, item in sorted(((self.uniform(), item) for item in items), key=lambda pair: pair[0])]
