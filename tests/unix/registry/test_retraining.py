"""The plan of a retraining: due once per release, from the champion, never lost; and how its outcome is decided."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from unix.data.shards import ShardsConfig, build_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.data.stream import ShardReader
from unix.errors import ConfigError
from unix.evaluation.frozen_set import require_frozen
from unix.evaluation.gate import GateRule
from unix.evaluation.predictions import label_column
from unix.manifest import read_manifest
from unix.records import CHEXPERT_14, Split, Task, no_labels
from unix.registry.decision import DecideConfig, Outcome, decide
from unix.registry.lineage import lineage, tree
from unix.registry.models import list_models, promote, register, rollback
from unix.registry.retraining import PlanConfig, plan_retraining
from unix.runs import Meta
from unix.store import Store

SETS = ("understanding-32", "generation-32")


class World:
    """A curated store with releases, and runs that say they were trained on them."""

    def __init__(self, curated: Any, root: Path) -> None:
        self.curated, self.root, self.store = curated, root, Store(root / "store")
        self.shards = Path(self.store.location("shards"))

    def release(self, studies: range) -> None:
        for number in studies:
            split = "test" if number % 3 == 0 else "train"
            self.curated.complete_study(f"s{number}", official_split=split)
        uri = self.curated.commit()
        build_splits(SplitsConfig(store=uri))
        build_shards(ShardsConfig.build({"store": uri, "sets": SETS, "workers": 1}))

    def train(self, name: str, start: Path | None = None) -> Path:
        """A run of each of two stages on the present releases; the step's folder of the second."""
        parents: tuple[str, ...] = ()
        if start is not None:
            before = Meta.model_validate_json((start / "meta.json").read_bytes())
            parents = (*before.parents, f"{before.stage}:{before.configuration_digest}:2")
        for stage, data_set in (("stage1", SETS[0]), ("stage3", SETS[1])):
            step = self.root / "runs" / name / stage / "step-2"
            step.mkdir(parents=True)
            (step / "model.safetensors").write_text(f"{name} {stage}")
            meta = Meta(
                stage=stage,
                step=2,
                steps=2,
                seed=0,
                loader=None,
                configuration_digest=f"{name}-{stage}",
                architecture_digest="a",
                shards_digest=read_manifest(self.shards / data_set).digest(),
                code_revision="c0de",
                parents=parents,
            )
            (step / "meta.json").write_text(meta.model_dump_json())
            configuration = {"shards": str(self.shards), "data_set": data_set, "from_checkpoint": start and str(start)}
            (step / "configuration.json").write_text(json.dumps(configuration))
            parents, start = (*parents, f"{stage}:{name}-{stage}:2"), step
        return step

    def plan(self, **options: Any):
        return plan_retraining(PlanConfig.build({"store": self.store.uri, "runs": str(self.root / "runs"), **options}))

    def evaluate(self, name: str, wrong: float = 0.2, drawn: float = 0.0) -> str:
        """Predictions on the frozen set: `wrong` is the share of forgotten labels, `drawn` how dark drawings are."""
        folder, frozen = self.root / "evaluations" / name, require_frozen(self.store, "default")
        generator = np.random.default_rng(len(name))
        for task, said, true in (
            (Task.UNDERSTANDING, "predicted_labels", "reference_labels"),
            (Task.GENERATION, "read_back_labels", "prompt_labels"),
        ):
            ids = list(frozen.of(task).image_ids)
            reference = [{**no_labels(), CHEXPERT_14[number % 3]: 1} for number in range(len(ids))]
            predicted = [labels if generator.random() > wrong else no_labels() for labels in reference]
            (folder / task / "generated").mkdir(parents=True)
            pl.DataFrame(
                {
                    "image_id": ids,
                    "subject_id": ids,
                    said: label_column(said, predicted),
                    true: label_column(true, reference),
                }
            ).write_parquet(folder / task / "predictions.parquet")
        of = frozen.of(Task.GENERATION)
        reader = ShardReader(self.shards / of.data_set, Split.TEST, release=of.release)
        for key, place in zip(of.image_ids, of.places(reader), strict=True):
            pixels = reader.read(place).image * (1 - drawn)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / Task.GENERATION / "generated" / f"{key}.png")
        return str(folder)

    def decide(self, candidate: Path, least_patients: int = 2, **options: Any):
        config = {"store": self.store.uri, "candidate": str(candidate), **options}
        rule = GateRule(resamples=100, distance_resamples=100, least_patients=least_patients)
        return decide(DecideConfig.build({**config, "rule": rule}), lambda kind, folder: MeanAndSpread())


class MeanAndSpread:
    """An encoder without weights."""

    name, digest, width = "mean and spread", "m", 2

    def encode(self, images: Any) -> Any:
        return np.array([[image.mean(), image.std()] for image in images], np.float32)


@pytest.fixture
def world(curated: Any, tmp_path: Path) -> World:
    world = World(curated, tmp_path)
    world.release(range(12))
    return world


def test_a_release_is_due_until_a_model_was_trained_on_it(world: World) -> None:
    with pytest.raises(ConfigError, match="no champion to start from"):
        world.plan()
    first = world.train("first")
    due = world.plan(start=str(first))
    assert (due.due, due.new_studies, due.champion, due.start) == (True, 12, "", str(first))
    promote(world.store, register(world.store, str(first)).model_id, "good")
    covered = world.plan()
    assert not covered.due
    assert "trained on" in covered.reason

    world.release(range(12, 15))
    few = world.plan(min_new_studies=4)
    assert (few.due, few.new_studies) == (False, 3)
    again = world.plan(min_new_studies=3)
    assert again.due
    assert again.start == str(first)
    assert again.pins == tuple(
        f"releases.{name}='{read_manifest(world.shards / name).release}'" for name in sorted(SETS)
    )
    assert world.plan(min_new_studies=3).run_folder == again.run_folder, "killed and run again, it continues"

    world.release(range(15, 16))
    newest = world.plan(min_new_studies=3)
    assert newest.new_studies == 4, "the release in between is not lost, and the newest wins"
    assert newest.run_folder != again.run_folder


def test_a_refused_model_covers_its_release_as_well(world: World) -> None:
    promote(world.store, register(world.store, str(world.train("first"))).model_id, "good")
    world.release(range(12, 15))
    register(world.store, str(world.train("second")))
    assert not world.plan().due


def champion_and_candidate(world: World) -> tuple[str, Path]:
    first = world.train("first")
    champion = register(world.store, str(first)).model_id
    promote(world.store, champion, "good")
    world.release(range(12, 15))
    assert world.plan().due
    return champion, world.train("second", first)


def test_the_better_one_is_promoted_and_can_be_taken_back(world: World) -> None:
    champion, candidate = champion_and_candidate(world)
    evaluations: dict[str, Any] = {"evaluation": world.evaluate("new"), "champion_evaluation": world.evaluate("old")}
    decision = world.decide(candidate, champion=champion, **evaluations)
    assert (decision.outcome, decision.compared_with) == (Outcome.PROMOTED, champion)
    model = list_models(world.store).find(decision.model_id)
    assert model.parents.start == champion
    assert set(model.metrics) == {"report_micro_f1", "report_macro_f1", "frechet_distance", "readback_micro_f1"}
    again = world.decide(candidate, champion=champion, **evaluations)
    assert (again.outcome, again.reason) == (Outcome.PROMOTED, decision.reason)
    assert rollback(world.store, "worse").champion == champion


def test_the_worse_one_is_refused_with_the_reason(world: World) -> None:
    champion, candidate = champion_and_candidate(world)
    decision = world.decide(
        candidate, evaluation=world.evaluate("new", drawn=0.9), champion_evaluation=world.evaluate("old")
    )
    assert decision.outcome is Outcome.REFUSED
    assert "frechet_distance" in decision.reason
    assert decision.champion == champion
    assert list_models(world.store).find(decision.model_id).state == "retired"


def test_a_person_may_have_the_last_word(world: World) -> None:
    champion, candidate = champion_and_candidate(world)
    evaluations: dict[str, Any] = {"evaluation": world.evaluate("new"), "champion_evaluation": world.evaluate("old")}
    decision = world.decide(candidate, require_approval=True, **evaluations)
    assert (decision.outcome, decision.champion) == (Outcome.AWAITING_APPROVAL, champion)
    assert decision.reason.startswith("awaits approval: passed")
    assert promote(world.store, decision.model_id, "looks right").former == champion


def test_what_the_test_set_cannot_tell_waits_for_a_person(world: World) -> None:
    champion, candidate = champion_and_candidate(world)
    evaluations: dict[str, Any] = {"evaluation": world.evaluate("new"), "champion_evaluation": world.evaluate("old")}
    decision = world.decide(candidate, least_patients=500, **evaluations)
    assert (decision.outcome, decision.champion) == (Outcome.AWAITING_APPROVAL, champion)
    assert decision.reason.startswith("awaits approval: too close to call on")
    assert "patients are fewer than 500" in decision.reason
    assert not world.plan().due, "its release is covered all the same"


def test_what_cannot_be_compared_is_not_decided(world: World) -> None:
    _, candidate = champion_and_candidate(world)
    evaluation = world.evaluate("new")
    with pytest.raises(ConfigError, match="name the folder of its evaluations"):
        world.decide(candidate, evaluation=evaluation)
    with pytest.raises(ConfigError, match="evaluate that one and decide again"):
        world.decide(candidate, evaluation=evaluation, champion="")
    with pytest.raises(ConfigError, match="run `unix evaluate understanding"):
        world.decide(candidate, evaluation=str(world.root), champion_evaluation=evaluation)
    path = Path(evaluation, "understanding", "predictions.parquet")
    pl.read_parquet(path).head(2).write_parquet(path)
    with pytest.raises(ConfigError, match="is not of test set default"):
        world.decide(candidate, evaluation=evaluation, champion_evaluation=evaluation)
    assert list_models(world.store).models[0].state == "candidate"


def test_lineage_leads_from_a_model_to_the_tables(world: World) -> None:
    champion, candidate = champion_and_candidate(world)
    model = register(world.store, str(candidate))
    for name in (model.model_id, model.model_id[:8], str(candidate)):
        lines = tree(lineage(world.store, name))
        assert lines[0].startswith(f"model {model.model_id}: state candidate")
        text = "\n".join(lines)
        assert f"model {champion}: state champion" in text
        for told in (
            "table studies: version",
            "prompt v1",
            "cleaning model rules",
            "code c0de",
            "prompt digest prompt",
        ):
            assert told in text
        assert text.count("stage stage1") == 2, "of the model and of the champion that it started from"
    releases = [manifest.release for manifest in (read_manifest(world.shards / name) for name in SETS)]
    for name in (releases[0], str(world.shards / SETS[0])):
        node = lineage(world.store, name)
        assert (node.kind, node.name) == ("release", releases[0])
        assert node.parents[-1].kind == "release", "and the release before it"
    with pytest.raises(ConfigError, match="there is no model 'nothing'"):
        lineage(world.store, "nothing")
