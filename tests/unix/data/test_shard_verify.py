"""Verification finds every damage and says where it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unix.data.shard_index import read_index
from unix.data.shard_verify import verify_shards
from unix.data.shards import ShardsConfig, build_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.errors import ShardError

SET = "generation-32"


@pytest.fixture
def out(curated: Any) -> Path:
    for number in range(6):
        curated.complete_study(f"s{number}", official_split="train")
    uri = curated.commit()
    build_splits(SplitsConfig(store=uri))
    built = build_shards(ShardsConfig(store=uri, sets=(SET, "understanding-32"), samples_per_shard=3, workers=1))
    return Path(built.out)


def test_sound_sets_have_no_problems(out: Path) -> None:
    every, one = verify_shards(out), verify_shards(out / SET)
    assert (every.sets, every.shards, every.samples, every.problems) == (2, 4, 12, ())
    assert (one.sets, one.shards, one.samples, one.problems) == (1, 2, 6, ())
    assert one.bytes == sum(path.stat().st_size for path in (out / SET).glob("*.tar"))


def test_every_one_of_200_flipped_bits_is_found_in_the_right_shard(out: Path) -> None:
    generator = np.random.default_rng(0)
    paths = sorted((out / SET).glob("*.tar"))
    for _ in range(200):
        path = paths[int(generator.integers(len(paths)))]
        sound = path.read_bytes()
        position = int(generator.integers(len(sound)))
        damaged = bytearray(sound)
        damaged[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        problems = verify_shards(out / SET).problems
        path.write_bytes(sound)
        assert problems, (path.name, position)
        assert all(problem.startswith(f"{SET}/{path.name}: ") for problem in problems)
    assert verify_shards(out).problems == ()


@pytest.mark.parametrize(
    ("shift", "message"),
    [(-10, "its header is damaged"), (0, r"its content is damaged"), (None, "its padding is damaged")],
)
def test_the_damaged_member_is_named(out: Path, shift: int | None, message: str) -> None:
    path = out / SET / "train-000000.tar"
    index = read_index(out / SET, path.name)
    start = index.offsets[0][1]
    position = start + index.lengths[0][1] if shift is None else start + shift
    content = bytearray(path.read_bytes())
    content[position] ^= 255
    path.write_bytes(content)
    (problem,) = verify_shards(out).problems
    assert problem.startswith(f"{SET}/train-000000.tar: member {index.keys[1]}.jpg: {message}")


def test_other_damage_is_named_too(out: Path) -> None:
    folder = out / SET
    (folder / "train-000000.tar").write_bytes((folder / "train-000000.tar").read_bytes()[:-512])
    (folder / "train-000001.index.json").write_text("{}")
    manifest = out / "understanding-32" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"samples": 3', '"samples": 4', 1))
    problems = verify_shards(out).problems
    assert len(problems) == 3
    assert "train-000000.tar: has" in problems[0]
    assert "train-000001.tar: its index has been changed" in problems[1]
    assert "changed after its publication" in problems[2]


def test_a_missing_shard_is_named(out: Path) -> None:
    (out / SET / "train-000000.tar").unlink()
    assert verify_shards(out / SET).problems == (
        f"{SET}/train-000000.tar: cannot be read: No such file or directory (train-000000.tar)",
    )


def test_a_folder_without_sets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="holds no shard set"):
        verify_shards(tmp_path)
