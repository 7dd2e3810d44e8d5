"""Commands from shards to reports, images and metrics."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present, write
from unix.cli.options import (
    BatchOption,
    CheckpointOption,
    ConfigOption,
    GuidanceOption,
    NumStepsOption,
    ProcessesOption,
    SettingsOption,
)
from unix.errors import WeightsError


def train(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="stage0 (tiny presets only) to stage3, or joint.")],
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="tiny (the default) or paper.")] = None,
    config: ConfigOption = None,
    settings: SettingsOption = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option("--from", metavar="CHECKPOINT", help="Start from these weights, at step 0; stage0 takes none."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest whole checkpoint in the run's folder.")
    ] = False,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Train one stage, alone or under torchrun.

    A preset leaves open where data and runs are: the store's shards/ and ./runs/STAGE, unless --set says otherwise.
    """
    from unix.training.run import train
    from unix.training.stages import load_stage

    places = [f"shards={store}/shards", f"run_dir=runs/{stage}"] if config is None else []
    overrides = [*places, *(settings or ())]
    if from_checkpoint is not None:
        overrides.append(f"from_checkpoint={from_checkpoint}")
    if resume:
        overrides.append("resume=true")
    summary = train(load_stage(stage, config=config, overrides=overrides, **given(preset=preset)))
    if os.environ.get("RANK", "0") == "0":
        present(summary, json)


def describe(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE", help="JPEG, PNG or DICOM files.")],
    checkpoint: CheckpointOption,
    temperature: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="0 (the default): the most likely report; above: drawn at random."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(max=1, metavar="P", help="Draw among the likeliest tokens that hold this share; default: 1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Of what is drawn at random; default: 0.")] = None,
    batch: BatchOption = None,
    processes: ProcessesOption = None,
    json: JsonOption = None,
) -> None:
    """Print a report per image, as JSON lines."""
    from unix.evaluation.predict import DescribeConfig, describe_images

    options = given(
        images=tuple(images),
        checkpoint=checkpoint,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        batch=batch,
        processes=processes,
    )
    summary = describe_images(DescribeConfig.build(options))
    for report in summary.reports:
        typer.echo(report.model_dump_json())
    write(summary, json)


def generate(
    prompt: Annotated[list[str], typer.Option("--prompt", metavar="TEXT", help="What to draw; repeat for more.")],
    checkpoint: CheckpointOption,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for 00000.png, ... and prompts.csv.")],
    resolution: Annotated[
        int | None, typer.Option(min=16, metavar="P", help="Side of the images, pixels; default: the checkpoint's.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="Of the first image; each further one counts on; default: 0.")
    ] = None,
    num_steps: NumStepsOption = None,
    guidance: GuidanceOption = None,
    batch: BatchOption = None,
    processes: ProcessesOption = None,
    json: JsonOption = None,
) -> None:
    """Draw an image per prompt."""
    from unix.evaluation.predict import GenerateConfig, generate_images

    options = given(
        prompts=tuple(prompt),
        checkpoint=checkpoint,
        out=out,
        resolution=resolution,
        seed=seed,
        num_steps=num_steps,
        guidance=guidance,
        batch=batch,
        processes=processes,
    )
    present(generate_images(GenerateConfig.build(options)), json)


def convert(
    source_layout: Annotated[str, typer.Argument(metavar="FROM", help="native, reference, janus or kl-f16.")],
    target_layout: Annotated[str, typer.Argument(metavar="TO", help="native, reference or kl-f16.")],
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A folder of weights, or the file in it.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The folder to write; it must not exist yet.")],
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="Of what the source lacks and is drawn at random; default: 0.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Convert weights from one layout to another."""
    from unix.training.conversion import ConvertConfig, convert

    layouts = {"source_layout": source_layout, "target_layout": target_layout}
    summary = convert(ConvertConfig.build({**layouts, **given(source=source, target=target, seed=seed)}))
    for name, lines in (("new", summary.new), ("unused", summary.unused), ("note", summary.notes)):
        for line in lines:
            typer.echo(f"{name:<8}{line}")
    present(summary, json)


def parity(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of recordings.")],
    json: JsonOption = None,
) -> None:
    """Compare with another implementation's recordings.

    A line per recorded quantity; exits 1 where one is out of tolerance.
    """
    from unix.model.parity import compare

    quantities = compare(folder)
    for quantity in quantities:
        verdict = "ok" if quantity.within else "OUT OF TOLERANCE"
        typer.echo(f"{quantity.name:<60}  {quantity.max_abs:9.2e}  {quantity.max_rel:9.2e}  {verdict}")
    outside = [quantity.name for quantity in quantities if not quantity.within]
    write({"quantities": [asdict(quantity) for quantity in quantities], "out_of_tolerance": len(outside)}, json)
    if outside:
        raise WeightsError(f"{len(outside)} of {len(quantities)} quantities out of tolerance, first: {outside[0]}")
