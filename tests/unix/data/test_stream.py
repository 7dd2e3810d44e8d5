"""Reading shards: exact order, exact resume, damage named."""

import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.data.order import epoch_order
from unix.data.shard_index import read_index
from unix.data.shard_writer import ShardWriter
from unix.data.stream import LoaderState, Sample, ShardReader, epoch_counts, index_stream, stream
from unix.errors import ConfigError, DamagedSampleError, ResumeError, ShardError
from unix.manifest import Manifest, Parents, publish_manifest
from unix.records import Split, Task

WriteSet = Callable[..., Path]


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory, write_set: WriteSet) -> Path:
    return write_set(tmp_path_factory.mktemp("set"), [5, 1, 7, 4, 3], {0: 2, 1: 1})


LIVE = 17


@pytest.fixture(scope="module")
def reader(small_set: Path) -> ShardReader:
    return ShardReader(small_set, "train")


def test_every_live_sample_has_an_index(reader: ShardReader) -> None:
    samples = reader.read_many(range(reader.samples))
    assert reader.samples == len(reader.keys) == LIVE
    assert tuple(sample.image_id for sample in samples) == reader.keys
    assert {"0-0", "0-1", "1-0"}.isdisjoint(reader.keys)
    assert Counter(key[0] for key in reader.keys) == {"0": 3, "2": 7, "3": 4, "4": 3}


def test_a_sample_carries_its_image_text_and_origin(reader: ShardReader) -> None:
    sample = reader.read(reader.keys.index("2-3"))
    assert isinstance(sample, Sample)
    assert (sample.image.shape, sample.image.dtype, int(sample.image.mean())) == ((8, 8), np.uint8, 25)
    assert (sample.findings, sample.impression, sample.caption) == ("Findings 2-3.", "", "Caption 2-3.")
    assert sample.labels is not None
    assert sample.labels["Edema"] == 1
    assert (sample.meta.study_id, sample.meta.split, sample.meta.model) == ("study-2-3", Split.TRAIN, "rules")


def test_members_come_as_they_were_written(reader: ShardReader) -> None:
    key, members = reader.read_members(0)
    assert (key, set(members)) == ("0-2", {"jpg", "json"})
    assert json.loads(members["json"])["image_id"] == "0-2"


@pytest.mark.parametrize("index", [-1, LIVE])
def test_there_is_no_sample_beyond_the_last(reader: ShardReader, index: int) -> None:
    with pytest.raises(IndexError):
        reader.read(index)


def test_a_split_without_shards_is_empty(small_set: Path) -> None:
    empty = ShardReader(small_set, "test")
    assert (empty.samples, empty.keys) == (0, ())
    with pytest.raises(ConfigError, match=r"test split of .* has no samples"):
        next(stream(empty, 0, 1))


def epoch_of(reader: ShardReader, seed: int, batch: int, epoch: int) -> list[list[int]]:
    batches = index_stream(reader, seed, batch, last="keep")
    taken = itertools.takewhile(lambda item: item[1].epoch <= epoch, batches)
    return [indices for indices, state in taken if state.epoch == epoch]


@given(seed=st.integers(0, 2**40), batch=st.integers(1, LIVE + 3), epoch=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_each_sample_comes_exactly_once_per_epoch(reader: ShardReader, seed: int, batch: int, epoch: int) -> None:
    batches = epoch_of(reader, seed, batch, epoch)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(LIVE))
    assert {len(indices) for indices in batches[:-1]} <= {batch}


@given(
    seed=st.integers(0, 99), batch=st.integers(1, LIVE), stop=st.integers(1, 40), last=st.sampled_from(["drop", "keep"])
)
@settings(max_examples=50, deadline=None)
def test_resuming_anywhere_goes_on_as_if_nothing_had_happened(
    reader: ShardReader, seed: int, batch: int, stop: int, last: str
) -> None:
    whole = list(itertools.islice(index_stream(reader, seed, batch, last=last), stop + 8))  # pyright: ignore[reportArgumentType]
    state = LoaderState(**json.loads(json.dumps(vars_of(whole[stop - 1][1]))))
    rest = list(itertools.islice(index_stream(reader, seed, batch, state, last=last), 8))  # pyright: ignore[reportArgumentType]
    assert rest == whole[stop:]


def vars_of(state: LoaderState) -> dict[str, object]:
    return {name: getattr(state, name) for name in LoaderState.__slots__}


@given(
    seed=st.integers(0, 99),
    ranks=st.sampled_from([1, 2, 3, 4]),
    times=st.integers(1, 4),
    later=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=30, deadline=None)
def test_ranks_share_the_same_global_batches_also_after_a_change(
    reader: ShardReader, seed: int, ranks: int, times: int, later: int
) -> None:
    batch = 12
    alone = list(itertools.islice(index_stream(reader, seed, batch), 2 * times))

    def together(world: int, start: LoaderState | None) -> list[tuple[list[int], LoaderState]]:
        parts = [
            list(itertools.islice(index_stream(reader, seed, batch, start, rank=r, world_size=world), times))
            for r in range(world)
        ]
        assert {len(indices) for part in parts for indices, _ in part} == {batch // world}
        return [
            (list(itertools.chain.from_iterable(indices for indices, _ in step)), step[0][1])
            for step in zip(*parts, strict=True)
        ]

    first = together(ranks, None)
    assert first == alone[:times]
    assert together(later, first[-1][1]) == alone[times:]


def test_a_last_smaller_batch_is_dropped_unless_kept(reader: ShardReader) -> None:
    dropped = list(itertools.islice(index_stream(reader, 0, 5), 4))
    assert [(len(indices), state.epoch, state.position) for indices, state in dropped] == [
        (5, 0, 5),
        (5, 0, 10),
        (5, 0, 15),
        (5, 1, 5),
    ]
    kept = list(itertools.islice(index_stream(reader, 0, 5, last="keep"), 4))
    assert (len(kept[3][0]), kept[3][1].position) == (2, LIVE)


def test_the_stream_reads_what_its_order_says(reader: ShardReader) -> None:
    for (samples, state), (indices, expected) in itertools.islice(
        zip(stream(reader, 4, 6), index_stream(reader, 4, 6), strict=False), 5
    ):
        assert [sample.image_id for sample in samples] == [reader.keys[index] for index in indices]
        assert state == expected


def test_a_position_of_another_seed_or_other_shards_is_refused(
    reader: ShardReader, tmp_path: Path, write_set: WriteSet
) -> None:
    (_, state) = next(index_stream(reader, 0, 4))
    with pytest.raises(ResumeError, match=r"seed 0 .* seed 1"):
        next(index_stream(reader, 1, 4, state))
    other = ShardReader(write_set(tmp_path, [5, 1, 7, 4]), "train")
    assert other.samples == reader.samples
    with pytest.raises(ResumeError, match=state.fingerprint):
        next(index_stream(other, 0, 4, state))


@pytest.mark.parametrize(
    ("batch", "rank", "world", "message"),
    [
        (0, 0, 1, "global_batch=0"),
        (LIVE + 1, 0, 1, f"more than the {LIVE}"),
        (4, 2, 2, "rank=2"),
        (5, 0, 2, "does not divide"),
    ],
)
def test_impossible_batches_are_refused(reader: ShardReader, batch: int, rank: int, world: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next(index_stream(reader, 0, batch, rank=rank, world_size=world))


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("member", [0, 1])
def test_a_damaged_member_is_named_and_the_others_stay_readable(
    tmp_path: Path, member: int, write_set: WriteSet
) -> None:
    folder = write_set(tmp_path, [3, 3])
    index = read_index(folder, "train-000001.tar")
    flip(folder / "train-000001.tar", index.offsets[member][1] + 3)
    with ShardReader(folder, "train") as reader:
        with pytest.raises(ShardError, match=rf"train-000001\.tar: member 1-1\.{index.members[member]} is damaged"):
            reader.read(4)
        assert [sample.image_id for sample in reader.read_many([0, 1, 2, 3, 5])] == ["0-0", "0-1", "0-2", "1-0", "1-2"]


def test_a_shard_cut_short_or_missing_is_named(tmp_path: Path, write_set: WriteSet) -> None:
    folder = write_set(tmp_path, [3, 3])
    cut = folder / "train-000000.tar"
    cut.write_bytes(cut.read_bytes()[:3000])
    (folder / "train-000001.tar").unlink()
    with ShardReader(folder, "train") as reader:
        with pytest.raises(ShardError, match=r"train-000000\.tar: member 0-2"):
            reader.read(2)
        with pytest.raises(ShardError, match=r"cannot open the shard .*train-000001\.tar"):
            reader.read(3)


def test_an_index_of_another_shard_is_refused(tmp_path: Path, write_set: WriteSet) -> None:
    folder = write_set(tmp_path, [3, 3])
    (folder / "train-000000.index.json").write_bytes((folder / "train-000001.index.json").read_bytes())
    with ShardReader(folder, "train") as reader, pytest.raises(ShardError, match="not the one that the manifest names"):
        reader.read(0)


def test_latents_are_read_as_members_and_refused_as_images(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, Split.TRAIN, 0, ("npy",)) as writer:
        writer.add("a", {"npy": b"numbers"})
        entry = writer.finish()
    publish_manifest(
        tmp_path,
        Manifest(
            set="generation-8-latents",
            task=Task.GENERATION,
            size=8,
            members=("npy",),
            parents=Parents(code_revision="c", configuration_digest="d", artifacts={"vae": "v"}),
            parent_release=None,
            added_shards=(entry.file,),
            superseded_samples=0,
            considered=1,
            excluded={},
            shards=(entry,),
        ),
    )
    with ShardReader(tmp_path, "train") as reader:
        assert reader.read_members(0) == ("a", {"npy": b"numbers"})
        with pytest.raises(ShardError, match="sample a is no image sample"):
            reader.read(0)


def batches_of(
    reader: ShardReader, seed: int, batch: int, start: LoaderState | None, ranks: int, workers: int, times: int
) -> list[tuple[list[str], LoaderState]]:
    """Global batches as the ranks' parts joined, with the state that every rank agrees on."""
    parts: list[list[tuple[list[Sample], LoaderState]]] = []
    for rank in range(ranks):
        with closing(stream(reader, seed, batch, start, rank=rank, world_size=ranks, workers=workers)) as batches:
            parts.append(list(itertools.islice(batches, times)))
    joined: list[tuple[list[str], LoaderState]] = []
    for step in zip(*parts, strict=True):
        assert len({state for _, state in step}) == 1
        joined.append(([sample.image_id for samples, _ in step for sample in samples], step[0][1]))
    return joined


TOPOLOGIES = [(1, 0), (1, 2), (2, 1), (3, 2), (4, 2)]


@given(
    topologies=st.permutations(TOPOLOGIES),
    seed=st.integers(0, 2**32),
    batch=st.sampled_from([12, 24]),
    steps=st.lists(st.integers(1, 4), min_size=5, max_size=5),
)
@settings(max_examples=25, deadline=None)
def test_global_batches_are_the_same_on_any_ranks_and_workers_and_across_changes(
    large_set: ShardReader, topologies: list[tuple[int, int]], seed: int, batch: int, steps: list[int]
) -> None:
    alone = batches_of(large_set, seed, batch, None, 1, 0, sum(steps))
    changing: list[tuple[list[str], LoaderState]] = []
    for (ranks, workers), times in zip(topologies, steps, strict=True):
        position = changing[-1][1] if changing else None
        changing += batches_of(large_set, seed, batch, position, ranks, workers, times)
    assert changing == alone
    first_epoch = [key for keys, state in alone if state.epoch == 0 for key in keys]
    assert len(first_epoch) == len(set(first_epoch))


@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    seed=st.integers(0, 2**32),
    topology=st.sampled_from(TOPOLOGIES),
    per_rank=st.integers(1, 5),
    last=st.sampled_from(["keep", "pad"]),
)
@settings(max_examples=60, deadline=None)
def test_an_epoch_holds_every_sample_exactly_once_for_any_size_seed_and_topology(
    counts: list[int], seed: int, topology: tuple[int, int], per_rank: int, last: Literal["keep", "pad"]
) -> None:
    ranks, _ = topology
    source = NumberedSource(counts)
    seen: Counter[int] = Counter()
    padding = 0
    for rank in range(ranks):
        batches = index_stream(source, seed, per_rank * ranks, rank=rank, world_size=ranks, last=last)
        for indices, state in itertools.takewhile(lambda item: item[1].epoch == 0, batches):
            seen.update(index for index in indices if index >= 0)
            padding += sum(index < 0 for index in indices)
            assert last == "keep" or len(indices) == per_rank
            if state.position == source.samples:
                break
    assert seen == Counter(range(source.samples))
    assert padding == epoch_counts(source.samples, per_rank * ranks, last).padding


class NumberedSource:
    """The order of a reader, without samples to read."""

    def __init__(self, counts: list[int]) -> None:
        self.counts, self.samples, self.fingerprint = np.array(counts, dtype=np.int64), sum(counts), str(counts)

    def epoch_order(self, seed: int, epoch: int) -> np.ndarray:
        return epoch_order(self.counts, seed, epoch)

    def read_many(self, indices: Sequence[int]) -> list[Sample]:
        raise AssertionError(f"nothing is to be read, but {indices} were")


@pytest.fixture(scope="module")
def large_set(tmp_path_factory: pytest.TempPathFactory, write_set: WriteSet) -> ShardReader:
    return ShardReader(write_set(tmp_path_factory.mktemp("large"), [20, 9, 31, 17], {0: 2}), "train")


@pytest.mark.parametrize(
    ("last", "batches", "dropped", "padding"), [("drop", 3, 2, 0), ("keep", 4, 0, 0), ("pad", 4, 0, 3)]
)
def test_what_becomes_of_the_last_batch_is_counted(
    reader: ShardReader, last: Literal["drop", "keep", "pad"], batches: int, dropped: int, padding: int
) -> None:
    counts = epoch_counts(LIVE, 5, last)
    assert (counts.batches, counts.dropped, counts.padding) == (batches, dropped, padding)
    served = [samples for samples, state in itertools.islice(stream(reader, 0, 5, last=last), 4) if state.epoch == 0]
    assert len(served) == batches
    assert sum(not sample.padding for samples in served for sample in samples) == LIVE - dropped
    assert sum(sample.padding for samples in served for sample in samples) == padding


def test_a_split_smaller_than_a_batch_is_filled_up(reader: ShardReader) -> None:
    samples, state = next(stream(reader, 0, 3 * LIVE, last="pad"))
    assert (len(samples), state.position) == (3 * LIVE, LIVE)
    assert Counter(sample.image_id for sample in samples) == dict.fromkeys(reader.keys, 3)
    assert [sample.padding for sample in samples] == [False] * LIVE + [True] * 2 * LIVE


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_samples_are_left_out_counted_and_everything_else_keeps_its_place(
    tmp_path: Path, write_set: WriteSet, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_set(tmp_path, [6, 6])
    sound = batches_of(ShardReader(folder, "train"), 0, 4, None, 2, workers, 6)
    for shard, place in (("train-000000", 1), ("train-000001", 4)):
        index = read_index(folder, f"{shard}.tar")
        flip(folder / f"{shard}.tar", index.offsets[1][place] + 2)
    reader = ShardReader(folder, "train", on_corrupt="skip")
    damaged = batches_of(reader, 0, 4, None, 2, workers, 6)
    assert damaged == [([key for key in keys if key not in {"0-1", "1-4"}], state) for keys, state in sound]
    assert set(reader.skipped) == {1, 10}
    assert workers or reader.skipped == {1: 2, 10: 2}  # workers have met them again, ahead
    assert all("0-1" not in line and "1-4" not in line for line in caplog.messages)
    assert "damaged sample 1 of train left out" in caplog.text


def test_a_missing_shard_is_no_damaged_sample(tmp_path: Path, write_set: WriteSet) -> None:
    folder = write_set(tmp_path, [3])
    (folder / "train-000000.tar").unlink()
    with pytest.raises(ShardError, match="cannot open the shard"):
        ShardReader(folder, "train", on_corrupt="skip").read_many([0])


def test_what_workers_meet_is_raised_at_its_place(tmp_path: Path, write_set: WriteSet) -> None:
    folder = write_set(tmp_path, [40])
    reader = ShardReader(folder, "train")
    victim = next(indices for indices, state in index_stream(reader, 0, 8) if state.position == 24)[3]
    flip(folder / "train-000000.tar", read_index(folder, "train-000000.tar").offsets[0][victim] + 2)
    batches = stream(ShardReader(folder, "train"), 0, 8, workers=2)
    assert [len(next(batches)[0]) for _ in range(2)] == [8, 8]
    with pytest.raises(DamagedSampleError, match="is damaged"):
        next(batches)


def test_an_earlier_release_is_read_as_it_was(tmp_path: Path, write_set: WriteSet) -> None:
    folder = write_set(tmp_path, [4])
    before = ShardReader(folder, "train")
    (_, state) = next(stream(before, 0, 2))
    entry = before.manifest.shards[0].model_copy(update={"superseded": (before.keys[0],)})
    publish_manifest(folder, before.manifest.model_copy(update={"release": "", "shards": (entry,), "considered": 3}))
    with pytest.raises(ResumeError):
        next(stream(ShardReader(folder, "train"), 0, 2, state))
    pinned = ShardReader(folder, "train", release=before.manifest.release)
    assert next(stream(pinned, 0, 2, state))[1].position == 4


RANK = """
import json, sys, torch.distributed as dist
from unix.data.stream import LoaderState, ShardReader, stream
folder, rendezvous, rank, world, workers, start, times = sys.argv[1:]
dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=int(rank), world_size=int(world))
position = LoaderState(**json.loads(start)) if start else None
part = {"rank": int(rank), "world_size": int(world), "workers": int(workers)}
batches = stream(ShardReader(folder, "train"), 5, 12, position, **part)
for _ in range(int(times)):
    samples, state = next(batches)
    parts = [None] * int(world)
    dist.all_gather_object(parts, ([sample.image_id for sample in samples], state))
    if int(rank) == 0:
        keys = [key for part, _ in parts for key in part]
        print(json.dumps([keys, __import__("dataclasses").asdict(state), len({s for _, s in parts})]))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_of_a_gloo_group_see_the_batches_of_one_process_also_after_a_change(
    large_set: ShardReader, tmp_path: Path
) -> None:
    alone = batches_of(large_set, 5, 12, None, 1, 0, 8)

    def together(world: int, workers: int, start: str) -> list[list[Any]]:
        rendezvous = tmp_path / f"rendezvous-{world}"
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    RANK,
                    large_set.folder,
                    rendezvous,
                    str(rank),
                    str(world),
                    str(workers),
                    start,
                    "4",
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * world
        return [json.loads(line) for line in outputs[0].splitlines()]

    first = together(2, 2, "")
    rest = together(3, 1, json.dumps(first[-1][1]))
    assert [keys for keys, _, _ in first + rest] == [keys for keys, _ in alone]
    assert [LoaderState(**state) for _, state, _ in first + rest] == [state for _, state in alone]
    assert {agreed for _, _, agreed in first + rest} == {1}
