"""The dataset card counts what the shards hold."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unix.data.shard_card import CARD_FILE
from unix.data.shards import ShardsConfig, build_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.manifest import read_manifest


def build(curated: Any) -> Path:
    uri = curated.commit()
    build_splits(SplitsConfig(store=uri))
    return Path(build_shards(ShardsConfig(store=uri, sets=("generation-32",), workers=1)).out, "generation-32")


@pytest.fixture
def folder(curated: Any) -> Iterator[Path]:
    for number in range(6):
        curated.complete_study(f"s{number}", f"p{number // 2}", images=2, official_split="train")
    curated.study("s9", source="mimic-cxr")
    curated.cleaned("s9", source="mimic-cxr")
    path = curated.image("s9-0", "s9", source="mimic-cxr", official_split="test")
    path.write_bytes((curated.root / "images" / "s1-0.jpg").read_bytes())
    (curated.root / "images" / "s0-1.jpg").write_bytes(b"no image")
    yield build(curated)


def test_the_card_counts_splits_labels_exclusions_and_names_its_parents(folder: Path) -> None:
    card, manifest = (folder / CARD_FILE).read_text(), read_manifest(folder)
    assert f"Release `{manifest.release}`, after none: 2 shards" in card
    assert "| train | 11 | 6 | 3 | 0 | 11 |" in card
    assert "| test | 1 | 1 | 1 | 1 | 0 |" in card
    assert "Of 13 candidates 12 are samples. Left out: unreadable_image 1." in card
    assert "| Edema | 12 | 0 | 0 | 100.0% |" in card
    assert "| Fracture | 0 | 0 | 12 | 0.0% |" in card
    assert "Cleaned by the model `rules` with prompt `v1` (`prompt`)" in card
    assert manifest.parents.configuration_digest[:16] in card


def test_the_card_says_what_each_source_allows(folder: Path) -> None:
    card = (folder / CARD_FILE).read_text()
    assert "only credentialed users" in card
    assert "**phantom** is drawn" in card
    assert "Open-i" not in card


def test_the_card_holds_no_text_and_no_id(folder: Path) -> None:
    card = (folder / CARD_FILE).read_text()
    assert "Findings of" not in card
    assert "Impression of" not in card
    assert all(f"s{number}" not in card.split("## Made from")[0] for number in (0, 5, 9))


def test_a_new_release_has_a_new_card_and_an_unchanged_one_keeps_it(curated: Any, folder: Path) -> None:
    before = (folder / CARD_FILE).stat()
    after = (build(curated) / CARD_FILE).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # not rewritten
    curated.study("s1", "p0", withdrawn=True)
    build(curated)
    card, manifest = (folder / CARD_FILE).read_text(), read_manifest(folder)
    assert f"Release `{manifest.release}`, after `{manifest.parent_release}`" in card
    assert "| train | 9 | 5 | 3 | 0 | 9 |" in card
    assert "also see its 2 superseded samples" in card


def test_a_card_that_a_kill_left_out_is_written_by_the_next_run(curated: Any, folder: Path) -> None:
    expected = (folder / CARD_FILE).read_bytes()
    (folder / CARD_FILE).unlink()
    build(curated)
    assert (folder / CARD_FILE).read_bytes() == expected


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_datasets_finds_the_splits_through_the_card(folder: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 11, "test": 1}
