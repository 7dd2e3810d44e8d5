"""Drift: what a release brought, counted from the tables that it and its parent were made from."""

from typing import Any

import pytest

from unix.cli import run
from unix.data.drift import DriftConfig, drift
from unix.data.shards import ShardsConfig, build_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.errors import ConfigError
from unix.records import Task, no_labels

SETS = ("understanding-32", "generation-16", "generation-32")


def release(curated: Any) -> str:
    uri = curated.commit()
    build_splits(SplitsConfig(store=uri))
    build_shards(ShardsConfig.build({"store": uri, "sets": SETS, "workers": 1}))
    return uri


def test_a_first_release_has_nothing_to_differ_from(curated: Any) -> None:
    for number in range(4):
        curated.complete_study(f"s{number}", official_split="train")
    summary = drift(DriftConfig(store=release(curated)))
    assert (summary.new_studies, summary.changed_studies, summary.withdrawn_studies) == (4, 0, 0)
    task = summary.tasks[Task.GENERATION]
    assert (task.data_set, task.before, task.view_mix, task.label_balance) == ("generation-32", None, 0.0, 0.0)
    assert task.now.views == {"PA": 1.0}
    assert task.now.labels["Edema"] == 1.0
    assert task.now.words_per_report == 6


def test_what_a_release_brings_is_counted_and_measured(curated: Any) -> None:
    for number in range(4):
        curated.complete_study(f"s{number}", official_split="train")
    release(curated)
    curated.study("s0", withdrawn=True)
    curated.cleaned("s1", findings="Now with more words than before.", minutes=1)
    curated.complete_study("s4", official_split="train", view_position="AP", labels=no_labels())
    curated.study("s5")
    curated.cleaned("s5", status="flagged")
    curated.image("s5-0", "s5", official_split="train")
    summary = drift(DriftConfig(store=release(curated)))
    assert (summary.new_studies, summary.changed_studies, summary.withdrawn_studies) == (1, 1, 1)
    task = summary.tasks[Task.UNDERSTANDING]
    assert task.before is not None
    assert (task.before.studies, task.now.studies) == (4, 4)
    assert task.view_mix == 0.25
    assert task.label_balance == 0.25
    assert task.words_per_report == pytest.approx((6 + 6 + 6 + 9) / 4 / 6)
    assert task.flagged == pytest.approx(1 / 5)
    assert task.rejected == 0


def test_without_shards_there_is_nothing_to_compare(curated: Any) -> None:
    assert run(["drift", "--store", curated.commit()]) == 2
    with pytest.raises(ConfigError, match="holds no shard set"):
        drift(DriftConfig(store=curated.commit()))
