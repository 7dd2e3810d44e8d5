"""Mixtures of sets: shares, passes, resume."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.data.mixture import Mixture
from unix.data.shard_index import read_index
from unix.data.stream import ShardReader, index_stream, stream
from unix.errors import ConfigError, ResumeError

WriteSet = Callable[..., Path]


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory, write_set: WriteSet) -> list[ShardReader]:
    sizes = ([30, 10], [7, 4], [5])
    return [ShardReader(write_set(tmp_path_factory.mktemp("set"), shards), "train") for shards in sizes]


def parts_of(mixture: Mixture, indices: list[int], readers: list[ShardReader]) -> list[int]:
    ends = np.cumsum([reader.samples for reader in readers])
    return [int(np.searchsorted(ends, index, side="right")) for index in indices]


def test_every_batch_is_mixed_in_proportion(readers: list[ShardReader]) -> None:
    mixture = Mixture(list(zip(readers, [2.0, 1.0, 1.0], strict=True)))
    assert (mixture.samples, mixture.counts) == (56, [28, 14, 14])
    for indices, _ in itertools.islice(index_stream(mixture, 3, 8), 14):
        assert all(
            abs(count - expected) <= 1
            for count, expected in zip(
                np.bincount(parts_of(mixture, indices, readers), minlength=3), [4, 2, 2], strict=True
            )
        )


@given(weights=st.lists(st.floats(0.05, 20), min_size=3, max_size=3), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_each_set_passes_over_its_samples_evenly_across_epochs(
    readers: list[ShardReader], weights: list[float], seed: int
) -> None:
    mixture = Mixture(list(zip(readers, weights, strict=True)))
    share = np.array(weights) / sum(weights) * mixture.samples
    assert sum(mixture.counts) == mixture.samples
    assert all(abs(count - exact) < 1 for count, exact in zip(mixture.counts, share, strict=True))
    seen: Counter[int] = Counter()
    for epoch in range(3):
        order = mixture.epoch_order(seed, epoch)
        assert len(order) == mixture.samples
        seen.update(order.tolist())
    start = 0
    for reader in readers:
        times = [seen[index] for index in range(start, start + reader.samples)]
        assert max(times) - min(times) <= 1
        start += reader.samples


def test_equal_passes_bring_every_sample_exactly_once(readers: list[ShardReader]) -> None:
    mixture = Mixture([(reader, reader.samples) for reader in readers])
    assert sorted(mixture.epoch_order(0, 4).tolist()) == list(range(56))


def test_a_mixture_resumes_and_reads_what_its_order_says(readers: list[ShardReader]) -> None:
    mixture = Mixture([(readers[0], 1.0), (readers[1], 3.0)])
    whole = list(itertools.islice(stream(mixture, 7, 6), 15))
    rest = itertools.islice(stream(mixture, 7, 6, whole[6][1], workers=2), 8)
    for (samples, state), (expected, expected_state) in zip(rest, whole[7:], strict=True):
        assert state == expected_state
        assert [sample.image_id for sample in samples] == [sample.image_id for sample in expected]


def test_other_weights_are_another_order(readers: list[ShardReader]) -> None:
    (_, state) = next(index_stream(Mixture([(readers[0], 1.0), (readers[1], 3.0)]), 0, 4))
    with pytest.raises(ResumeError):
        next(index_stream(Mixture([(readers[0], 1.0), (readers[1], 2.0)]), 0, 4, state))


def test_damaged_samples_are_counted_by_part(tmp_path: Path, write_set: WriteSet) -> None:
    folders = [write_set(tmp_path / name, [6]) for name in "ab"]
    path = folders[1] / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[read_index(folders[1], path.name).offsets[0][2] + 3] ^= 1
    path.write_bytes(content)
    mixture = Mixture([(ShardReader(folder, "train", on_corrupt="skip"), 1.0) for folder in folders])
    assert len(next(stream(mixture, 0, 12))[0]) == 11
    assert list(mixture.skipped.values()) == [0, 1]


@pytest.mark.parametrize(("weight", "message"), [(0.0, "must be positive"), (float("nan"), "must be positive")])
def test_impossible_weights_are_refused(readers: list[ShardReader], weight: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Mixture([(readers[0], 1.0), (readers[1], weight)])
    with pytest.raises(ConfigError, match="at least one set"):
        Mixture([])
