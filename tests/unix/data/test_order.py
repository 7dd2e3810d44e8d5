"""The order of an epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.order import epoch_order

COUNTS = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(np.array)


@given(counts=COUNTS, seed=st.integers(-(2**63), 2**64), epoch=st.integers(0, 10**6), group=st.integers(1, 20))
def test_every_sample_comes_exactly_once(counts: np.ndarray, seed: int, epoch: int, group: int) -> None:
    order = epoch_order(counts, seed, epoch, group)
    assert sorted(order.tolist()) == list(range(int(counts.sum())))
    assert np.array_equal(order, epoch_order(counts, seed, epoch, group))


@given(counts=COUNTS, seed=st.integers(0, 99), group=st.integers(1, 6))
def test_at_most_one_group_of_shards_is_open_at_a_time(counts: np.ndarray, seed: int, group: int) -> None:
    shard_of_sample = np.repeat(np.arange(len(counts)), counts)
    visited: list[int] = shard_of_sample[epoch_order(counts, seed, 0, group)].tolist()
    spans = [(visited.index(s), len(visited) - visited[::-1].index(s)) for s in set(visited)]
    for place in range(len(visited)):
        assert sum(start <= place < end for start, end in spans) <= group


def test_seeds_and_epochs_give_different_orders_that_mix_well() -> None:
    counts = np.full(8, 250)
    orders = [epoch_order(counts, seed, epoch) for seed in range(3) for epoch in range(3)]
    for i, one in enumerate(orders):
        assert abs(np.corrcoef(one, np.arange(2000))[0, 1]) < 0.1
        for other in orders[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_seeds_and_epochs_do_not_stand_for_one_another() -> None:
    counts = np.full(2, 20)
    assert not np.array_equal(epoch_order(counts, 1, 2), epoch_order(counts, 2, 1))
    assert not np.array_equal(epoch_order(counts, 0, 1), epoch_order(counts, 1, 0))


@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [(0, 0, [2, 1, 7, 0, 8, 3, 6, 5, 4]), (7, 3, [0, 1, 7, 8, 2, 4, 3, 6, 5])],
)
def test_the_order_never_changes(seed: int, epoch: int, expected: list[int]) -> None:
    """A saved position relies on it, across versions of this package and of numpy."""
    assert epoch_order(np.array([3, 4, 2]), seed, epoch, shards_per_group=2).tolist() == expected
