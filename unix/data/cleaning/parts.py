"""Cleaning in many processes, of this machine or of a Ray cluster: each part of the texts is one run of `clean`."""

import math
import time
from pathlib import Path

from pydantic import Field, model_validator

from unix.data.cleaning.endpoint import Endpoint, load_endpoint
from unix.data.cleaning.run import CleanConfig, CleanSummary, clean
from unix.data.engines import EngineName, spread
from unix.errors import EndpointError
from unix.progress import Progress
from unix.records import Status

REPORTS_PER_PART = 1000


class PartsConfig(CleanConfig):
    """What to clean, and where. What the parts leave in the store does not depend on `engine` and `workers`."""

    engine: EngineName = "local"
    workers: int | None = Field(default=None, ge=1)
    """Parts at a time; None: this process alone, or on Ray one per core of the cluster."""

    @model_validator(mode="after")
    def _can_be_spread(self) -> "PartsConfig":
        if self.spreads and (self.limit is not None or self.partition is not None):
            raise ValueError(
                "workers and engine=ray clean all that is left: neither limit nor partition goes with them"
            )
        return self

    @property
    def spreads(self) -> bool:
        """Whether other processes do the work."""
        return self.engine == "ray" or self.workers is not None

    def part(self, index: int, count: int) -> CleanConfig:
        """One part, with its share of the budget and, where it is known who else asks, of the requests in flight."""
        whole = CleanConfig.model_validate(self.model_dump(exclude={"engine", "workers"}))
        return whole.model_copy(
            update={
                "store": self.store if "://" in self.store else str(Path(self.store).resolve()),
                "partition": (index, count),
                "budget_usd": None if self.budget_usd is None else self.budget_usd / count,
                "concurrency": None if self.concurrency is None else _share(self.concurrency, self.workers),
            }
        )


def clean_in_parts(config: PartsConfig) -> CleanSummary:
    """As `clean`, by as many processes as the configuration says; a part that is lost with its node is done again.

    Raises:
        As `clean`; EndpointError where a process died.
    """
    endpoint = load_endpoint(config.endpoint, config.base_url, config.model)
    if config.dry_run or not config.spreads:
        return clean(config, endpoint)
    started = time.monotonic()
    left = clean(config.model_copy(update={"dry_run": True}), endpoint).reports
    count = max(1, math.ceil(left / REPORTS_PER_PART))
    parts = [(config.part(index, count), _shared(endpoint, config.workers)) for index in range(count)]
    summaries: list[CleanSummary] = []
    with Progress("clean: parts", count) as progress:
        for summary in spread(config.engine, clean, parts, config.workers, "cleaning reports", EndpointError):
            summaries.append(summary)
            progress.advance()
    return _together(summaries, time.monotonic() - started)


def _shared(endpoint: Endpoint, workers: int | None) -> Endpoint:
    """The endpoint with one worker's share of its limits. An unknown number of workers shares nothing."""
    limits = endpoint.limits
    shares = {
        name: None if limit is None else _share(limit, workers)
        for name, limit in (
            ("concurrency", limits.concurrency),
            ("requests_per_minute", limits.requests_per_minute),
            ("tokens_per_minute", limits.tokens_per_minute),
        )
    }
    return endpoint.model_copy(update={"limits": limits.model_copy(update=shares)})


def _share(limit: int, workers: int | None) -> int:
    return max(1, limit // (workers or 1))


def _together(parts: list[CleanSummary], seconds: float) -> CleanSummary:
    """The sums; shares and rates anew."""

    def total(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    reasons: dict[str, int] = {}
    for part in parts:
        for reason, number in part.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + number
    counts = (
        *("studies", "already_final", "reports", "left", "calls", "second_tries", "too_many_requests", "replayed"),
        *("prompt_tokens", "completion_tokens", "cached_tokens", *(status.value for status in Status)),
    )
    return parts[0].model_copy(
        update={
            **{name: total(name) for name in counts},
            "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
            "cost_usd": round(sum(part.cost_usd for part in parts), 6),
            "cache_hit_share": round(total("cached_tokens") / max(1, total("prompt_tokens")), 4),
            "seconds": round(seconds, 3),
            "reports_per_second": round(total("reports") / seconds, 1),
            "stopped": "budget" if any(part.stopped for part in parts) else "",
        }
    )
