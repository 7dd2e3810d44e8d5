"""Splits: who serves which task, and never one subject in two."""

from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unix.data.splits import SplitsConfig, assign_subjects, build_splits, hash_split, refuse_leaks
from unix.errors import ConfigError, SourceError, SplitError
from unix.records import Split
from unix.store import SCHEMAS

SUBJECTS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30).map(str)), min_size=1, max_size=60, unique=True)


def split_of(curated: Any, task: str = "understanding") -> dict[str, str]:
    rows = curated.store.read("splits").filter(pl.col("task") == task)
    return dict(rows.select("image_id", "split").rows())


def test_each_image_is_kept_or_excluded_by_one_named_reason(curated: Any) -> None:
    curated.complete_study("kept", images=2)
    curated.study("impression-only")
    curated.cleaned("impression-only", findings="")
    curated.image("io", "impression-only")
    curated.study("empty")
    curated.cleaned("empty", findings="", impression=" ")
    curated.image("em", "empty")
    curated.study("lateral")
    curated.cleaned("lateral")
    curated.image("la", "lateral", view_position="LATERAL")
    curated.image("un", "lateral", view_position=None)
    curated.image("ap", "lateral", view_position="AP")
    curated.study("flagged")
    curated.cleaned("flagged", status="flagged")
    curated.image("fl", "flagged")
    curated.study("raw")
    curated.image("ra", "raw")
    curated.study("gone", withdrawn=True)
    curated.cleaned("gone")
    curated.image("go", "gone")
    curated.image("wi", "lateral", withdrawn=True)
    summary = build_splits(SplitsConfig(store=curated.commit()))
    understanding, generation = summary.tasks["understanding"], summary.tasks["generation"]
    shared = {"not_frontal": 2, "flagged_unreviewed": 1, "not_cleaned": 1, "withdrawn": 2}
    assert understanding.excluded == {**shared, "no_findings": 2}
    assert generation.excluded == {**shared, "no_caption": 1}
    assert set(split_of(curated)) == {"kept-0", "kept-1", "ap"}
    assert set(split_of(curated, "generation")) == {"kept-0", "kept-1", "ap", "io"}
    for task in (understanding, generation):
        assert task.considered == summary.images == sum(task.kept.values()) + sum(task.excluded.values())
    rejected = curated.store.read("rejections").filter(pl.col("job") == "splits-understanding")
    assert Counter(rejected["reason"]) == understanding.excluded
    assert set(rejected["item"]) == {"io", "em", "la", "un", "fl", "ra", "go", "wi"}


def test_what_is_no_longer_excluded_is_no_longer_listed(curated: Any) -> None:
    curated.complete_study("other")
    curated.study("1")
    curated.image("i", "1")
    build_splits(SplitsConfig(store=curated.commit()))
    assert curated.store.read("rejections")["item"].to_list() == ["i", "i"]
    curated.cleaned("1")
    build_splits(SplitsConfig(store=curated.commit()))
    assert curated.store.read("rejections").height == 0
    assert "i" in split_of(curated)


def test_the_official_split_wins_over_the_hash(curated: Any) -> None:
    for number, split in enumerate(Split):
        curated.complete_study(f"s{number}", official_split=split.value)
    build_splits(SplitsConfig(store=curated.commit()))
    assert split_of(curated) == {"s0-0": "train", "s1-0": "validate", "s2-0": "test"}


def test_all_studies_and_images_of_a_subject_stand_together(curated: Any) -> None:
    for number in range(30):
        curated.complete_study(f"s{number}", f"subject{number % 10}", images=2)
    build_splits(SplitsConfig(store=curated.commit(), test_share=0.4, validate_share=0.2))
    rows = curated.store.read("splits")
    assert rows.height == 120
    assert rows.group_by("subject_id").agg(pl.col("split").n_unique())["split"].to_list() == [1] * 10
    assert rows["split"].n_unique() > 1


def test_an_unchanged_rerun_commits_nothing(curated: Any) -> None:
    curated.complete_study("1")
    curated.study("2")
    curated.image("i", "2")
    config = SplitsConfig(store=curated.commit())
    assert build_splits(config).changed
    versions = curated.store.versions("splits", "rejections")
    assert not build_splits(config).changed
    assert curated.store.versions("splits", "rejections") == versions


def test_an_assigned_subject_keeps_its_split(curated: Any) -> None:
    for number in range(20):
        curated.complete_study(f"s{number}")
    build_splits(SplitsConfig(store=curated.commit(), test_share=0.5))
    before = split_of(curated)
    for number in range(20, 40):
        curated.complete_study(f"s{number}", f"s{number - 20}")
    summary = build_splits(SplitsConfig(store=curated.commit(), test_share=0.0, validate_share=0.0, seed=9))
    after = split_of(curated)
    assert {key: after[key] for key in before} == before
    assert all(after[f"s{number}-0"] == before[f"s{number - 20}-0"] for number in range(20, 40))
    assert summary.subjects_kept_off_official == 0


def test_a_later_official_split_does_not_move_a_subject_and_is_counted(curated: Any) -> None:
    curated.complete_study("1")
    build_splits(SplitsConfig(store=curated.commit(), test_share=0.0, validate_share=0.0))
    curated.image("1-0", "1", official_split="test")
    summary = build_splits(SplitsConfig(store=curated.commit()))
    assert split_of(curated) == {"1-0": "train"}
    assert summary.subjects_kept_off_official == 1


def test_a_subject_in_two_official_splits_is_named_and_nothing_written(curated: Any) -> None:
    curated.complete_study("1", "torn", official_split="train")
    curated.complete_study("2", "torn", official_split="test")
    with pytest.raises(SplitError, match="phantom/torn in test and train"):
        build_splits(SplitsConfig(store=curated.commit()))
    assert curated.store.version("splits") is None


def test_an_unknown_official_split_is_named(curated: Any) -> None:
    curated.complete_study("1", official_split="dev")
    with pytest.raises(SourceError, match="'dev'"):
        build_splits(SplitsConfig(store=curated.commit()))


def annotate(folder: Path, train: list[str], test: list[str]) -> str:
    folder.mkdir(exist_ok=True)
    for name, images in (("TRAIN", train), ("TEST", test)):
        lines = [f"{i},files/{image}.jpg,Prompt,{{}}" for i, image in enumerate(images)]
        text = "\n".join(["id,path,annotated_prompt,chexpert_labels", *lines])
        (folder / f"LLAVARAD_ANNOTATIONS_{name}.csv").write_text(text + "\n")
    return str(folder)


def test_annotations_decide_generation(curated: Any, tmp_path: Path) -> None:
    curated.complete_study("a", official_split="train", view_position="LATERAL")
    curated.complete_study("b", official_split="test")
    curated.complete_study("c", official_split="train")
    curated.study("d")
    curated.image("d-0", "d", official_split="test")
    folder = annotate(tmp_path / "llava", ["a-0", "a-0", "unheard-of"], ["b-0", "d-0"])
    summary = build_splits(SplitsConfig(store=curated.commit(), annotations=folder))
    assert split_of(curated, "generation") == {"a-0": "train", "b-0": "test"}
    assert split_of(curated) == {"b-0": "test", "c-0": "train"}
    generation = summary.tasks["generation"]
    assert "LLaVA-Rad's annotations" in generation.rule
    assert generation.excluded == {"repeated_annotation": 1, "not_in_store": 1, "not_cleaned": 1}
    assert generation.considered == 5 == sum(generation.kept.values()) + sum(generation.excluded.values())


def test_without_annotations_the_summary_says_so(curated: Any) -> None:
    curated.complete_study("a")
    assert "no LLaVA-Rad" in build_splits(SplitsConfig(store=curated.commit())).tasks["generation"].rule


def test_what_others_report_of_mimic_stands_beside_the_counts(curated: Any) -> None:
    curated.complete_study("a")
    assert build_splits(SplitsConfig(store=curated.commit())).tasks["understanding"].expected == {}
    mimic = type(curated)(curated.root / "mimic")
    mimic.study("b", source="mimic-cxr")
    mimic.image("b-0", "b", source="mimic-cxr", official_split="test")
    mimic.cleaned("b", source="mimic-cxr")
    tasks = build_splits(SplitsConfig(store=mimic.commit())).tasks
    assert (tasks["understanding"].kept["test"], tasks["understanding"].expected) == (
        1,
        {"train": 163344, "test": 2365},
    )
    assert tasks["generation"].expected == {"train": 237387, "test": 4352}


def test_a_leak_across_tasks_is_refused(curated: Any, tmp_path: Path) -> None:
    curated.complete_study("a", "torn", official_split="test")
    folder = annotate(tmp_path / "llava", ["a-0"], [])
    with pytest.raises(SplitError, match="phantom/torn in test and train"):
        build_splits(SplitsConfig(store=curated.commit(), annotations=folder))


def test_one_image_annotated_for_two_splits_is_refused(curated: Any, tmp_path: Path) -> None:
    curated.complete_study("a", "torn", view_position="LATERAL")
    folder = annotate(tmp_path / "llava", ["a-0"], ["a-0"])
    with pytest.raises(SplitError, match="torn"):
        build_splits(SplitsConfig(store=curated.commit(), annotations=folder))


def test_many_torn_subjects_are_counted_and_some_named() -> None:
    rows = pl.DataFrame(
        {
            "source": ["s"] * 16,
            "subject_id": [f"{i:02d}" for i in range(8)] * 2,
            "split": ["train"] * 8 + ["test"] * 8,
        }
    )
    with pytest.raises(SplitError, match=r"8 subjects .*s/00 in test and train.* and 3 more"):
        refuse_leaks(rows)


def test_equal_subject_ids_of_two_sources_are_two_subjects(curated: Any) -> None:
    rows = pl.DataFrame({"source": ["a", "b"], "subject_id": ["1", "1"], "split": ["train", "test"]})
    refuse_leaks(rows)


@given(subjects=SUBJECTS, seed=st.integers(0, 2**32), known=st.data())
def test_no_subject_is_ever_in_two_splits(subjects: list[tuple[str, str]], seed: int, known: st.DataObject) -> None:
    """Whatever is official or assigned for whom, each subject gets one split, and an assigned one keeps it."""
    splits = st.sampled_from([None, *(split.value for split in Split)])
    official = {subject: known.draw(splits) for subject in subjects}
    assigned = {subject: split for subject in subjects if (split := known.draw(splits))}
    images = pl.DataFrame(
        [(*subject, official[subject]) for subject in subjects for _ in range(2)],
        schema={"source": pl.String, "subject_id": pl.String, "official_split": pl.String},
        orient="row",
    )
    earlier = pl.DataFrame(
        [(source, "generation", f"{source}{name}", "s", name, split) for (source, name), split in assigned.items()],
        schema=SCHEMAS["splits"],
        orient="row",
    )
    result = assign_subjects(images, earlier, seed, 0.2, 0.3)
    assert sorted(result.select("source", "subject_id").rows()) == sorted(subjects)
    for source, name, _, split in result.rows():
        expected = assigned.get((source, name)) or official[source, name]
        assert split == (expected or hash_split(source, name, seed, 0.2, 0.3))


def test_the_hash_meets_the_shares_and_depends_on_the_seed_alone() -> None:
    names = [f"subject{i}" for i in range(4000)]
    counts = Counter(hash_split("s", name, 1, 0.05, 0.1) for name in names)
    assert abs(counts[Split.TEST] / 4000 - 0.1) < 0.02
    assert abs(counts[Split.VALIDATE] / 4000 - 0.05) < 0.02
    assert hash_split("s", "x", 1, 0.0, 1.0) == Split.TEST
    assert hash_split("s", "x", 1, 0.0, 0.0) == Split.TRAIN
    assert [hash_split("s", n, 1, 0.3, 0.3) for n in names] != [hash_split("s", n, 2, 0.3, 0.3) for n in names]


@pytest.mark.parametrize("shares", [(0.6, 0.6), (-0.1, 0.1), (0.1, 1.1)])
def test_impossible_shares_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="share"):
        SplitsConfig.build({"store": "s", "validate_share": shares[0], "test_share": shares[1]})
