"""The flow that follows new data: train from the champion, measure both on the same samples, promote or say why not."""

from prefect import flow

from pipelines.learning import TASKS, Stage, evaluate, train_stage
from pipelines.runtime import CommandSummary
from pipelines.steps import MODEL_PROMOTED, announce, publish_sentence, run

STAGES: tuple[Stage, ...] = ("stage1", "stage2", "stage3")
"""A changed understanding branch makes the generation branch stale, so all three run."""


@flow(name="retrain", flow_run_name="retrain {preset}")
def retrain(
    preset: str,
    runs: str,
    store: str | None = None,
    shards: str | None = None,
    settings: list[str] | None = None,
    start: str | None = None,
    min_new_studies: int | None = None,
    require_approval: bool = False,
    test_set: str = "default",
    test_limit: int | None = None,
    num_steps: int | None = None,
    guidance: float | None = None,
    encoder: str | None = None,
) -> CommandSummary:
    """Train stages 1, 2 and 3 from the champion on the newest releases; promote by the written rule, or say why not.

    What is due, and in which folders, the store decides (`unix models plan`): a run that was killed is continued by the
    next one, and a release that a model was trained on is not trained on again.

    Args:
        preset: `tiny` or `paper`.
        runs: folder for the runs, in a folder of each plan.
        store: URI of the store; else $UNIX_STORE, else ./store.
        shards: folder of the shard sets; else the store's `shards/`.
        settings: further settings of every stage, each `a.b=value`.
        start: checkpoint to start from while there is no champion.
        min_new_studies: new or changed studies from which on a retraining is due.
        require_approval: a candidate that passes waits for `unix models promote`.
        test_set: name of the frozen test set; it is frozen at its first use.
        test_limit: at most so many samples of each task, when it is frozen.
        num_steps: Euler steps per drawn image.
        guidance: classifier-free guidance on the caption.
        encoder: behind the distance of drawn to real images: `random`, `rad-dino:FOLDER` or `tower:FOLDER`.
    """
    plan = run(
        "models plan",
        store=store,
        shards=shards,
        runs=runs,
        preset=preset,
        set=settings,
        from_=start,
        min_new_studies=min_new_studies,
        test_set=test_set,
        test_limit=test_limit,
    )
    if not plan.values["due"]:
        publish_sentence("retrain", plan.values["reason"])
        return plan
    folder, candidate = plan.values["run_folder"], plan.values["start"]
    for stage in STAGES:
        chosen = [*plan.values["pins"], *(settings or [])]
        trained = train_stage(stage, preset, f"{folder}/{stage}", plan.values["shards"], candidate, chosen, resume=True)
        candidate = trained.values["checkpoint"]
    evaluation, of_champion = f"{folder}/candidate", f"{folder}/champion"
    champion = plan.values["champion_checkpoint"]
    for checkpoint, out in ((candidate, evaluation), *([(champion, of_champion)] if champion else [])):
        for task in TASKS:
            draws = task == "generation"
            evaluate(
                task,
                checkpoint,
                plan.values["shards"],
                f"{out}/{task}",
                num_steps=num_steps if draws else None,
                guidance=guidance if draws else None,
                test_set=test_set,
                store=store,
            )
    decision = run(
        "models decide",
        candidate,
        store=store,
        shards=shards,
        evaluation=evaluation,
        champion=plan.values["champion"],
        champion_evaluation=of_champion if champion else None,
        test_set=test_set,
        require_approval=require_approval,
        encoder=encoder,
    )
    publish_sentence("retrain", decision.values["reason"])
    if decision.values["outcome"] == "promoted":
        announce(MODEL_PROMOTED, f"model.{decision.values['model_id']}", decision, checkpoint=candidate)
    return decision
