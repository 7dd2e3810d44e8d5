"""Commands about trained models: which there are, which one is promoted."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present, write

models = typer.Typer(help="List trained models; promote one or go back.")

ModelArgument = Annotated[str, typer.Argument(metavar="ID", help="A model's id, or enough of its beginning.")]
ShardsOption = Annotated[
    str | None, typer.Option("--shards", metavar="DIR", help="Folder of the sets; default: the store's shards/.")
]
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
    _print_table(rows)
    write(listed, json)


@models.command()
def register(
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A run's folder or a step's.")],
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
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept beside it.")] = "promoted by hand",
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
        str | None, typer.Argument(metavar="[ID]", help="A former champion; default: the one before.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; kept beside it.")] = "rolled back by hand",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Restore a former champion."""
    from unix.registry import models
    from unix.store import Store

    present(models.rollback(Store(store), reason, model_id), json)


@models.command()
def plan(
    runs: Annotated[str | None, typer.Option(metavar="DIR", help="Folder for the runs.")] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="Such as tiny or paper.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="A setting of every stage; repeat for more.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="CHECKPOINT", help="To start from while there is no champion.")
    ] = None,
    min_new_studies: Annotated[int | None, typer.Option(min=1, metavar="N", help="Due from so many on.")] = None,
    test_set: Annotated[str | None, typer.Option(metavar="NAME", help="Frozen at its first use.")] = None,
    test_limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many of each task.")] = None,
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
    candidate: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="A run's folder or a step's.")],
    evaluation: Annotated[str, typer.Option(metavar="DIR", help="Its evaluations: understanding/, generation/.")],
    champion_evaluation: Annotated[
        str | None, typer.Option(metavar="DIR", help="The champion's, where there is one.")
    ] = None,
    champion: Annotated[
        str | None, typer.Option(metavar="ID", help="Refuse to decide against another one; '' stands for none.")
    ] = None,
    test_set: Annotated[str | None, typer.Option(metavar="NAME", help="Frozen; both were measured on it.")] = None,
    require_approval: Annotated[bool, typer.Option("--require-approval", help="Promote nothing by itself.")] = False,
    encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Behind the distance: random, rad-dino or tower.")
    ] = None,
    encoder_folder: Annotated[str | None, typer.Option(metavar="DIR", help="Its weights.")] = None,
    rule: Annotated[
        list[str] | None, typer.Option("--rule", metavar="A=B", help="Change a margin or a floor; repeat for more.")
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
        encoder_folder=encoder_folder,
        rule=GateRule.build({}, rule or (), origin="--rule"),
    )
    present(decide_about(DecideConfig.build(options)), json)


@models.command()
def freeze(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new test set.")],
    shards: ShardsOption = None,
    sets: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="One per task; default: those of the largest pictures.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many samples of each.")] = None,
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
