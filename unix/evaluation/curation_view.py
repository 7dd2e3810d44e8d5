"""What the store and the shard sets say about the data's way: the funnel, the score of cleaning, and examples of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from unix.data.cleaning.score import ScoredReport
from unix.data.phantom.truth import read_truth
from unix.evaluation.page_inputs import CleaningExample, FunnelStep
from unix.manifest import read_manifest
from unix.records import RemovedSpan, Split, Status, Task, join_report
from unix.store import Store

_STUDY = ("source", "study_id")


def funnel(store: Store, shards: str, sets: Sequence[str]) -> tuple[FunnelStep, ...]:
    """Ingest, clean, splits and the named shard sets: what went in, what came out, and why the rest did not."""
    return (_ingested(store), _cleaned(store), *_split(store), *(_sharded(Path(shards) / name) for name in sets))


def scored_reports(store: Store, phantom: str) -> list[ScoredReport]:
    """The store's cleaned reports beside the ground truth of the phantom at `phantom`.

    A study of the truth without a cleaned report counts as rejected.
    """
    answers = (
        store.scan("cleaned_reports")
        .filter(pl.col("source") == "phantom")
        .select("study_id", "status", cleaned=pl.concat_str("findings", "impression", separator=" ", ignore_nulls=True))
    )
    rows = read_truth(phantom).lazy().join(answers, on="study_id", how="left").sort("study_id").collect()
    usable = {Status.ACCEPTED, Status.FLAGGED}
    return [
        ScoredReport(
            true_text=f"{row['findings']} {row['impression']}",
            noise=tuple(span["text"] for span in row["noise"]),
            cleaned_text=row["cleaned"] or "",
            accepted=row["status"] == Status.ACCEPTED,
            rejected=row["status"] not in usable,
        )
        for row in rows.iter_rows(named=True)
    ]


def cleaning_examples(store: Store, count: int) -> tuple[CleaningExample, ...]:
    """Reports whose cleaning shows most kinds of noise; of those that were not accepted at most a quarter."""
    reports = (
        store.scan("cleaned_reports")
        .join(store.scan("studies").select(*_STUDY, "report_raw", "report_sha256"), on=(*_STUDY, "report_sha256"))
        .with_columns(kinds=pl.col("removed").list.eval(pl.element().struct.field("category")).list.n_unique())
        .sort(pl.col("kinds"), pl.col("report_sha256"), descending=[True, False])
    )
    accepted = pl.col("status") == Status.ACCEPTED
    doubtful = reports.filter(~accepted).head(count // 4).collect()
    certain = reports.filter(accepted).unique("report_sha256", maintain_order=True).head(count - doubtful.height)
    return tuple(_example(row) for row in pl.concat([certain.collect(), doubtful]).iter_rows(named=True))


def _example(row: Mapping[str, object]) -> CleaningExample:
    removed: list[dict[str, str]] = row["removed"] or []  # pyright: ignore[reportAssignmentType]
    flags: list[str] = row["flags"] or []  # pyright: ignore[reportAssignmentType]
    return CleaningExample(
        study_id=str(row["study_id"]),
        raw=str(row["report_raw"]),
        cleaned=join_report(str(row["findings"] or ""), str(row["impression"] or "")),
        removed=tuple(RemovedSpan(span["text"], span["category"]) for span in removed),
        status=str(row["status"]),
        flags=tuple(flags),
    )


def _ingested(store: Store) -> FunnelStep:
    studies, images = (_height(store.scan(table).filter(~pl.col("withdrawn"))) for table in ("studies", "images"))
    reasons = _reasons(store, "ingest")
    kept = studies + images
    note = f"{studies:,} studies and {images:,} images in the store"
    return FunnelStep("ingest", "studies and images", kept + sum(reasons.values()), kept, reasons, note)


def _cleaned(store: Store) -> FunnelStep:
    statuses = dict(store.scan("cleaned_reports").group_by("status").len().sort("status").collect().iter_rows())
    flags = (
        store.scan("cleaned_reports")
        .filter(pl.col("status") != Status.ACCEPTED)
        .select(reason=pl.format("{}: {}", "status", pl.col("flags").list.join(", ").fill_null("")))
    )
    counted = flags.group_by("reason").len().sort("len", "reason", descending=[True, False]).collect()
    reasons = {str(reason).removesuffix(": "): int(count) for reason, count in counted.iter_rows()}
    kept = int(statuses.get(Status.ACCEPTED, 0))
    return FunnelStep("clean", "reports", sum(statuses.values()), kept, reasons)


def _split(store: Store) -> list[FunnelStep]:
    steps: list[FunnelStep] = []
    for task in Task:
        rows = store.scan("splits").filter(pl.col("task") == task).group_by("split").len().collect()
        counts = dict(rows.iter_rows())
        reasons = _reasons(store, f"splits-{task}")
        kept = sum(counts.values())
        steps.append(
            FunnelStep("splits", f"images for {task}", kept + sum(reasons.values()), kept, reasons, _parts(counts))
        )
    return steps


def _sharded(folder: Path) -> FunnelStep:
    manifest = read_manifest(folder)
    counts = {str(split): sum(shard.live for shard in manifest.split_shards(split)) for split in Split}
    return FunnelStep("shards", manifest.set, manifest.considered, manifest.live, manifest.excluded, _parts(counts))


def _parts(counts: Mapping[str, int]) -> str:
    return " · ".join(f"{split} {counts.get(split, 0):,}" for split in Split)


def _reasons(store: Store, job: str) -> dict[str, int]:
    """Reason -> how many items `job` refuses, the most frequent first."""
    rows = store.scan("rejections").filter(pl.col("job") == job).group_by("reason").len()
    return dict(rows.sort("len", "reason", descending=[True, False]).collect().iter_rows())


def _height(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())
