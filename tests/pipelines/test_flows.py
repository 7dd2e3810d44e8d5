"""The flows as wiring: which commands they run, with which options, in which order, and what follows a failure."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.states import Failed

from pipelines import curation, retraining, steps
from pipelines.deployments import TAG
from pipelines.runtime import CommandError, CommandSummary

on_a_server = pytest.mark.usefixtures("prefect_server")

OUTCOMES = {
    "clean": {"reports": 0, "prompt": "v2", "model": "rules"},
    "ingest": {"new": 2, "changed": 0, "withdrawn": 0, "source": "phantom"},
    "shards": {"changed": True, "out": "here/shards", "sets": {"understanding-64": {"samples": 2, "release": "r1"}}},
    "drift": {"new_studies": 2, "tasks": {"understanding": {"view_mix": 0.5}}},
}
Call = tuple[str, tuple[str, ...], dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every command that a flow would run, in order; none is run."""
    made: list[Call] = []

    def note(command: str, *arguments: str, log: Callable[[str], object], **options: Any) -> CommandSummary:
        given = {name: value for name, value in options.items() if value not in (None, False) and name != "timeout"}
        made.append((command, arguments, given))
        return CommandSummary(command, 0.0, OUTCOMES.get(command, {"n": 1}))

    monkeypatch.setattr(steps, "run_command", note)
    return made


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    emitted: list[tuple[str, dict[str, Any]]] = []

    def note(event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        emitted.append((event, payload))

    monkeypatch.setattr(steps, "emit_event", note)
    return emitted


@on_a_server
def test_curate_chains_its_commands(calls: list[Call], events: list[tuple[str, dict[str, Any]]]) -> None:
    curation.curate("phantom", "source", store="here", sets=["understanding-64"])
    cleaning = {"prompt": "v2", "model": "rules", "unattended": True}
    assert calls == [
        ("ingest", (), {"source": "phantom", "root": "source", "store": "here"}),
        ("clean", (), {"store": "here"}),
        ("splits", (), {"store": "here", **cleaning}),
        ("shards", (), {"store": "here", "sets": ["understanding-64"], "engine": "local", **cleaning}),
        ("drift", (), {"store": "here"}),
    ]
    assert events == [
        (
            "unix.data.landed",
            {"new": 2, "changed": 0, "withdrawn": 0, "source": "phantom", "root": "source", "store": "here"},
        ),
        (
            "unix.dataset.updated",
            {
                **{"sets.understanding-64.samples": 2, "new_studies": 2, "tasks.understanding.view_mix": 0.5},
                **{"shards": "here/shards", "store": "here", "releases.understanding-64": "r1"},
            },
        ),
    ]


@on_a_server
def test_cleaning_fans_out_over_partitions(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(curation.clean_reports("here", partitions=3)) == 3
    assert sorted(options["partition"] for _, _, options in calls[1:]) == ["0/3", "1/3", "2/3"]
    assert {options["store"] for _, _, options in calls} == {"here"}

    calls.clear()
    monkeypatch.setitem(OUTCOMES, "clean", {"reports": 2001})
    assert len(curation.clean_reports("here", endpoint="local", budget_usd=3.0)) == 2
    assert [options["partition"] for _, _, options in calls[1:]] == ["0/2", "1/2"], "one after the other"
    assert {options["budget_usd"] for _, _, options in calls[1:]} == {1.5}

    calls.clear()
    curation.clean_reports("here")
    curation.clean_reports("here", endpoint="local", limit=5000)
    curation.clean_reports("here", endpoint="local", engine="ray")
    assert [options for _, _, options in calls] == [
        {"store": "here"},
        {"store": "here", "endpoint": "local", "limit": 5000},
        {"store": "here", "endpoint": "local", "engine": "ray"},
    ], "one task of one command"


@on_a_server
def test_every_partition_is_tried_before_a_failure_is_reported(
    calls: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_one(command: str, *arguments: str, log: Callable[[str], object], **options: Any) -> CommandSummary:
        calls.append((command, arguments, options))
        if options.get("partition") == "0/3":
            raise CommandError(command, 2, "refused")
        return CommandSummary(command, 0.0, {"reports": 4100})

    monkeypatch.setattr(steps, "run_command", fail_one)
    with pytest.raises(CommandError, match="refused"):
        curation.clean_reports("here", endpoint="local")
    assert [options["partition"] for _, _, options in calls[1:]] == ["0/3", "1/3", "2/3"]


@on_a_server
def test_partitions_are_summed_into_one_table(calls: list[Call], monkeypatch: pytest.MonkeyPatch) -> None:
    tables: dict[str, list[dict[str, Any]]] = {}

    def note(key: str, table: list[dict[str, Any]], description: str) -> None:
        tables[key] = table

    monkeypatch.setattr(steps, "create_table_artifact", note)
    monkeypatch.setitem(
        OUTCOMES,
        "clean",
        {"reports": 5, "cost_usd": 0.25, "cache_hit_share": 0.5, "reasons": {"empty": 1}, "model": "m"},
    )
    curation.clean_reports("here", partitions=3)
    assert {row["quantity"]: row["value"] for row in tables["clean-reports"]} == {
        "reports": 15,
        "cost_usd": 0.75,
        "reasons.empty": 3,
    }


@on_a_server
def test_nothing_new_is_no_event(
    calls: list[Call], events: list[tuple[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OUTCOMES, "ingest", {"new": 0, "changed": 0, "withdrawn": 0})
    monkeypatch.setitem(OUTCOMES, "shards", {"changed": False})
    curation.curate("phantom", "source", store="here")
    assert len(calls) == 4
    assert not events


PLAN = {
    "due": True,
    "reason": "30 new studies",
    "start": "runs/champion/step-3",
    "champion": "c1",
    "champion_checkpoint": "runs/champion/step-3",
    "run_folder": "runs/retrain/plan",
    "shards": "shards",
    "pins": ["releases.a='1'"],
}
DECISION = {"outcome": "promoted", "reason": "passed", "model_id": "m1"}


@pytest.fixture
def sentences(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(retraining, "publish_sentence", lambda name, sentence: told.append(sentence))
    return told


@on_a_server
def test_retrain_trains_measures_both_and_promotes(
    calls: list[Call],
    events: list[tuple[str, dict[str, Any]]],
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes = {"models plan": PLAN, "models decide": DECISION, "train": {"checkpoint": "trained/step-9"}}
    for command, values in outcomes.items():
        monkeypatch.setitem(OUTCOMES, command, values)
    retraining.retrain("tiny", "runs/retrain", store="here", settings=["steps=4"], num_steps=2, guidance=1.5)
    assert [(command, *arguments) for command, arguments, _ in calls] == [
        ("models plan",),
        ("train", "stage1"),
        ("train", "stage2"),
        ("train", "stage3"),
        *[("evaluate understanding",), ("evaluate generation",)] * 2,
        ("models decide", "trained/step-9"),
    ]
    assert [options["from_"] for _, _, options in calls[1:4]] == [
        "runs/champion/step-3",
        "trained/step-9",
        "trained/step-9",
    ]
    assert calls[1][2]["set"] == [
        *("run_dir=runs/retrain/plan/stage1", "shards=shards", "releases.a='1'", "steps=4"),
    ]
    assert [(options["checkpoint"], options["out"]) for _, _, options in calls[4:8:2]] == [
        ("trained/step-9", "runs/retrain/plan/candidate/understanding"),
        ("runs/champion/step-3", "runs/retrain/plan/champion/understanding"),
    ]
    assert {options["test_set"] for _, _, options in calls[4:9]} == {"default"}
    assert [options.get("num_steps") for _, _, options in calls[4:8]] == [None, 2, None, 2], "only drawings take steps"
    assert [options.get("guidance") for _, _, options in calls[4:8]] == [None, 1.5, None, 1.5]
    assert calls[8][2]["champion"] == "c1"
    assert [event for event, _ in events] == [*["unix.model.trained"] * 3, "unix.model.promoted"]
    assert sentences == ["passed"]


@on_a_server
@pytest.mark.parametrize(
    ("plan", "decision", "commands"),
    [({"due": False}, {}, 1), ({"champion": "", "champion_checkpoint": ""}, {"outcome": "refused"}, 7)],
)
def test_retrain_does_no_more_than_is_due(
    plan: dict[str, Any],
    decision: dict[str, Any],
    commands: int,
    calls: list[Call],
    events: list[tuple[str, dict[str, Any]]],
    sentences: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(OUTCOMES, "models plan", {**PLAN, **plan})
    monkeypatch.setitem(OUTCOMES, "models decide", {**DECISION, **decision})
    monkeypatch.setitem(OUTCOMES, "train", {"checkpoint": "trained/step-9"})
    retraining.retrain("tiny", "runs/retrain", store="here")
    assert len(calls) == commands
    assert "unix.model.promoted" not in [event for event, _ in events]
    assert len(sentences) == 1


@pytest.mark.parametrize(("status", "again"), [(1, True), (2, False), (75, False)])
def test_only_a_failed_job_is_tried_again(status: int, again: bool) -> None:
    state = Failed(data=CommandError("clean", status, "why"))
    assert asyncio.run(steps.may_pass_later(cast(Any, None), cast(Any, None), state)) is again


def deployments(repository: Path) -> list[dict[str, Any]]:
    return yaml.safe_load((repository / "prefect.yaml").read_text())["deployments"]


def test_flow_and_deployment_bear_the_same_name_and_its_parameters_fit(repository: Path) -> None:
    declared = deployments(repository)
    for deployment in declared:
        flow: Flow[Any, Any] = load_flow_from_entrypoint(str(repository / deployment["entrypoint"]))
        assert flow.name == deployment["name"]
        flow.validate_parameters(deployment["parameters"])
        assert deployment["description"]
        assert TAG in deployment["tags"]
        assert not any(schedule["active"] for schedule in deployment.get("schedules", ()))
    assert {deployment["name"] for deployment in declared} == {
        *("ingest", "clean-reports", "build-splits", "build-shards"),
        *("train-stage", "evaluate", "retrain", "curate"),
    }


def test_runs_of_a_deployment_wait_for_each_other(repository: Path) -> None:
    one_at_a_time = {"limit": 1, "collision_strategy": "ENQUEUE"}
    limits = {each["name"]: each.get("concurrency_limit") for each in deployments(repository)}
    assert limits.pop("evaluate") is None
    assert all(limit == one_at_a_time for limit in limits.values()), limits


def test_every_parameter_is_described(repository: Path) -> None:
    for deployment in deployments(repository):
        flow: Flow[Any, Any] = load_flow_from_entrypoint(str(repository / deployment["entrypoint"]))
        for name, schema in flow.parameters.properties.items():
            assert schema.get("description"), f"{flow.name}: {name}"
