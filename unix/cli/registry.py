"""Commands about trained models: which there are, which one is promoted."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present, write
from unix.cli.options import CheckpointArgument, SettingsOption, ShardsOption

models = typer.Typer(help="List trained models; promote one or go back.")

ModelArgument = Annotated[str, typer.Argument(metavar="ID", help="A model's id, or enough of its beginning.")]
_WIDEST = 100


@models.callback(invoke_without_command=True)
def run_list(context: typer.Context, store: StoreOption = DEFAULT_STORE, json: JsonOption = None) -> None:
    """List trained models: state, stages, metrics, why."""
    if context.invoked_subcommand is not None:
        return
    from unix.registry.models import list_models
    from unix.store import Store

    listed = list_models(Store(store))
    names = sorted({name for model in listed.models for name in model.metrics})
    rows = [("model", "state", "run", "stage", *names, "started from", "created (UTC)", "why")]
    for model in listed.models:
        numbers = (f"{model.metrics[name]:.3g}" if name in model.metrics else "-" for name in names)
        why = model.reason if len(model.reason) <= _WIDEST else f"{model.reason[: _WIDEST - 3]}..."
        start = model.parents.start or "-"
        times = f"{model.created_at:%Y-%m-%d %H:%M}"
        rows.append((model.model_id, model.state.value, model.run, model.stage, *numbers, start, times, why))
    if listed.models:
        _print_table(rows)
    else:
        typer.echo(f"no model is registered in {store} yet: `unix models register RUN` enters one")
    write(listed, json)


@models.command()
def register(
    checkpoint: CheckpointArgument,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Enter a finished run as a candidate, with everything it came from."""
    from unix.registry import models
    from unix.store import Store

    model = models.register(Store(store), checkpoint)
    present({"model_id": model.model_id, "state": model.state.value, "checkpoint": model.checkpoint}, json)


@models.command()
def promote(
    model_id: ModelArgument,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; it is kept with the decision.")
    ] = "promoted by hand",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Make a model the champion; the one before is retired."""
    from unix.registry import models
    from unix.store import Store

    present(models.promote(Store(store), model_id, reason), json)


@models.command()
def rollback(
    model_id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A former champion; default: the one before.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why; it is kept with the decision.")
    ] = "rolled back by hand",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Restore a former champion."""
    from unix.registry import models
    from unix.store import Store

    present(models.rollback(Store(store), reason, model_id), json)


@models.command()
def plan(
    runs: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of training runs; default: runs/retrain.")
    ] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="tiny or paper (the default).")] = None,
    settings: SettingsOption = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="CHECKPOINT", help="To start from while there is no champion; default: none."),
    ] = None,
    min_new_studies: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Due from so many new or changed studies on; default: 1.")
    ] = None,
    test_set: Annotated[
        str | None, typer.Option(metavar="NAME", help="Frozen at its first use; default: default.")
    ] = None,
    test_limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Freeze at most so many of each task; default: all.")
    ] = None,
    shards: ShardsOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Say whether a retraining is due, and on what."""
    from unix.registry.retraining import PlanConfig, plan_retraining

    options = given(
        store=store,
        shards=shards,
        runs=runs,
        preset=preset,
        settings=tuple(settings) if settings else None,
        start=start,
        min_new_studies=min_new_studies,
        test_set=test_set,
        test_limit=test_limit,
    )
    present(plan_retraining(PlanConfig.build(options)), json)


@models.command()
def decide(
    candidate: CheckpointArgument,
    evaluation: Annotated[
        str, typer.Option(metavar="DIR", help="Folder of its evaluations, understanding/ and generation/.")
    ],
    champion_evaluation: Annotated[
        str | None, typer.Option(metavar="DIR", help="The champion's evaluations, likewise; default: there is none.")
    ] = None,
    champion: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="Refuse to decide where another one is champion; '' stands for none; default: any."
        ),
    ] = None,
    test_set: Annotated[
        str | None, typer.Option(metavar="NAME", help="Frozen; both were measured on it; default: default.")
    ] = None,
    require_approval: Annotated[
        bool, typer.Option("--require-approval", help="Leave a candidate that passes to `unix models promote`.")
    ] = False,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Compares images: random (the default), tower:DIR or rad-dino:DIR."),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="A=B", help="Change a margin or a floor; repeat for more; default: none."),
    ] = None,
    shards: ShardsOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Promote a candidate by the written rule, or say why not."""
    from unix.evaluation.gate import GateRule
    from unix.registry.decision import DecideConfig
    from unix.registry.decision import decide as decide_about

    options = given(
        store=store,
        shards=shards,
        candidate=candidate,
        evaluation=evaluation,
        champion=champion,
        champion_evaluation=champion_evaluation,
        test_set=test_set,
        require_approval=require_approval,
        encoder=encoder,
        rule=GateRule.build({}, rule or (), origin="--rule"),
    )
    present(decide_about(DecideConfig.build(options)), json)


@models.command()
def freeze(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new test set.")],
    shards: ShardsOption = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="One per task, repeated; default: those of the largest pictures."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many samples of each; default: all.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Freeze today's test samples under a new name."""
    from unix.evaluation import frozen_set
    from unix.store import Store

    frozen = frozen_set.freeze(Store(store), name, shards or f"{store}/shards", tuple(sets or ()), limit)
    present(frozen.summary(), json)


def lineage(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A model, a release, or a folder: run, step, shard set, evaluation.")
    ],
    shards: ShardsOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Print everything that something came from."""
    from pathlib import Path

    from unix.registry.lineage import lineage as trace_lineage
    from unix.registry.lineage import tree
    from unix.store import Store

    node = trace_lineage(Store(store), name, Path(shards) if shards else None)
    for line in tree(node):
        typer.echo(line)
    write(node, json)


def _print_table(rows: Sequence[Iterable[str]]) -> None:
    cells = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
