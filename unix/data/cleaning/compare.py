"""The job behind `unix clean compare`: two prompts or models over the same texts, side by side.

A variant is written `[PROMPT][@ENDPOINT[=MODEL]]`: `v1`, `v2@deepseek`, `@local=some-model`. Both sides clean the same
sample through the ordinary job, so what has been answered is not paid for again and every answer counts later.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl
from pydantic import Field

from unix.config import Config
from unix.data.cleaning.endpoint import EMBEDDED, load_endpoint
from unix.data.cleaning.prompt import load_prompt
from unix.data.cleaning.run import CleanConfig, clean
from unix.data.cleaning.score import words
from unix.data.labels import label_report
from unix.errors import ConfigError
from unix.records import CHEXPERT_14, Status, join_report
from unix.store import Store

_VARIANT = re.compile(r"(?P<prompt>[A-Za-z0-9]*)(?:@(?P<endpoint>[^=]*)(?:=(?P<model>.+))?)?")
_USABLE = (Status.ACCEPTED.value, Status.FLAGGED.value)


class CompareConfig(Config):
    """What to compare over how many texts."""

    store: str
    a: str
    b: str
    base_url: str | None = None
    """Of both variants' endpoints."""
    sample: int = Field(default=100, ge=1)
    """Distinct texts, drawn by their digests: every comparison of one store draws the same."""
    budget_usd: float | None = Field(default=None, ge=0)
    """What each side may cost now."""
    concurrency: int | None = Field(default=None, ge=1)
    acknowledge_host: tuple[str, ...] = ()


class Side(Config):
    """One variant's answers. Tokens and cost are those of all its attempts, whenever they were made."""

    prompt: str
    endpoint: str
    model: str
    accepted: int
    flagged: int
    rejected: int
    failed: int
    missing: int
    """Texts without a row: the budget ended before them."""
    flags: dict[str, int]
    """Texts per flag."""
    mean_words: float
    """Of the usable answers."""
    mean_share_of_raw: float
    """Words of the usable answers to words of their raw reports."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    usd_per_thousand: float
    mean_latency_ms: float


class CompareSummary(Config):
    """How `b` differs from `a`; the shares are over the `both` texts that both made usable."""

    sample: int
    a: Side
    b: Side
    both: int
    same_text: float
    """Share with the same findings and impression, word for word."""
    word_agreement: float
    """Mean overlap of the two texts' words as multisets (Dice): 1 where only the order differs."""
    same_labels: float
    """Share on which all 14 CheXpert classes agree, uncertain as positive."""
    labels_gained: dict[str, int]
    """Texts per class that is positive in `b` alone."""
    labels_lost: dict[str, int]
    """Texts per class that is positive in `a` alone."""
    statuses: dict[str, int]
    """Texts per pair of statuses, `a`'s first."""


@dataclass(frozen=True, slots=True)
class Example:
    """One text and what the two sides made of it. Holds report text: for the person who asked, never for a log."""

    report_sha256: str
    why: str
    raw: str
    a: dict[str, Any]
    b: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    findings: str
    impression: str
    flags: tuple[str, ...]

    @property
    def text(self) -> str:
        return join_report(self.findings, self.impression)

    @property
    def positive(self) -> frozenset[str]:
        labels = label_report(f"{self.findings}\n\n{self.impression}")
        return frozenset(name for name in CHEXPERT_14 if labels[name] in (1, -1))


def compare(config: CompareConfig) -> tuple[CompareSummary, list[Example]]:
    """Clean the sample with both variants and compare; the examples come with the greatest differences first.

    Raises:
        ConfigError: a variant is malformed, both are the same, or the store holds no studies.
        Whatever `clean` raises.
    """
    store = Store(config.store)
    variants = (_variant(config.a, config), _variant(config.b, config))
    keys = [_key(variant) for variant in variants]
    if keys[0] == keys[1]:
        raise ConfigError(f"{config.a!r} and {config.b!r} are the same prompt, model and parameters")
    raw = _sample(store, config.sample)
    for variant in variants:
        clean(variant.model_copy(update={"only": frozenset(raw)}))
    (side_a, a), (side_b, b) = (_side(store, key, raw) for key in keys)
    both = [text for text in raw if _usable(a, text) and _usable(b, text)]
    agreement = {text: _dice(words(a[text].text), words(b[text].text)) for text in both}
    gained = {text: b[text].positive - a[text].positive for text in both}
    lost = {text: a[text].positive - b[text].positive for text in both}
    share = 1 / max(1, len(both))
    summary = CompareSummary(
        sample=len(raw),
        a=side_a,
        b=side_b,
        both=len(both),
        same_text=round(sum(a[text].text == b[text].text for text in both) * share, 4),
        word_agreement=round(sum(agreement.values()) * share, 4),
        same_labels=round(sum(not gained[text] and not lost[text] for text in both) * share, 4),
        labels_gained=dict(Counter(name for names in gained.values() for name in sorted(names)).most_common()),
        labels_lost=dict(Counter(name for names in lost.values() for name in sorted(names)).most_common()),
        statuses=dict(Counter(f"{_status(a, text)} -> {_status(b, text)}" for text in raw).most_common()),
    )
    differing = [text for text in raw if text not in agreement or a[text].text != b[text].text]
    differing.sort(key=lambda text: (-len(gained.get(text, ())) - len(lost.get(text, ())), agreement.get(text, 0.0)))
    examples = [_example(text, raw[text], a.get(text), b.get(text), gained, lost) for text in differing]
    return summary, examples


def _variant(text: str, config: CompareConfig) -> CleanConfig:
    match = _VARIANT.fullmatch(text)
    if match is None or not text:
        raise ConfigError(f"variant {text!r} is not of the form [PROMPT][@ENDPOINT[=MODEL]], such as v2@local=a-model")
    return CleanConfig(
        store=config.store,
        prompt=match["prompt"] or "v1",
        endpoint=match["endpoint"] or EMBEDDED,
        model=match["model"],
        base_url=config.base_url,
        budget_usd=config.budget_usd,
        concurrency=config.concurrency,
        acknowledge_host=config.acknowledge_host,
    )


def _key(variant: CleanConfig) -> dict[str, str]:
    """What the variant's rows have in common."""
    endpoint = load_endpoint(variant.endpoint, variant.base_url, variant.model)
    return {
        "prompt_digest": load_prompt(variant.prompt).digest,
        "model": endpoint.model,
        "parameters_digest": endpoint.parameters_digest,
    }


def _sample(store: Store, count: int) -> dict[str, str]:
    """Raw reports by digest; texts without a word are left out."""
    texts = (
        store.scan("studies")
        .filter(~pl.col("withdrawn"), pl.col("report_raw").str.strip_chars() != "")
        .select("report_sha256", "report_raw")
        .unique("report_sha256")
        .sort("report_sha256")
        .head(count)
        .collect()
    )
    if texts.is_empty():
        raise ConfigError(f"{store.uri} holds no reports to compare on; read a source into it first (unix ingest)")
    return dict(texts.iter_rows())


def _side(store: Store, key: dict[str, str], raw: Mapping[str, str]) -> tuple[Side, dict[str, _Answer]]:
    """A variant's figures over the sample, and its answers by digest."""
    rows = (
        store.scan("cleaned_reports")
        .filter(*(pl.col(name) == value for name, value in key.items()), pl.col("report_sha256").is_in(list(raw)))
        .collect()
    )
    answers = {
        row["report_sha256"]: _Answer(row["status"], row["findings"], row["impression"], tuple(row["flags"]))
        for row in rows.iter_rows(named=True)
    }
    usable = {text: words(answer.text).total() for text, answer in answers.items() if answer.status in _USABLE}
    statuses = Counter(answer.status for answer in answers.values())
    cost = float(rows["cost_usd"].sum())
    asked = rows.filter(pl.col("attempts") > 0)
    side = Side(
        prompt=_only(rows, "prompt_version"),
        endpoint=_only(rows, "endpoint"),
        model=key["model"],
        **{status.value: statuses[status.value] for status in Status},
        missing=len(raw) - len(answers),
        flags=dict(Counter(flag for answer in answers.values() for flag in answer.flags).most_common()),
        mean_words=round(sum(usable.values()) / max(1, len(usable)), 2),
        mean_share_of_raw=round(
            sum(count / max(1, words(raw[text]).total()) for text, count in usable.items()) / max(1, len(usable)), 4
        ),
        prompt_tokens=int(rows["prompt_tokens"].sum()),
        completion_tokens=int(rows["completion_tokens"].sum()),
        cost_usd=round(cost, 6),
        usd_per_thousand=round(1e3 * cost / max(1, len(answers)), 4),
        mean_latency_ms=round(float(asked["latency_ms"].sum()) / max(1, asked.height), 1),
    )
    return side, answers


def _only(rows: pl.DataFrame, column: str) -> str:
    return ", ".join(rows[column].unique().sort().to_list())


def _usable(answers: Mapping[str, _Answer], text: str) -> bool:
    return _status(answers, text) in _USABLE


def _status(answers: Mapping[str, _Answer], text: str) -> str:
    return answers[text].status if text in answers else "missing"


def _dice(a: Counter[str], b: Counter[str]) -> float:
    total = a.total() + b.total()
    return 2 * (a & b).total() / total if total else 1.0


def _example(
    digest: str,
    raw: str,
    a: _Answer | None,
    b: _Answer | None,
    gained: Mapping[str, frozenset[str]],
    lost: Mapping[str, frozenset[str]],
) -> Example:
    reasons = [f"gained {name}" for name in sorted(gained.get(digest, ()))]
    reasons += [f"lost {name}" for name in sorted(lost.get(digest, ()))]
    if digest not in gained:
        reasons.append("not usable on both sides")
    return Example(digest, ", ".join(reasons) or "wording", raw, asdict(a) if a else {}, asdict(b) if b else {})
