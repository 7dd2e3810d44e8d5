"""Which text a study contributes to training: its cleaned report as people decided about it.

A release pins one prompt version and one model. Under them a study's text is the latest review's edit; else its
cleaned report if that was accepted, or flagged and approved. A review that rejects means no text. Only reviews and
cleaned reports of the study's present report (`report_sha256`) count.
"""

from collections.abc import Mapping

import polars as pl

from unix.config import Config
from unix.errors import ConfigError
from unix.records import Status, Task
from unix.store import Store

APPROVED = "approved"
"""The outcome of a study that contributes text. Every other outcome names why there is none."""

_STUDY = ("source", "study_id", "report_sha256")


class PinnedCleaning(Config):
    """The one prompt version and model whose texts a release uses."""

    prompt_version: str
    model: str
    prompt_digests: tuple[str, ...]
    """Digests under which the version occurs; more than one means that the prompt was changed after its first use."""


def pin_cleaning(
    store: Store, prompt_version: str | None, model: str | None, unattended: bool = False
) -> PinnedCleaning:
    """The pair to use when a configuration leaves one or both open: the only one in the store.

    Where several fit and nobody is there to choose (`unattended`), it is the one with final answers for the most
    studies; of equals, the one that answered last. So neither a trial on some reports nor a cleaning that broke off
    takes over, while one that follows new data does.

    Raises:
        ConfigError: no cleaned report fits, or several pairs do and it is not `unattended`; the message lists them.
    """
    known = store.scan("cleaned_reports").select("prompt_version", "model", "prompt_digest").unique().collect()
    fitting = known.filter(
        pl.lit(prompt_version is None) | (pl.col("prompt_version") == pl.lit(prompt_version)),
        pl.lit(model is None) | (pl.col("model") == pl.lit(model)),
    )
    pairs = sorted(fitting.select("prompt_version", "model").unique().rows())
    if len(pairs) == 1 or (pairs and unattended):
        version, name = pairs[0] if len(pairs) == 1 else _widest(store, pairs)
        of_pair = fitting.filter(pl.col("prompt_version") == version, pl.col("model") == name)
        digests = tuple(sorted(of_pair["prompt_digest"].to_list()))
        return PinnedCleaning(prompt_version=version, model=name, prompt_digests=digests)
    present = sorted(known.select("prompt_version", "model").unique().rows())
    if not present:
        raise ConfigError(f"{store.uri} holds no cleaned reports: run `unix clean` first")
    listed = ", ".join(f"{version} by {name}" for version, name in present)
    wanted = f"prompt_version={prompt_version or 'any'}, model={model or 'any'}"
    problem = "several cleanings fit" if pairs else "no cleaned report fits"
    raise ConfigError(f"{problem} {wanted} in {store.uri}: set prompt_version and model to one of: {listed}")


def _widest(store: Store, pairs: list[tuple[str, str]]) -> tuple[str, str]:
    """Of several cleanings the one with final answers for the most present reports, then the latest one."""
    present = store.scan("studies").filter(~pl.col("withdrawn").fill_null(False)).select(*_STUDY)
    answers = (
        store.scan("cleaned_reports")
        .filter(pl.col("status") != Status.FAILED)
        .join(present, on=_STUDY, how="semi")
        .group_by("prompt_version", "model")
        .agg(studies=pl.struct(_STUDY).n_unique(), latest=pl.col("created_at").max())
        .collect()
    )
    order = {(row[0], row[1]): row[2:] for row in answers.iter_rows()}
    answered = [pair for pair in pairs if pair in order]
    return max(answered, key=lambda pair: (*order[pair], pair)) if answered else pairs[-1]


def report_outcomes(
    store: Store, prompt_version: str, model: str, versions: Mapping[str, int | None] | None = None
) -> pl.LazyFrame:
    """Every study that is not withdrawn, with what became of its report.

    Columns: source, study_id, report_sha256, prompt_version, model, findings, impression, outcome. `outcome` is
    `approved`, or one of `not_cleaned`, `cleaning_failed`, `cleaning_rejected`, `flagged_unreviewed` and
    `review_rejected`, where findings and impression are "". `versions` pins table versions.
    """
    pinned = versions or {}
    studies = store.scan("studies", pinned.get("studies")).filter(~pl.col("withdrawn").fill_null(False)).select(*_STUDY)
    pair = (pl.col("prompt_version") == prompt_version) & (pl.col("model") == model)
    # Among several parameter settings the latest final answer counts; a failure never hides an answer.
    cleaned = (
        store.scan("cleaned_reports", pinned.get("cleaned_reports"))
        .filter(pair)
        .sort(pl.col("status") != Status.FAILED, "created_at", "parameters_digest")
        .unique(subset=_STUDY, keep="last", maintain_order=True)
        .select(*_STUDY, "status", "findings", "impression")
    )
    reviews = (
        store.scan("reviews", pinned.get("reviews"))
        .filter(pair)
        .sort("created_at", maintain_order=True)
        .unique(subset=_STUDY, keep="last", maintain_order=True)
        .select(*_STUDY, "decision", edited_findings="findings", edited_impression="impression")
    )
    return (
        studies.join(cleaned, on=_STUDY, how="left")
        .join(reviews, on=_STUDY, how="left")
        .with_columns(outcome=outcome())
        .select(
            *_STUDY,
            prompt_version=pl.lit(prompt_version),
            model=pl.lit(model),
            findings=_text("findings"),
            impression=_text("impression"),
            outcome=pl.col("outcome"),
        )
    )


def outcome() -> pl.Expr:
    """What became of a report, from the columns `status` of its cleaning and `decision` of its latest review."""
    status, decision = pl.col("status"), pl.col("decision")
    return (
        pl.when(decision == "edit")
        .then(pl.lit(APPROVED))
        .when(decision == "reject")
        .then(pl.lit("review_rejected"))
        .when(status.is_null())
        .then(pl.lit("not_cleaned"))
        .when(status == Status.FAILED)
        .then(pl.lit("cleaning_failed"))
        .when(status == Status.REJECTED)
        .then(pl.lit("cleaning_rejected"))
        .when((status == Status.ACCEPTED) | (decision == "approve"))
        .then(pl.lit(APPROVED))
        .otherwise(pl.lit("flagged_unreviewed"))
    )


def unusable_text(task: Task) -> pl.Expr:
    """Why a study's text cannot serve `task`, null where it can; over the columns of `report_outcomes`.

    Understanding needs findings, since reports are its targets; generation needs anything to caption an image with.
    """
    findings, impression = pl.col("findings"), pl.col("impression")
    if task == Task.UNDERSTANDING:
        empty = pl.when(findings == "").then(pl.lit("no_findings"))
    else:
        empty = pl.when((findings == "") & (impression == "")).then(pl.lit("no_caption"))
    return pl.coalesce(pl.when(pl.col("outcome") != APPROVED).then(pl.col("outcome")), empty)


def _text(section: str) -> pl.Expr:
    chosen = pl.when(pl.col("decision") == "edit").then(pl.col(f"edited_{section}")).otherwise(pl.col(section))
    usable = pl.when(pl.col("outcome") == APPROVED).then(chosen.fill_null("").str.strip_chars()).otherwise(pl.lit(""))
    return usable
