"""The job behind `unix clean`: every report without a final answer gets one, once, and every study its row."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

import polars as pl
from pydantic import Field, model_validator

from unix.config import Config
from unix.data.cleaning.endpoint import Endpoint, check_policy, load_endpoint
from unix.data.cleaning.journal import AnswerKey, Journal, Outcome
from unix.data.cleaning.prompt import CleanPrompt, check_frozen, load_prompt
from unix.data.cleaning.rows import outcomes_of, rows_of
from unix.data.cleaning.usage import Usage
from unix.data.sections import body_sections
from unix.errors import ConfigError, Interrupted
from unix.records import Rejection, Status
from unix.store import KEYS, SCHEMAS, Store

JOB = "clean"
EMPTY_REPORT = "empty_report"
NO_SECTION = "no_section"

_STUDY = ["source", "study_id", "report_sha256"]
_COUNTED = ["status", "flags"]
_CHARACTERS_PER_TOKEN = 4
_SECONDS_PER_ANSWER = 4.0
_SECONDS_PER_EMBEDDED_ANSWER = 0.005


class CleanConfig(Config):
    """What to clean, with which endpoint and prompt."""

    store: str
    endpoint: str = "embedded"
    base_url: str | None = None
    model: str | None = None
    prompt: str = "v1"
    limit: int | None = Field(default=None, ge=1)
    budget_usd: float | None = Field(default=None, ge=0)
    concurrency: int | None = Field(default=None, ge=1)
    acknowledge_host: tuple[str, ...] = ()
    retry_rejected: bool = False
    dry_run: bool = False
    partition: tuple[int, int] | None = None
    """(index, count): only the texts whose digest falls into this part, so that parts can run side by side."""
    only: frozenset[str] | None = None
    """Digests (`report_sha256`) of the only texts to clean; None: all."""

    @model_validator(mode="after")
    def _partition_exists(self) -> "CleanConfig":
        if self.partition is not None and not 0 <= self.partition[0] < self.partition[1]:
            raise ValueError(f"partition {self.partition[0]} of {self.partition[1]} does not exist")
        return self


class CleanSummary(Config):
    """What was done. `reports` = `accepted + flagged + rejected + failed`, in a dry run `reports` would be asked."""

    endpoint: str
    model: str
    prompt: str
    prompt_digest: str
    dry_run: bool = False
    studies: int
    """Studies in the store that are not withdrawn."""
    already_final: int
    """Of these, studies that had their final row."""
    reports: int
    """Studies that got a row now."""
    left: int = 0
    """Studies that still have none: beyond the limit or the budget."""
    accepted: int = 0
    flagged: int = 0
    rejected: int = 0
    failed: int = 0
    reasons: dict[str, int] = Field(default_factory=dict)
    """Reports per flag or cause of failure."""
    calls: int = 0
    """Reports asked for, the second tries after a rejection included; the estimate in a dry run."""
    second_tries: int = 0
    """Of the calls, those after a rejection, with the fault quoted back."""
    too_many_requests: int = 0
    """How often the endpoint answered 429."""
    replayed: int = 0
    """Texts whose answer interrupted runs had left in the journal."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_hit_share: float = 0.0
    """Of the prompt's tokens, those that the endpoint had in its cache."""
    cost_usd: float = 0.0
    seconds: float = 0.0
    reports_per_second: float = 0.0
    stopped: str = ""
    """Why it ended before the last report: `budget`, or ""."""


def clean(config: CleanConfig, endpoint: Endpoint | None = None) -> CleanSummary:
    """Clean every report of the store that has no final answer under this prompt, model and parameters.

    `endpoint` takes the place of the configuration's, for processes that do not have the file it is named in.

    Raises:
        ConfigError: the endpoint, the prompt or a setting is wrong.
        PolicyError: reports of a credentialed source would go to a public host; nothing was sent.
        EndpointError: the endpoint cannot be used; what it answered before is kept.
        Interrupted: stopped by a signal; what was answered is kept.
    """
    started = time.monotonic()
    store = Store(config.store)
    if store.version("studies") is None:
        raise ConfigError(
            f"{store.uri} holds no studies; read a source into it first (unix ingest), or name the store with --store"
        )
    endpoint = endpoint or load_endpoint(config.endpoint, config.base_url, config.model)
    prompt = load_prompt(config.prompt)
    check_frozen(store, prompt)
    studies = _studies(store, config)
    private_only = check_policy(endpoint, studies["source"].unique().to_list(), config.acknowledge_host)
    if config.dry_run:
        todo, base = _todo(store, studies, endpoint, prompt, config)
        answered = _answers_in_store(store, todo, _final_rows(store, endpoint, prompt, config.retry_rejected))
        return base.model_copy(update=_estimate(todo, answered, endpoint, prompt, config))

    # Only who asks needs the client, which takes a second to import.
    from unix.data.cleaning.ask import ask_all
    from unix.data.cleaning.client import ChatClient

    client = ChatClient(endpoint, prompt, config.concurrency, config.budget_usd, private_only)
    journal = Journal(store)
    try:
        left, others = journal.replay()
        folded = _fold(store, left)
        journal.discard()
        todo, base = _todo(store, studies, endpoint, prompt, config)
        final = _final_rows(store, endpoint, prompt, config.retry_rejected)
        known = _answers_in_store(store, todo, final) | _usable(others, endpoint, prompt, config.retry_rejected)
        outcomes = _unusable(todo, endpoint, prompt) | known
        recorded = [_own(folded, studies, endpoint, prompt, config)]

        def record(outcomes: Iterable[Outcome]) -> None:
            rows = rows_of(todo, outcomes)
            _record(store, rows)
            recorded.append(rows.select(_COUNTED))

        if outcomes:
            record(outcomes.values())
        asked = ask_all(client, _without_outcome(todo, outcomes), journal, record)
        rows = pl.concat(recorded)
        store.create("cleaned_reports", "rejections")
        if asked.fault is None:
            journal.discard()
    finally:
        journal.close()
    if asked.fault is not None:
        raise asked.fault
    if asked.interrupted:
        raise Interrupted(
            f"stopped after {rows.height} reports; they are kept, the same command continues with the rest"
        )
    counts = Counter(rows["status"].to_list())
    used, seconds = asked.used, time.monotonic() - started
    return base.model_copy(
        update={
            "already_final": base.already_final - recorded[0].height,
            "reports": rows.height,
            "left": base.left + recorded[0].height - rows.height,
            **{status.value: counts[status.value] for status in Status},
            "reasons": dict(Counter(flag for flags in rows["flags"].to_list() for flag in flags).most_common()),
            "calls": asked.calls,
            "second_tries": asked.retries,
            "too_many_requests": asked.num_refused,
            "replayed": len({outcome.key for outcome in left}),
            "prompt_tokens": used.prompt_tokens,
            "completion_tokens": used.completion_tokens,
            "cached_tokens": used.cached_tokens,
            "cache_hit_share": round(used.cached_tokens / max(1, used.prompt_tokens), 4),
            "cost_usd": round(used.cost_usd, 6),
            "seconds": round(seconds, 3),
            "reports_per_second": round(rows.height / seconds, 1),
            "stopped": asked.stopped,
        }
    )


def _todo(
    store: Store, studies: pl.DataFrame, endpoint: Endpoint, prompt: CleanPrompt, config: CleanConfig
) -> tuple[pl.DataFrame, CleanSummary]:
    """The studies without a final row, up to the limit, and the summary before anything is done."""
    final = _final_rows(store, endpoint, prompt, config.retry_rejected)
    open_studies = studies.join(final.select(_STUDY).collect(), on=_STUDY, how="anti")
    base = CleanSummary(
        endpoint=endpoint.name,
        model=endpoint.model,
        prompt=prompt.version,
        prompt_digest=prompt.digest,
        studies=studies.height,
        already_final=studies.height - open_studies.height,
        reports=0,
        left=open_studies.height,
    )
    return open_studies.head(config.limit) if config.limit is not None else open_studies, base


def _own(
    folded: pl.DataFrame, studies: pl.DataFrame, endpoint: Endpoint, prompt: CleanPrompt, config: CleanConfig
) -> pl.DataFrame:
    """Of the rows out of the journal, the final ones of this run's studies, prompt, model and parameters."""
    these = folded.lazy().join(studies.lazy().select(_STUDY), on=_STUDY, how="semi")
    return _final(these, endpoint, prompt, config.retry_rejected).select(_COUNTED).collect()


def _fold(store: Store, outcomes: Iterable[Outcome]) -> pl.DataFrame:
    """Put outcomes into the table, for every study with their text, and return the rows; a row that is newer stays."""
    by_key = {outcome.key: outcome for outcome in outcomes}
    if not by_key:
        return pl.DataFrame(schema=SCHEMAS["cleaned_reports"])
    digests = pl.LazyFrame({"report_sha256": [key.report_sha256 for key in by_key]}).unique()
    studies = store.scan("studies").filter(~pl.col("withdrawn")).select(_STUDY)
    rows = rows_of(studies.join(digests, on="report_sha256", how="semi").sort(_STUDY).collect(), by_key.values())
    key = list(KEYS["cleaned_reports"])
    written = store.scan("cleaned_reports").select(*key, written_at="created_at")
    newer = pl.col("written_at").is_null() | (pl.col("created_at") >= pl.col("written_at"))
    rows = rows.lazy().join(written, on=key, how="left", maintain_order="left").filter(newer).collect()
    rows = rows.drop("written_at")
    _record(store, rows)
    return rows


def _studies(store: Store, config: CleanConfig) -> pl.DataFrame:
    frame = store.scan("studies").filter(~pl.col("withdrawn"))
    if config.partition is not None:
        index, count = config.partition
        frame = frame.filter(pl.col("report_sha256").str.head(8).str.to_integer(base=16) % count == index)
    if config.only is not None:
        frame = frame.filter(pl.col("report_sha256").is_in(sorted(config.only)))
    columns = ("source", "study_id", "report_sha256", "report_raw", "findings_raw", "impression_raw")
    return frame.select(columns).sort("source", "study_id").collect()


def _final_rows(store: Store, endpoint: Endpoint, prompt: CleanPrompt, retry_rejected: bool) -> pl.LazyFrame:
    """The table's rows with a final answer by this prompt, model and parameters."""
    return _final(store.scan("cleaned_reports"), endpoint, prompt, retry_rejected)


def _final(rows: pl.LazyFrame, endpoint: Endpoint, prompt: CleanPrompt, retry_rejected: bool) -> pl.LazyFrame:
    return rows.filter(
        pl.col("prompt_digest") == prompt.digest,
        pl.col("model") == endpoint.model,
        pl.col("parameters_digest") == endpoint.parameters_digest,
        ~pl.col("status").is_in(_open_statuses(retry_rejected)),
    )


def _open_statuses(retry_rejected: bool) -> list[str]:
    return [Status.FAILED.value, Status.REJECTED.value] if retry_rejected else [Status.FAILED.value]


def _answers_in_store(store: Store, todo: pl.DataFrame, final: pl.LazyFrame) -> dict[str, Outcome]:
    """Final answers to texts that another study has too."""
    return outcomes_of(
        final.join(todo.lazy().select("report_sha256"), on="report_sha256", how="semi")
        .unique("report_sha256")
        .collect()
    )


def _usable(
    outcomes: Iterable[Outcome], endpoint: Endpoint, prompt: CleanPrompt, retry_rejected: bool
) -> dict[str, Outcome]:
    """Of outcomes, the final ones under this prompt, model and parameters."""
    shared = (prompt.digest, endpoint.model, endpoint.parameters_digest)
    return {
        outcome.key.report_sha256: outcome
        for outcome in outcomes
        if outcome.key == AnswerKey(outcome.key.report_sha256, *shared)
        and outcome.status.value not in _open_statuses(retry_rejected)
    }


def _unusable(todo: pl.DataFrame, endpoint: Endpoint, prompt: CleanPrompt) -> dict[str, Outcome]:
    """Rejections of texts that nothing can be cleaned out of; they are never asked about."""
    rejected: dict[str, Outcome] = {}
    suspects = todo.filter(_blank("findings_raw") & _blank("impression_raw"))
    for digest, report in suspects.select("report_sha256", "report_raw").unique("report_sha256").iter_rows():
        reason = _why_unusable(report)
        if reason is not None:
            key = AnswerKey(digest, prompt.digest, endpoint.model, endpoint.parameters_digest)
            rejected[digest] = Outcome(
                key, Status.REJECTED, (reason,), "", "", (), Usage(), time.time(), prompt.version, endpoint.name
            )
    return rejected


def _blank(column: str) -> pl.Expr:
    return pl.col(column).fill_null("").str.strip_chars() == ""


def _why_unusable(report: str) -> str | None:
    if not report.strip():
        return EMPTY_REPORT
    return None if body_sections(report) else NO_SECTION


def _without_outcome(todo: pl.DataFrame, outcomes: Mapping[str, Outcome]) -> list[str]:
    """The texts still to be asked about, each once, in the studies' order."""
    texts = todo.unique("report_sha256", keep="first", maintain_order=True)
    return texts.filter(~pl.col("report_sha256").is_in(list(outcomes)))["report_raw"].to_list()


def _record(store: Store, rows: pl.DataFrame) -> None:
    """Write rows, and make the studies' rejections what these rows say: a failure that was mended is none."""
    store.upsert("cleaned_reports", rows)
    rejections = list(_rejections(rows))
    store.reject(rejections)
    now = {(rejection.source, rejection.item, rejection.reason) for rejection in rejections}
    studies = rows.lazy().select("source", item="study_id")
    of_these = store.scan("rejections").filter(pl.col("job") == JOB).join(studies, on=["source", "item"], how="semi")
    written = of_these.select("job", "source", "item", "reason").collect()
    store.remove("rejections", written.filter([row[1:] not in now for row in written.iter_rows()]))


def _rejections(rows: pl.DataFrame) -> Iterator[Rejection]:
    chosen = rows.filter(pl.col("status").is_in([Status.REJECTED.value, Status.FAILED.value]))
    for source, study_id, status, flags in chosen.select("source", "study_id", "status", "flags").iter_rows():
        yield Rejection(JOB, source, study_id, status if status == Status.FAILED.value else flags[0], ", ".join(flags))


def _estimate(
    todo: pl.DataFrame, answered: Mapping[str, Outcome], endpoint: Endpoint, prompt: CleanPrompt, config: CleanConfig
) -> dict[str, object]:
    """What asking would take: four characters a token, an answer as long as the report, the prompt cached but once."""
    known = {**_unusable(todo, endpoint, prompt), **answered}
    texts = _without_outcome(todo, known)
    prefix = sum(len(message["content"]) for message in prompt.prefix) // _CHARACTERS_PER_TOKEN
    report = sum(map(len, texts)) // _CHARACTERS_PER_TOKEN
    prompt_tokens, cached = prefix * len(texts) + report, prefix * max(0, len(texts) - 1)
    price = endpoint.price
    in_flight = min(config.concurrency or endpoint.limits.concurrency, max(1, len(texts)))
    latency = _SECONDS_PER_EMBEDDED_ANSWER * in_flight if endpoint.embedded else _SECONDS_PER_ANSWER
    return {
        "dry_run": True,
        "reports": todo.height,
        "calls": len(texts),
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached,
        "completion_tokens": report,
        "cost_usd": round(price.cost(prompt_tokens, cached, report, datetime.now(UTC)), 4)
        if price is not None
        else 0.0,
        "seconds": round(len(texts) * latency / in_flight, 1),
    }
