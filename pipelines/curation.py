"""Flows from raw studies to shards. Each wraps one command; `curate` chains them."""

from typing import Any, Literal, cast

from prefect import flow

from pipelines.runtime import CommandSummary, partition_names
from pipelines.steps import (
    DATA_LANDED,
    DATASET_UPDATED,
    ENDPOINT_SLOT,
    HOUR,
    announce,
    publish_total,
    run,
    run_side_by_side,
)

Source = Literal["mimic-cxr", "iu-xray", "phantom"]
Engine = Literal["local", "ray"]

EMBEDDED = "embedded"
"""The endpoint that runs within the command."""


@flow(name="ingest", flow_run_name="ingest {source}")
def ingest(
    source: Source, root: str, store: str | None = None, settle: float | None = None, within: str = "landing"
) -> CommandSummary:
    """Read what is new or changed in a source into the store's tables.

    Args:
        source: what kind of folder it is.
        root: the folder.
        store: URI of the store; else $UNIX_STORE, else ./store.
        settle: seconds between two looks at the folder; what changes between them waits for the next run.
        within: `landing`, whose event starts `curate`; `curate` itself says otherwise.
    """
    summary = run("ingest", source=source, root=root, store=store, settle=settle, timeout=12 * HOUR)
    if summary.count("new", "changed", "withdrawn"):
        announce(DATA_LANDED, f"{within}.{source}", summary, source=source, root=root, store=store)
    return summary


@flow(name="clean-reports", flow_run_name="clean-reports")
def clean_reports(
    store: str | None = None,
    endpoint: str | None = None,
    base_url: str | None = None,
    model: str | None = None,
    prompt: str | None = None,
    limit: int | None = None,
    budget_usd: float | None = None,
    concurrency: int | None = None,
    acknowledge_host: list[str] | None = None,
    retry_rejected: bool = False,
    partitions: int | None = None,
    engine: Engine = "local",
) -> list[CommandSummary]:
    """Clean every report that has no final answer yet, in tasks of at most 2,000 reports.

    The embedded cleaner does them in one task: it is faster than another process begins, and keeps what it has done.

    Args:
        store: URI of the store; else $UNIX_STORE, else ./store.
        endpoint: name in endpoints.yaml; else the embedded rule cleaner.
        base_url: an OpenAI-compatible endpoint that has no name, with `model`.
        model: the model to ask there.
        prompt: version of the prompt.
        limit: at most so many reports, in one task.
        budget_usd: stop before this is spent; each task may spend its share of it.
        concurrency: requests in flight, of each task.
        acknowledge_host: public hosts that may see credentialed text.
        retry_rejected: ask again what was rejected.
        partitions: so many tasks side by side at least, each with the endpoint's own limits; else one after the other.
        engine: `local`, in processes of this machine, or `ray`, in one task that a Ray cluster does.
    """
    settings: dict[str, Any] = {
        **{"store": store, "endpoint": endpoint, "base_url": base_url, "model": model, "prompt": prompt},
        **{"concurrency": concurrency, "acknowledge_host": acknowledge_host, "retry_rejected": retry_rejected},
    }
    embedded = endpoint in (None, EMBEDDED) and base_url is None
    whole = limit is not None or engine == "ray" or (embedded and partitions is None)
    parts = ["0/1"]
    if not whole:
        dry: CommandSummary = cast(Any, run)("clean", dry_run=True, **settings, timeout=HOUR)
        parts = partition_names(dry.count("reports"), at_least=partitions or 1)
    share = None if budget_usd is None else budget_usd / len(parts)
    settings |= {"budget_usd": share, "engine": "ray" if engine == "ray" else None, "limit": limit}
    summaries = run_side_by_side(
        "clean",
        [{**settings, "partition": None if whole else part} for part in parts],
        width=partitions or 1,
        slot=ENDPOINT_SLOT,
        timeout=12 * HOUR,
    )
    publish_total("clean-reports", summaries)
    return summaries


@flow(name="build-splits", flow_run_name="build-splits")
def build_splits(store: str | None = None, prompt: str | None = None, model: str | None = None) -> CommandSummary:
    """Assign every usable image to train, validate or test, by subject.

    Args:
        store: URI of the store; else $UNIX_STORE, else ./store.
        prompt: whose cleaned text counts: prompt version; else that of the cleaning that answers the most studies.
        model: whose cleaned text counts: model name; else likewise.
    """
    return run("splits", store=store, prompt=prompt, model=model, unattended=True, timeout=2 * HOUR)


@flow(name="build-shards", flow_run_name="build-shards")
def build_shards(
    store: str | None = None,
    sets: list[str] | None = None,
    out: str | None = None,
    engine: Engine = "local",
    prompt: str | None = None,
    model: str | None = None,
) -> CommandSummary:
    """Write the shard sets that training streams.

    Args:
        store: URI of the store; else $UNIX_STORE, else ./store.
        sets: such as understanding-384; else the job's own choice.
        out: folder of the sets; else the store's `shards/`.
        engine: `local`, in processes of this machine, or `ray`.
        prompt: whose cleaned text counts: prompt version; else that of the cleaning that answers the most studies.
        model: whose cleaned text counts: model name; else likewise.
    """
    summary = run(
        "shards",
        store=store,
        sets=sets,
        out=out,
        engine=engine,
        prompt=prompt,
        model=model,
        unattended=True,
        timeout=48 * HOUR,
    )
    if summary.values["changed"]:
        announce_update(summary, run("drift", store=store, shards=out, timeout=2 * HOUR), store)
    return summary


def announce_update(shards: CommandSummary, drift: CommandSummary, store: str | None) -> None:
    """Emit `unix.dataset.updated`: the counts, what changed against the last releases, and the releases' digests."""
    both = CommandSummary("shards", shards.seconds, {**shards.values, **drift.values})
    releases = {f"releases.{name}": each["release"] for name, each in shards.values["sets"].items()}
    announce(DATASET_UPDATED, "shards", both, shards=shards.values["out"], store=store, **releases)


@flow(name="curate", flow_run_name="curate {source}")
def curate(
    source: Source,
    root: str,
    store: str | None = None,
    endpoint: str | None = None,
    sets: list[str] | None = None,
    out: str | None = None,
    partitions: int | None = None,
    settle: float | None = None,
    engine: Engine = "local",
    prompt: str | None = None,
    model: str | None = None,
) -> CommandSummary:
    """Ingest, clean, split and shard what is new in a source.

    Splits and shards use the cleaning that just ran, so a changed prompt or model takes over with all its studies.

    Args:
        source: what kind of folder it is.
        root: the folder.
        store: URI of the store; else $UNIX_STORE, else ./store.
        endpoint: name in endpoints.yaml; else the embedded rule cleaner.
        sets: shard sets; else the job's own choice.
        out: folder of the shard sets; else the store's `shards/`.
        partitions: tasks that clean side by side.
        settle: seconds between two looks at the folder; what changes between them waits for the next run.
        engine: `local`, in processes of this machine, or `ray`.
        prompt: version of the prompt; else the newest.
        model: the model to ask at the endpoint; else the endpoint's own.
    """
    ingest(source, root, store, settle, within="source")
    cleaned = clean_reports(store, endpoint, model=model, prompt=prompt, partitions=partitions, engine=engine)[0].values
    build_splits(store, cleaned["prompt"], cleaned["model"])
    return build_shards(store, sets, out, engine, cleaned["prompt"], cleaned["model"])
