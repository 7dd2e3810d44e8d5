"""Commands from raw studies to shards."""

import re
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present
from unix.cli.options import (
    AcknowledgeOption,
    ConcurrencyOption,
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
from unix.manifest import write_atomically

clean = typer.Typer(help="Clean every report that has no final answer yet.", invoke_without_command=True)
shards = typer.Typer(help="Write the shard sets that training streams.", invoke_without_command=True)
export = typer.Typer(help="Write the store's texts to a file.")


def _partition(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\d+/\d+", text):
        raise typer.BadParameter(f"{text!r} is not of the form I/N, such as 0/4")
    return text


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


@clean.callback()
def run_clean(
    context: typer.Context,
    store: StoreOption = DEFAULT_STORE,
    endpoint: Annotated[
        str | None, typer.Option(metavar="NAME", help="As endpoints.yaml names it; default: embedded, the rules.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="An endpoint without a name, together with --model.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model to ask; default: the endpoint's.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(metavar="VERSION", help="Of prompts/clean_report; default: v1.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many; default: all.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="End before more US dollars are spent; default: no end.")
    ] = None,
    concurrency: ConcurrencyOption = None,
    acknowledge_host: AcknowledgeOption = None,
    retry_rejected: Annotated[
        bool, typer.Option("--retry-rejected", help="Ask again about what was rejected.")
    ] = False,
    partition: Annotated[
        str | None,
        typer.Option(metavar="I/N", callback=_partition, help="Only part I (from 0) of N of the texts; default: all."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Processes that share the work and the endpoint's limits; default: 1."),
    ] = None,
    engine: EngineOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many calls, tokens, dollars and minutes it would take.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Clean every report that has no final answer yet."""
    if context.invoked_subcommand is not None:
        return
    from unix.data.cleaning.parts import PartsConfig, clean_in_parts

    options = given(
        store=store,
        endpoint=endpoint,
        base_url=base_url,
        model=model,
        prompt=prompt,
        limit=limit,
        budget_usd=budget_usd,
        concurrency=concurrency,
        acknowledge_host=tuple(acknowledge_host) if acknowledge_host else None,
        retry_rejected=retry_rejected,
        partition=tuple(map(int, partition.split("/"))) if partition else None,
        workers=workers,
        engine=engine,
        dry_run=dry_run,
    )
    present(clean_in_parts(PartsConfig.build(options)), json)


@clean.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="[PROMPT][@ENDPOINT[=MODEL]], such as v1 or v1@local=NAME.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other side, likewise.")],
    store: StoreOption = DEFAULT_STORE,
    sample: Annotated[int | None, typer.Option(min=1, metavar="N", help="Distinct texts; default: 100.")] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Of both sides' endpoints; default: their own.")
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="US dollars that each side may spend; default: no end.")
    ] = None,
    concurrency: ConcurrencyOption = None,
    acknowledge_host: AcknowledgeOption = None,
    show: Annotated[int, typer.Option(min=0, metavar="K", help="Print so many examples, report text included.")] = 0,
    examples: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            metavar="FILE",
            help="Write every difference here, as JSON lines, report text included; default: nowhere.",
        ),
    ] = None,
    json: JsonOption = None,
) -> None:
    """Compare two prompts or models over the same texts."""
    from unix.data.cleaning.compare import CompareConfig, compare

    options = given(
        store=store,
        a=a,
        b=b,
        sample=sample,
        base_url=base_url,
        budget_usd=budget_usd,
        concurrency=concurrency,
        acknowledge_host=tuple(acknowledge_host) if acknowledge_host else None,
    )
    summary, differences = compare(CompareConfig.build(options))
    present(summary, json)
    if examples is not None:
        lines = (_json_line(asdict(example)) for example in differences)
        write_atomically(examples, "".join(lines).encode())
    for example in differences[:show]:
        typer.echo(f"\n--- {example.report_sha256[:12]}: {example.why}\n{example.raw.strip()}")
        for name, answer in (("A", example.a), ("B", example.b)):
            typer.echo(f"{name}: {answer.get('status', 'missing')} {', '.join(answer.get('flags', ()))}")
            typer.echo(f"   findings: {answer.get('findings', '')}\n   impression: {answer.get('impression', '')}")


def endpoint(
    port: Annotated[
        int | None, typer.Option(metavar="P", help="On loopback; 0 picks a free one; default: 8765.")
    ] = None,
) -> None:
    """Serve the embedded rule cleaner as a chat endpoint."""
    from unix.data.cleaning.server import EndpointConfig, serve

    serve(EndpointConfig.build(given(port=port)), typer.echo)


def guard(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to read: CSV or Parquet.")],
    raw_column: Annotated[str, typer.Option(metavar="COLUMN", help="The column with the texts as written.")],
    clean_column: Annotated[str, typer.Option(metavar="COLUMN", help="The column with the cleaned texts.")],
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write: CSV or Parquet, by its suffix.")],
    removes_priors: Annotated[
        bool, typer.Option("--removes-priors", help="The cleaning was to remove references to earlier studies.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Judge pairs of raw and cleaned text.

    Adds the columns verdict (accepted, flagged or rejected) and flags.
    """
    from unix.data.cleaning.pairs import GuardFileConfig, guard_file

    options = given(file=file, raw_column=raw_column, clean_column=clean_column, out=out, removes_priors=removes_priors)
    present(guard_file(GuardFileConfig.build(options)), json)


def label(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file to read: CSV or Parquet.")],
    text_column: Annotated[str, typer.Option(metavar="COLUMN", help="The column with the texts.")],
    out: Annotated[str, typer.Option(metavar="FILE", help="The file to write: CSV or Parquet, by its suffix.")],
    workers: Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; default: 1.")] = None,
    engine: EngineOption = None,
    json: JsonOption = None,
) -> None:
    """Add CheXpert-14 labels to a table of texts.

    Adds 14 columns with 1, 0, -1 (uncertain) or nothing.
    """
    from unix.data.label_file import LabelFileConfig, label_file

    options = given(file=file, text_column=text_column, out=out, workers=workers, engine=engine)
    present(label_file(LabelFileConfig.build(options)), json)


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


def _json_line(value: dict[str, Any]) -> str:
    """A value as one line of JSON."""
    return dumps(value, ensure_ascii=False) + "\n"


def _names(groups: list[str] | None) -> tuple[str, ...] | None:
    """`["a,b", "c"]` as `("a", "b", "c")`; None where there is none."""
    return tuple(name for group in groups or () for name in group.split(",") if name) or None
