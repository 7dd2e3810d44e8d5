"""Shards on disk: plain tars with a true index, which stock readers open."""

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from unix.data.shard_index import checksum, index_file, read_index
from unix.data.shard_writer import ShardWriter, member_order, parse_shard_file, shard_file
from unix.errors import ShardError
from unix.manifest import ShardEntry
from unix.records import Split

WEBDATASET_LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
KEYS = st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=12, unique=True)


def write(folder: Path, samples: dict[str, dict[str, bytes]]) -> ShardEntry:
    members = tuple(next(iter(samples.values())))
    with ShardWriter(folder, Split.TRAIN, 3, members) as writer:
        for key in sorted(samples, key=member_order):
            writer.add(key, samples[key], digest=f"made-from-{key}")
        return writer.finish()


@settings(max_examples=30)
@given(keys=KEYS, data=st.data())
def test_tarfile_and_the_index_agree_with_what_was_written(
    keys: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("shard")
    samples = {
        key: {"json": data.draw(st.binary(max_size=600)), "jpg": data.draw(st.binary(max_size=9))} for key in keys
    }
    entry = write(folder, samples)
    content = (folder / entry.file).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)
    with tarfile.open(folder / entry.file) as tar:
        infos = tar.getmembers()
        found = {info.name: tar.extractfile(info).read() for info in infos}  # pyright: ignore[reportOptionalMemberAccess]
    names = [info.name for info in infos]
    assert names == sorted(names)
    assert found == {f"{key}.{name}": body for key, members in samples.items() for name, body in members.items()}
    assert {(info.mtime, info.uid, info.gid, info.mode) for info in infos} == {(0, 0, 0, 0o644)}
    index = read_index(folder, entry.file)
    assert index.members == ("jpg", "json")
    for place, key in enumerate(index.keys):
        assert index.digests[place] == f"made-from-{key}"
        for number, extension in enumerate(index.members):
            start, length = index.offsets[number][place], index.lengths[number][place]
            body = content[start : start + length]
            assert body == samples[key][extension]
            assert checksum(body) == index.crc32c[number][place]


def test_the_same_samples_give_the_same_files(tmp_path: Path) -> None:
    samples = {key: {"jpg": key.encode() * 700, "json": b"{}"} for key in ("b", "a", "a-1", "a_1", "A")}
    first, second = write(tmp_path / "1", samples), write(tmp_path / "2", samples)
    assert first == second
    for name in (first.file, index_file(first.file)):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


@WEBDATASET_LEAVES_FILES_OPEN
def test_stock_webdataset_groups_each_sample(tmp_path: Path) -> None:
    samples = {f"k{i}": {"jpg": bytes([i]) * 1000, "json": b'{"i": %d}' % i} for i in range(20)}
    entry = write(tmp_path, samples)
    read = list(webdataset.WebDataset(str(tmp_path / entry.file), shardshuffle=False))
    assert {sample["__key__"]: (sample["jpg"], sample["json"]) for sample in read} == {
        key: (members["jpg"], members["json"]) for key, members in samples.items()
    }


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the program tar")
def test_gnu_tar_lists_it_without_complaint(tmp_path: Path) -> None:
    entry = write(tmp_path, {"a": {"jpg": b"1"}, "b": {"jpg": bytes(2000)}})
    done = subprocess.run(["tar", "-tf", tmp_path / entry.file], capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["a.jpg", "b.jpg"], "")


@WEBDATASET_LEAVES_FILES_OPEN
def test_latents_are_members_like_any_other(tmp_path: Path) -> None:
    latent = np.arange(24, dtype=np.float16).reshape(6, 2, 2)
    buffer = io.BytesIO()
    np.save(buffer, latent)
    entry = write(tmp_path, {"a": {"npy": buffer.getvalue()}})
    (sample,) = webdataset.WebDataset(str(tmp_path / entry.file), shardshuffle=False).decode()
    assert np.array_equal(sample["npy"], latent)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "ä", "a b", "x" * 81])
def test_keys_that_webdataset_would_cut_are_refused(tmp_path: Path, key: str) -> None:
    with ShardWriter(tmp_path, Split.TRAIN, 0, ("jpg",)) as writer, pytest.raises(ShardError, match="sample key"):
        writer.add(key, {"jpg": b""})


@pytest.mark.parametrize("second", ["b", "a"])
def test_samples_out_of_order_or_repeated_are_refused(tmp_path: Path, second: str) -> None:
    with ShardWriter(tmp_path, Split.TRAIN, 0, ("jpg",)) as writer:
        writer.add("b", {"jpg": b""})
        with pytest.raises(ShardError, match="after b"):
            writer.add(second, {"jpg": b""})


def test_every_sample_has_the_same_members(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, Split.TRAIN, 0, ("jpg", "json")) as writer, pytest.raises(ShardError, match="members"):
        writer.add("a", {"jpg": b""})


def test_leaving_early_leaves_nothing_behind(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, Split.TRAIN, 0, ("jpg",)) as writer:
        writer.add("a", {"jpg": b""})
    assert list(tmp_path.iterdir()) == []


def test_file_names_carry_split_and_number() -> None:
    assert shard_file(Split.VALIDATE, 12) == "validate-000012.tar"
    assert parse_shard_file("validate-000012.tar") == (Split.VALIDATE, 12)
    assert parse_shard_file("validate-12.tar") is None


@pytest.mark.parametrize("content", ["", "{}", '{"file": 1}'])
def test_a_broken_index_is_named(tmp_path: Path, content: str) -> None:
    entry = write(tmp_path, {"a": {"jpg": b"1"}})
    (tmp_path / index_file(entry.file)).write_text(content)
    with pytest.raises(ShardError, match=r"train-000003\.index\.json"):
        read_index(tmp_path, entry.file)


def test_an_index_with_columns_of_different_length_is_refused(tmp_path: Path) -> None:
    entry = write(tmp_path, {"a": {"jpg": b"1"}})
    index = read_index(tmp_path, entry.file)
    short = index.model_copy(update={"offsets": [[]]})
    (tmp_path / index_file(entry.file)).write_text(short.model_dump_json())
    with pytest.raises(ShardError, match="columns"):
        read_index(tmp_path, entry.file)
