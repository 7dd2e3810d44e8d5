"""The order in which samples are read: a pure function of (seed, epoch), so that nothing about it needs saving.

Shards are permuted, and then samples within groups of neighbouring shards of that order, so that a reader touches few
shards at a time. Each permutation sorts items by a hash of (seed, epoch, item): no generator state, no buffer, and no
dependence on how a library draws random numbers.
"""

import numpy as np
import numpy.typing as npt

_ALL_BITS, _GROUP_BITS = np.uint64(64), np.uint64(20)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def epoch_order(
    samples_per_shard: npt.NDArray[np.int64], seed: int, epoch: int, shards_per_group: int = 16
) -> npt.NDArray[np.int64]:
    """Every sample of every shard once: int64 [sum of `samples_per_shard`] of global sample indices.

    Sample i of shard s has the global index `samples_per_shard[:s].sum() + i`.
    """
    num_shards = len(samples_per_shard)
    shard_order = np.argsort(_hash(np.arange(num_shards), seed, epoch, stream=1), kind="stable")
    place_of_shard = np.empty(num_shards, dtype=np.int64)
    place_of_shard[shard_order] = np.arange(num_shards)
    group_of_sample = np.repeat(place_of_shard // shards_per_group, samples_per_shard)
    draw = _hash(np.arange(group_of_sample.size), seed, epoch, stream=2) >> _GROUP_BITS
    # One sort by (group, draw); the stable sort settles equal draws by index.
    return np.argsort((group_of_sample.astype(np.uint64) << (_ALL_BITS - _GROUP_BITS)) | draw, kind="stable")


def _hash(items: npt.NDArray[np.int64], seed: int, epoch: int, stream: int) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each item under (seed, epoch, stream): splitmix64's finaliser over a running state."""
    state = np.zeros(1, dtype=np.uint64)
    for part in (seed, epoch, stream):
        state = _mix(state ^ np.uint64(part % 2**64))
    return _mix(state ^ _mix(items.astype(np.uint64)))


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    value = value + _GOLDEN  # wraps around, as the hash wants
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))
