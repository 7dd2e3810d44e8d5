"""Commands about report text: cleaning it, comparing cleanings, judging and labelling tables of text."""

import re
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present
from unix.cli.options import AcknowledgeOption, ConcurrencyOption, EngineOption
from unix.manifest import write_atomically

clean = typer.Typer(help="Clean every report that has no final answer yet.", invoke_without_command=True)


def _partition(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"\d+/\d+", text):
        raise typer.BadParameter(f"{text!r} is not of the form I/N, such as 0/4")
    return text


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


def _json_line(value: dict[str, Any]) -> str:
    """A value as one line of JSON."""
    return dumps(value, ensure_ascii=False) + "\n"
