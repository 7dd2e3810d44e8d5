"""Cleaning in parts: the same rows as by one process, whatever the engine, and whoever dies."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from unix.data.cleaning import parts as parts_module
from unix.data.cleaning.parts import PartsConfig, clean_in_parts
from unix.data.cleaning.run import CleanConfig, clean
from unix.errors import ConfigError
from unix.store import Store

Fill = Callable[[int, str], Store]
TIMES_AND_EFFORT = ["created_at", "latency_ms", "attempts", "prompt_tokens", "completion_tokens", "cached_tokens"]


def rows(store: Store) -> pl.DataFrame:
    return store.read("cleaned_reports").drop(TIMES_AND_EFFORT, "cost_usd").sort("source", "study_id")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "REPORTS_PER_PART", 10)


def run(store: Store, **settings: Any) -> Any:
    return clean_in_parts(PartsConfig.build({"store": store.uri, **settings}))


@pytest.mark.usefixtures("small_parts")
def test_parts_come_to_the_same(phantom_store: Fill) -> None:
    alone, spread = phantom_store(35, "alone"), phantom_store(35, "spread")
    whole = clean(CleanConfig(store=alone.uri))
    summary = run(spread, workers=1)
    assert rows(spread).equals(rows(alone))
    volatile = {"seconds", "reports_per_second", "reasons"}
    assert summary.model_dump(exclude=volatile) == whole.model_dump(exclude=volatile)
    assert summary.reasons == whole.reasons
    again = run(spread, workers=1)
    assert (again.reports, again.already_final, again.calls) == (0, 35, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_processes_come_to_the_same(phantom_store: Fill) -> None:
    alone, spread = phantom_store(120, "alone"), phantom_store(120, "spread")
    clean(CleanConfig(store=alone.uri))
    assert run(spread, workers=3).reports == 120
    assert rows(spread).equals(rows(alone))


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_that_loses_a_node_cleans_the_same(phantom_store: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    alone, spread = phantom_store(300, "alone"), phantom_store(300, "spread")
    clean(CleanConfig(store=alone.uri))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost: list[int] = []
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)

        def lose_a_node() -> None:
            while num_rows(spread) < 60:
                time.sleep(0.05)
            cluster.remove_node(second, allow_graceful=False)
            lost.append(num_rows(spread))

        thread = threading.Thread(target=lose_a_node)
        thread.start()
        run(spread, engine="ray")
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost[0] < 300
    assert rows(spread).equals(rows(alone))


def num_rows(store: Store) -> int:
    return (
        0
        if store.version("cleaned_reports") is None
        else store.scan("cleaned_reports").select(pl.len()).collect().item()
    )


def test_limits_are_shared_by_the_workers(phantom_store: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request is made: the parts are only looked at."""
    file = tmp_path / "endpoints.yaml"
    limits = "{concurrency: 64, requests_per_minute: 100}"
    file.write_text(f"far: {{base_url: 'http://127.0.0.1:9/v1', model: m, limits: {limits}}}\n")
    monkeypatch.setenv("UNIX_ENDPOINTS", str(file))
    monkeypatch.setattr(parts_module, "REPORTS_PER_PART", 10)
    seen: list[Any] = []

    def spread(engine: str, function: object, parts: list[Any], *_: object) -> list[Any]:
        seen.extend(parts)
        return [clean(parts[0][0].model_copy(update={"dry_run": True}), parts[0][1])]

    monkeypatch.setattr(parts_module, "spread", spread)
    run(phantom_store(35, "store"), endpoint="far", workers=4, budget_usd=2.0, concurrency=8)
    assert [config.partition for config, _ in seen] == [(index, 4) for index in range(4)]
    assert {config.budget_usd for config, _ in seen} == {0.5}
    assert {config.concurrency for config, _ in seen} == {2}
    assert {(e.limits.concurrency, e.limits.requests_per_minute, e.limits.tokens_per_minute) for _, e in seen} == {
        (16, 25, None)
    }


@pytest.mark.parametrize("setting", [{"limit": 3}, {"partition": (0, 2)}])
def test_what_does_not_go_together_is_refused(setting: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers"):
        PartsConfig.build({"store": str(tmp_path), "workers": 2, **setting})
