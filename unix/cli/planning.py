"""Commands about runs: what one will take."""

from typing import Annotated

import typer

from unix.cli.frame import JsonOption, given, present


def plan(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="stage1, stage2 or stage3.")],
    preset: Annotated[str, typer.Option(metavar="NAME", help="Such as tiny or paper.")] = "paper",
    config: Annotated[str | None, typer.Option(metavar="FILE", help="A YAML file in place of the preset's.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one setting; repeat for more.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, metavar="N", help="GPUs that share every batch.")] = None,
    gpu_memory_gb: Annotated[float | None, typer.Option(metavar="X", help="Memory of one GPU, GiB.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Text positions of a sample.")] = None,
    tflops: Annotated[float | None, typer.Option(metavar="X", help="Peak of one GPU in bfloat16, TFLOP/s.")] = None,
    utilisation: Annotated[float | None, typer.Option(metavar="X", help="Share of the peak that is reached.")] = None,
    json: JsonOption = None,
) -> None:
    """Say what a stage takes: parameters, memory per GPU, FLOPs, hours; nothing is allocated."""
    from unix.training.plan import PlanConfig
    from unix.training.plan import plan as plan_stage
    from unix.training.stages import load_stage

    places = ["shards=nowhere", "run_dir=nowhere", "from_checkpoint=nowhere"] if config is None else []
    train = load_stage(stage, preset=preset, config=config, overrides=[*places, *(settings or ())])
    machine = given(gpus=gpus, gpu_memory_gb=gpu_memory_gb, tokens=tokens, tflops=tflops, utilisation=utilisation)
    present(plan_stage(PlanConfig(train=train, **machine)), json)
