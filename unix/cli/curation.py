"""Commands from raw studies to shards; `cleaning.py` has those about text."""

from pathlib import Path
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present
from unix.cli.options import (
    EngineOption,
    ModelOption,
    PromptOption,
    RootOption,
    ShardsOption,
    SourceOption,
    UnattendedOption,
    WorkersOption,
)
from unix.errors import ShardError

shards = typer.Typer(help="Write the shard sets that training streams.", invoke_without_command=True)
export = typer.Typer(help="Write the store's texts to a file.")


def phantom(
    studies: Annotated[int, typer.Option(min=1, metavar="N", help="How many studies.")],
    out: Annotated[Path, typer.Option(file_okay=False, metavar="DIR", help="The folder to write.")],
    seed: Annotated[int | None, typer.Option(metavar="S", help="Same seed, same bytes; default: 0.")] = None,
    first_study: Annotated[
        int | None, typer.Option(min=0, metavar="I", help="Continue a series of the same seed here; default: 0.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="P", help="Long side of the images, pixels; default: 160.")
    ] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Write images as well as reports.")] = True,
    wording: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder whose phrases.yaml and noise.yaml are used; default: the package's words."
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write synthetic studies laid out as MIMIC-CXR-JPG."""
    from unix.data.phantom import PhantomConfig, write_phantom

    options = given(
        studies=studies,
        out=str(out),
        seed=seed,
        first_study=first_study,
        image_size=image_size,
        images=images,
        wording=None if wording is None else str(wording),
    )
    present(write_phantom(PhantomConfig.build(options)), json)


def ingest(
    source: SourceOption,
    root: RootOption,
    complete: Annotated[
        bool, typer.Option("--complete", help="Say that the copy is whole: its counts must be those of the manifest.")
    ] = False,
    settle: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="S", help="Look twice, S seconds apart; leave what still changes; default: 0, look once."
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Read what is new or changed in a source."""
    from unix.data.ingest import IngestConfig, ingest

    options = given(store=store, source=source, root=root, complete=complete, settle_seconds=settle)
    present(ingest(IngestConfig.build(options)), json)


def watch(
    source: SourceOption,
    root: RootOption,
    bucket: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Mirror this object store into the folder, such as s3://name/path; default: none."
        ),
    ] = None,
    interval: Annotated[float | None, typer.Option(metavar="S", help="Seconds between two looks; default: 15.")] = None,
    looks: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="End after so many looks; default: when stopped.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Tell Prefect when studies have landed in a folder or bucket.

    What is new, changed or gone is told once its files rest from one look to the next, as the event unix.data.landed.
    """
    from pipelines.landing import tell
    from unix.data.landing import WatchConfig
    from unix.data.landing import watch as watch_folder

    options = given(store=store, source=source, root=root, bucket=bucket, interval=interval, looks=looks)
    present(watch_folder(WatchConfig.build(options), tell), json)


def drift(
    shards: ShardsOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Compare the newest releases with those before."""
    from unix.data.drift import DriftConfig
    from unix.data.drift import drift as compare_releases

    present(compare_releases(DriftConfig.build(given(store=store, shards=shards))), json)


def splits(
    store: StoreOption = DEFAULT_STORE,
    prompt: PromptOption = None,
    model: ModelOption = None,
    unattended: UnattendedOption = False,
    annotations: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="LLaVA-Rad's annotation tables, which decide the generation split; default: none."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="S", help="For subjects without an official split; default: 0.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Assign usable images to train, validate and test."""
    from unix.data.splits import SplitsConfig, build_splits

    options = given(
        store=store, prompt_version=prompt, model=model, unattended=unattended, annotations=annotations, seed=seed
    )
    present(build_splits(SplitsConfig.build(options)), json)


@shards.callback()
def build(
    context: typer.Context,
    store: StoreOption = DEFAULT_STORE,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Repeat, or join by commas; default: understanding-384,generation-256,generation-512."
        ),
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Folder of the sets; default: the store's shards/.")
    ] = None,
    prompt: PromptOption = None,
    model: ModelOption = None,
    unattended: UnattendedOption = False,
    workers: WorkersOption = None,
    engine: EngineOption = None,
    png: Annotated[bool, typer.Option("--png", help="Write pictures without loss instead of as JPEG.")] = False,
    json: JsonOption = None,
) -> None:
    """Write the shard sets that training streams."""
    if context.invoked_subcommand is not None:
        return
    from unix.data.shards import ShardsConfig, build_shards

    options = given(
        store=store,
        sets=_names(sets),
        out=out,
        prompt_version=prompt,
        model=model,
        unattended=unattended,
        workers=workers,
        engine=engine,
    )
    if png:
        options["picture"] = {"format": "png"}
    present(build_shards(ShardsConfig.build(options)), json)


@shards.command()
def verify(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="A shard set, or a folder of sets.")],
    json: JsonOption = None,
) -> None:
    """Check finished sets byte by byte."""
    from unix.data.shards import verify_shards

    summary = verify_shards(folder)
    present(summary, json)
    if summary.problems:
        raise ShardError(f"{folder}: {len(summary.problems)} problems, first: {summary.problems[0]}")


@shards.command()
def latents(
    vae: Annotated[str, typer.Option(metavar="DIR", help="A run's or step's folder, or a folder with a VAE alone.")],
    shards: ShardsOption = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Repeat, or join by commas; default: every generation set there."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Images in one forward pass; default: 32.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Encode generation sets once, so that training skips the VAE."""
    from unix.training.latents import LatentsConfig, precompute_latents

    options = given(vae=vae, shards=shards or f"{store}/shards", sets=_names(sets), batch=batch)
    present(precompute_latents(LatentsConfig.build(options)), json)


@export.command()
def reports(
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write: CSV or Parquet, by its suffix.")],
    store: StoreOption = DEFAULT_STORE,
    prompt: PromptOption = None,
    model: ModelOption = None,
    source: Annotated[str | None, typer.Option(metavar="NAME", help="Only this source; default: all.")] = None,
    status: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only accepted, flagged, rejected or failed; default: all.")
    ] = None,
    flag: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only reports that carry this flag; default: all.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only train, validate or test; default: all.")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Write raw and cleaned reports, one row per study."""
    from unix.data.export import ExportReportsConfig, export_reports

    options = given(
        store=store,
        out=out,
        prompt_version=prompt,
        model=model,
        source=source,
        status=status,
        flag=flag,
        split=split,
    )
    present(export_reports(ExportReportsConfig.build(options)), json)


def _names(groups: list[str] | None) -> tuple[str, ...] | None:
    """`["a,b", "c"]` as `("a", "b", "c")`; None where there is none."""
    return tuple(name for group in groups or () for name in group.split(",") if name) or None
