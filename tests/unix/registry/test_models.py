"""The table of models: what registering notes, one champion at any time, and the way back."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from unix.cli import run
from unix.config import json_digest
from unix.errors import ConfigError, WeightsError
from unix.registry.models import State, list_models, promote, register, retire, rollback
from unix.registry.provenance import StageParent
from unix.store import Store


def states(store: Store) -> dict[str, str]:
    return {model.run: model.state.value for model in list_models(store).models}


def test_registering_notes_everything_the_model_came_from(workshop: Any) -> None:
    first = workshop.run("stage1", "stage1")
    second = workshop.run("stage2", "stage2", first)
    model = register(workshop.store, str(second), {"micro_f1": 0.5})
    assert (model.run, model.stage, model.state) == ("stage2", "stage2", State.CANDIDATE)
    assert [stage.stage for stage in model.parents.stages] == ["stage1", "stage2"]
    (data,) = model.parents.stages[0].data
    assert (data.set, data.parents.tables["studies"], data.parents.prompt_version) == ("understanding-32", 1, "v2")
    assert model.parents.releases() == {"understanding-32": data.release}
    assert model.metrics == {"micro_f1": 0.5}


def test_a_joint_stage_names_both_sets_that_it_read(workshop: Any) -> None:
    reading, drawing = (workshop.release(name) for name in ("understanding-32", "generation-32"))
    workshop.release("generation-32", splits_version=1)
    both = json_digest([reading.digest(), drawing.digest()])
    step = workshop.run("joint", "joint", shards_digest=both) / "step-3"
    mixture = {"understanding": 1, "generation": 1, "understanding_set": "understanding-32"}
    configuration = {"shards": str(workshop.shards), "data_set": "generation-32", "mixture": mixture}
    (step / "configuration.json").write_text(json.dumps(configuration))
    model = register(workshop.store, str(step))
    assert model.parents.releases() == {"understanding-32": reading.release, "generation-32": drawing.release}
    (stage,) = model.parents.stages
    assert StageParent.model_validate({**stage.model_dump(), "data": stage.data[0].model_dump()}).data == stage.data[:1]
    assert StageParent.model_validate({**stage.model_dump(), "data": None}).data == ()


def test_registering_twice_is_one_row_and_keeps_its_state(workshop: Any) -> None:
    folder = workshop.run("stage1", "stage1")
    model = register(workshop.store, str(folder))
    promote(workshop.store, model.model_id, "good")
    version = workshop.store.version("models")
    again = register(workshop.store, str(folder / "step-3"))
    assert (again.model_id, again.state, again.created_at) == (model.model_id, State.CHAMPION, model.created_at)
    assert workshop.store.version("models") == version


def test_the_chain_ends_at_a_registered_model(workshop: Any) -> None:
    champion = workshop.run("old", "stage3")
    start = register(workshop.store, str(champion))
    model = register(workshop.store, str(workshop.run("new", "stage1", champion)))
    assert model.parents.start == start.model_id
    assert [stage.stage for stage in model.parents.stages] == ["stage1"]


def test_a_parent_that_is_gone_or_was_overwritten_is_named_without_its_details(workshop: Any) -> None:
    first = workshop.run("stage1", "stage1")
    second = workshop.run("stage2", "stage2", first)
    meta = first / "step-3" / "meta.json"
    meta.write_text(meta.read_text().replace('"seed":0', '"seed":1').replace("stage1", "stage9"))
    model = register(workshop.store, str(second))
    assert [(stage.stage, stage.checkpoint == "") for stage in model.parents.stages] == [
        ("stage1", True),
        ("stage2", False),
    ]


def test_promotion_retires_the_champion_and_rollback_restores_it_as_often_as_needed(workshop: Any) -> None:
    store = workshop.store
    ids = [register(store, str(workshop.run(name, "stage3"))).model_id for name in "abc"]
    for model_id in ids:
        promote(store, model_id[:6], "better")
        promote(store, model_id, "again")
    assert states(store) == {"a": "retired", "b": "retired", "c": "champion"}
    assert rollback(store, "it drew nothing").champion == ids[1]
    assert states(store) == {"a": "retired", "b": "champion", "c": "retired"}
    assert rollback(store, "worse", ids[1]).champion == ids[0]
    with pytest.raises(ConfigError, match="is the first"):
        rollback(store, "worse")
    assert states(store) == {"a": "champion", "b": "retired", "c": "retired"}


def test_rollback_to_an_earlier_champion_by_its_id(workshop: Any) -> None:
    store = workshop.store
    ids = [register(store, str(workshop.run(name, "stage3"))).model_id for name in "abcd"]
    for model_id in ids[:3]:
        promote(store, model_id, "better")
    with pytest.raises(ConfigError, match=f"before the present one: {ids[1]}, {ids[0]}"):
        rollback(store, "worse", ids[3])
    assert rollback(store, "worse", ids[0]).champion == ids[0]


def test_a_decision_against_another_champion_is_void(workshop: Any) -> None:
    store = workshop.store
    first, second, third = (register(store, str(workshop.run(name, "stage3"))).model_id for name in "abc")
    promote(store, first, "better", champion="")
    promote(store, second, "better", champion=first)
    with pytest.raises(ConfigError, match=f"compared with {first}, but by now {second}"):
        promote(store, third, "better", champion=first)
    assert states(store)["b"] == "champion"


def test_refusing_a_champion_changes_nothing(workshop: Any) -> None:
    model = register(workshop.store, str(workshop.run("a", "stage3"))).model_id
    promote(workshop.store, model, "good")
    retire(workshop.store, model, "late")
    assert states(workshop.store) == {"a": "champion"}


def test_a_model_without_its_checkpoint_is_not_promoted(workshop: Any) -> None:
    folder: Path = workshop.run("a", "stage3")
    model = register(workshop.store, str(folder))
    (folder / "step-3" / "meta.json").unlink()
    with pytest.raises(ConfigError, match="is gone"):
        promote(workshop.store, model.model_id, "good")
    with pytest.raises(WeightsError, match="no checkpoint"):
        register(workshop.store, str(folder))


def _promote_in_turn(uri: str, model_ids: list[str]) -> None:
    for model_id in model_ids:
        promote(Store(uri), model_id, "race")


def test_two_processes_that_promote_at_once_leave_one_champion_in_every_version(workshop: Any) -> None:
    store = workshop.store
    ids = [register(store, str(workshop.run(name, "stage3"))).model_id for name in "abcd"]
    first = store.version("models")
    context = multiprocessing.get_context("spawn")
    racers = [context.Process(target=_promote_in_turn, args=(store.uri, ids[part::2])) for part in (0, 1)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    for version in range(first + 1, store.version("models") + 1):
        champions = store.scan("models", version).collect().filter(state="champion").height
        assert champions == 1
    predecessors = {model.predecessor for model in list_models(store).models}
    assert len(predecessors) == len(ids), "every promotion knew the one before"


def test_the_command_line(workshop: Any, capsys: pytest.CaptureFixture[str]) -> None:
    uri = workshop.store.uri
    folders = [str(workshop.run(name, "stage3")) for name in "ab"]
    for folder in folders:
        assert run(["models", "register", folder, "--store", uri]) == 0
    ids = [model.model_id for model in reversed(list_models(workshop.store).models)]
    for model_id in ids:
        assert run(["models", "promote", model_id, "--store", uri]) == 0
    capsys.readouterr()
    assert run(["models", "--store", uri]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in listed[1:]] == [[ids[1], "champion"], [ids[0], "retired"]]
    assert run(["models", "rollback", "--store", uri]) == 0
    assert run(["models", "rollback", "--store", uri]) == 2
    assert run(["models", "promote", "nobody", "--store", uri]) == 2
    assert "there is no model 'nobody'" in capsys.readouterr().err


@pytest.mark.parametrize("beginning", ["", "x"])
def test_an_unknown_id_is_refused(workshop: Any, beginning: str) -> None:
    with pytest.raises(ConfigError, match="registered: none"):
        list_models(workshop.store).find(beginning)
