"""Commands about runs: what one will take, whether this machine is ready for it, what became of those before."""

from pathlib import Path
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, FAILED, JsonOption, StoreOption, given, present, write
from unix.cli.options import AcknowledgeOption, ConfigOption, SettingsOption, ShardsOption


def plan(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="stage1, stage2, stage3 or joint.")],
    preset: Annotated[str, typer.Option(metavar="NAME", help="tiny or paper.")] = "paper",
    config: ConfigOption = None,
    settings: SettingsOption = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="GPUs that share every batch; default: 1.")
    ] = None,
    gpu_memory_gb: Annotated[
        float | None, typer.Option(metavar="X", help="Memory of one GPU, GiB; says whether it fits; default: unknown.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Text positions of a sample; default: 160.")
    ] = None,
    tflops: Annotated[
        float | None, typer.Option(metavar="X", help="Peak of one GPU in bfloat16, TFLOP/s; default: 150.")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(metavar="X", help="Share of the peak that is reached; default: 0.35.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Take a few steps here with made-up samples; hours and peak are theirs.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Say what a stage takes: memory per GPU, FLOPs, hours.

    Nothing is allocated, but with --measure.
    """
    from unix.training.plan import PlanConfig
    from unix.training.plan import plan as plan_stage
    from unix.training.stages import load_stage

    places = ["shards=nowhere", "run_dir=nowhere", "from_checkpoint=nowhere"] if config is None else []
    train = load_stage(stage, preset=preset, config=config, overrides=[*places, *(settings or ())])
    machine = given(gpus=gpus, gpu_memory_gb=gpu_memory_gb, tokens=tokens, tflops=tflops, utilisation=utilisation)
    planned = PlanConfig(train=train, **machine)
    summary = plan_stage(planned)
    if measure:
        from unix.training.rehearsal import rehearse

        measured = rehearse(planned)
        summary = summary.with_measured(measured.seconds_per_step, measured.peak_gb)
    present(summary, json)


def doctor(
    store: StoreOption = DEFAULT_STORE,
    source: Annotated[
        str | None, typer.Option(metavar="NAME", help="mimic-cxr, iu-xray or phantom; default: none is looked at.")
    ] = None,
    root: Annotated[str | None, typer.Option(metavar="DIR", help="The source's folder, with --source.")] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="What is to be trained: tiny or paper; default: nothing.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="CHECKPOINT", help="The weights that stage 1 is to start from; default: none."),
    ] = None,
    shards: ShardsOption = None,
    run_folder: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of training runs.")] = Path("runs"),
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="As endpoints.yaml names it; asked for its models, no more; default: none is asked."
        ),
    ] = None,
    acknowledge_host: AcknowledgeOption = None,
    json: JsonOption = None,
) -> None:
    """Say what a long run would miss, and where to get it.

    Exits 1 where something is missing. Changes nothing, reads no report, shows no key.
    """
    from unix.doctor import DoctorConfig, examine

    options = given(
        store=store,
        source=source,
        root=root,
        preset=preset,
        start=start,
        shards=shards,
        runs=str(run_folder),
        endpoint=endpoint,
        acknowledge_host=tuple(acknowledge_host) if acknowledge_host else None,
    )
    summary = examine(DoctorConfig.build(options))
    width = max(len(check.name) for check in summary.checks)
    for check in summary.checks:
        remedy = f"; {check.remedy}" if check.remedy else ""
        typer.echo(f"{check.state:<7}  {check.name:<{width}}  {check.found}{remedy}")
    write(summary, json)
    if summary.missing:
        typer.echo(f"{summary.missing} missing, {summary.warnings} warnings", err=True)
        raise typer.Exit(FAILED)


def runs(
    folder: Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of training runs.")] = Path("runs"),
    json: JsonOption = None,
) -> None:
    """List runs: stage, newest step of how many, loss, when, lineage."""
    from unix.runs import list_runs

    rows = list_runs(folder)
    cells = [("run", "stage", "checkpoint", "step", "of", "loss", "incidents", "last wrote (UTC)", "started from", "")]
    for row in rows:
        parents = " < ".join(f"{stage}@{step}" for stage, _, step in map(_lineage, reversed(row.parents)))
        cells.append(
            (
                row.folder,
                row.stage or "-",
                str(row.checkpoint or "-"),
                str(row.step),
                "-" if row.steps is None else str(row.steps),
                "-" if row.loss is None else f"{row.loss:.4g}",
                str(row.incidents),
                "-" if row.updated is None else f"{row.updated:%Y-%m-%d %H:%M}",
                parents or "-",
                row.problem or "; ".join(row.notes),
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        typer.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
    write({"runs": [row.model_dump(mode="json") for row in rows]}, json)


def _lineage(parent: str) -> tuple[str, str, str]:
    """`<stage>:<configuration digest>:<step>` in its parts."""
    stage, _, rest = parent.partition(":")
    digest, _, step = rest.rpartition(":")
    return stage, digest, step
