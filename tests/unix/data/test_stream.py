"""Reading shards: exact order, exact resume, damage named."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.data.shard_index import read_index
from unix.data.shard_writer import ShardWriter
from unix.data.stream import LoaderState, Sample, ShardReader, index_stream, stream
from unix.errors import ConfigError, ResumeError, ShardError
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
