"""Landing: what is told, when, and how often; and that files on their way are left alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unix.data import ingest as ingest_module
from unix.data import landing as module
from unix.data.ingest import IngestConfig, IngestSummary, ingest
from unix.data.landing import GONE, Landing, WatchConfig, Watcher, WatchSummary, watch
from unix.errors import ConfigError, SourceError
from unix.store import Store

NONE = frozenset[str]()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_study_is_told_once_after_two_equal_looks() -> None:
    watcher = Watcher(remind_after=100)
    assert watcher.see({"a": "1"}, NONE, 0) == NONE
    assert watcher.see({"a": "2"}, NONE, 1) == NONE
    assert watcher.see({"a": "2"}, NONE, 2) == {"a"}
    assert watcher.see({"a": "2"}, NONE, 3) == NONE
    assert watcher.see({"a": "2", "b": GONE}, NONE, 4) == NONE
    assert watcher.see({"a": "2", "b": GONE}, NONE, 5) == {"b"}


def test_a_changed_study_is_told_again() -> None:
    watcher = Watcher(remind_after=100)
    for at, mark in enumerate("112"):
        watcher.see({"a": mark}, NONE, at)
    assert watcher.see({"a": "2"}, NONE, 5) == {"a"}


def test_one_that_was_taken_in_and_comes_again_is_told_again() -> None:
    watcher = Watcher(remind_after=100)
    for at, seen in enumerate(({"a": "1"}, {"a": "1"}, {}, {})):
        watcher.see(seen, NONE, at)
    watcher.see({"a": "1"}, NONE, 8)
    assert watcher.see({"a": "1"}, NONE, 9) == {"a"}


def test_what_the_store_still_lacks_is_told_again_later_unless_it_was_refused() -> None:
    watcher = Watcher(remind_after=10)
    for at in range(12):
        told = watcher.see({"a": "1", "corrupt": "1"}, frozenset({"corrupt"}), at)
        assert told == ({"a", "corrupt"} if at == 1 else {"a"} if at == 11 else NONE)


def watching(
    folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch, *between: Callable[[], object]
) -> tuple[WatchSummary, list[Landing]]:
    """Watch with one of `between` after each look but the last."""
    steps, told = iter(between), list[Landing]()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: next(steps)())
    config = WatchConfig(store=store.uri, source="mimic-cxr", root=str(folder.root), looks=len(between) + 1)
    return watch(config, told.append), told


def run(folder: Any, store: Store, settle: float = 0.0) -> IngestSummary:
    root = folder.write_tables()
    return ingest(IngestConfig(store=store.uri, source="mimic-cxr", root=str(root), settle_seconds=settle))


def nothing() -> None:
    pass


def test_a_watch_tells_of_new_changed_and_withdrawn_studies(
    mimic_folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        mimic_folder.study(f"1000000{number}", f"5000000{number}", [f"i{number}"])
    run(mimic_folder, store)

    def drop() -> None:
        mimic_folder.study("10000009", "50000009", ["i9"])
        mimic_folder.folder("10000001", "50000001").with_suffix(".txt").write_text(" FINDINGS: Other.")
        mimic_folder.folder("10000002", "50000002").with_suffix(".txt").unlink()
        mimic_folder.write_tables()

    summary, told = watching(
        mimic_folder, store, monkeypatch, nothing, drop, nothing, nothing, lambda: run(mimic_folder, store), nothing
    )
    (landing,) = told
    assert (landing.new, landing.changed, landing.withdrawn) == (1, 1, 1)
    assert (landing.source, landing.store) == ("mimic-cxr", store.uri)
    assert (summary.looks, summary.failed_looks, summary.landings) == (7, 0, 1)


def test_a_table_that_is_being_written_only_delays(
    mimic_folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mimic_folder.study("10000001", "50000001", ["a"])
    mimic_folder.write_tables()
    table = mimic_folder.root / "mimic-cxr-2.0.0-metadata.csv.gz"
    whole = table.read_bytes()

    summary, told = watching(
        mimic_folder,
        store,
        monkeypatch,
        lambda: table.write_bytes(whole[:-20]),
        lambda: table.write_bytes(whole),
        nothing,
    )
    assert summary.failed_looks == 1
    assert [landing.new for landing in told] == [1]


def test_a_folder_that_is_not_there_is_refused_at_once(tmp_path: Path, store: Store) -> None:
    config = WatchConfig(store=store.uri, source="mimic-cxr", root=str(tmp_path / "absent"))
    with pytest.raises(SourceError, match="missing folder"):
        watch(config, print)
    with pytest.raises(ConfigError):
        watch(config.model_copy(update={"source": "nobody"}), print)


def test_ingest_defers_what_changes_between_two_looks(
    mimic_folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One study grows, one comes, one goes and one is overwritten while ingest waits; one rests."""
    for number in range(4):
        mimic_folder.study(f"1000000{number}", f"5000000{number}", [f"i{number}"])
    run(mimic_folder, store)
    known = store.read("studies").sort("study_id")
    mimic_folder.study("10000007", "50000007", ["rests"])
    growing = mimic_folder.study("10000008", "50000008", ["grows"]) / "grows.jpg"
    whole = growing.read_bytes()
    growing.write_bytes(whole[: len(whole) // 2])

    def meanwhile(seconds: float) -> None:
        growing.write_bytes(whole[:-1])
        mimic_folder.folder("10000001", "50000001").with_suffix(".txt").unlink()
        mimic_folder.folder("10000002", "50000002").with_suffix(".txt").write_text(" FINDINGS: Hal")
        mimic_folder.study("10000009", "50000009", ["came"])
        mimic_folder.write_tables()

    monkeypatch.setattr(ingest_module.time, "sleep", meanwhile)
    summary = run(mimic_folder, store, settle=5)
    assert (summary.new, summary.changed, summary.withdrawn, summary.studies_deferred) == (1, 0, 0, 4)
    after = store.read("studies").sort("study_id")
    assert after.filter(after["study_id"].is_in(known["study_id"].implode())).equals(known)

    growing.write_bytes(whole)
    monkeypatch.setattr(ingest_module.time, "sleep", lambda seconds: None)
    summary = run(mimic_folder, store, settle=5)
    assert (summary.new, summary.changed, summary.withdrawn, summary.studies_deferred) == (2, 1, 1, 0)


def test_ingest_does_not_wait_where_nothing_is_new(
    mimic_folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mimic_folder.study("10000001", "50000001", ["a"])
    run(mimic_folder, store)

    def wait(seconds: float) -> None:
        pytest.fail("it waited")

    monkeypatch.setattr(ingest_module.time, "sleep", wait)
    assert run(mimic_folder, store, settle=5).unchanged == 1
