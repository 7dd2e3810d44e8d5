"""The job that labels what the store's reports say, raw and cleaned, and keeps the labels by text in `text_labels`.

Labelling 200,000 studies takes minutes, and a text's labels never change under one labeler: each text is labelled once.
"""

import hashlib
from collections.abc import Iterator
from functools import cache

import polars as pl

from unix.config import Config
from unix.data.engines import EngineName
from unix.data.label_many import label_reports
from unix.records import text_digest
from unix.resources import resource
from unix.store import LABELS_TYPE, Store

_TEXTS_PER_COMMIT = 20_000


class LabelTextsSummary(Config):
    """What was done; `texts = known + labelled`."""

    texts: int
    """Distinct raw reports and cleaned texts of the store."""
    known: int
    labelled: int


@cache
def labeler() -> str:
    """A short digest of the labeler's code and lexicon; labels of another labeler do not count."""
    folder = resource("data")
    digest = hashlib.sha256()
    for file in [
        folder / "labels.py",
        folder / "label_lexicon.py",
        folder / "phrases.py",
        *sorted((folder / "lexicon").glob("*.yaml")),
    ]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def report_text(findings: str | None, impression: str | None, whole: str | None = None) -> str:
    """The text of a report that is labelled: findings and impression, or where there is neither, the `whole`."""
    return f"{findings or ''}\n\n{impression or ''}".strip() or (whole or "").strip()


def cleaned_text_digests(cleaned: pl.DataFrame) -> pl.Series:
    """`text_sha256` of every cleaned report; null where it has no text."""
    texts = (report_text(*row) for row in cleaned.select("findings", "impression").iter_rows())
    return pl.Series("cleaned_text", [text_digest(text) if text else None for text in texts], dtype=pl.String)


def label_texts(store: Store, engine: EngineName = "local", workers: int | None = 1) -> LabelTextsSummary:
    """Label every text that has no labels yet."""
    known = set(
        store.scan("text_labels").filter(pl.col("labeler") == labeler()).select("text_sha256").collect().to_series()
    )
    present: set[str] = set()
    todo: dict[str, str] = {}
    for digest, text in _texts(store):
        if digest in known:
            present.add(digest)
        else:
            todo[digest] = text
    digests = list(todo)
    for start in range(0, len(digests), _TEXTS_PER_COMMIT):
        part = digests[start : start + _TEXTS_PER_COMMIT]
        rows = label_reports([todo[digest] for digest in part], engine, workers)
        frame = pl.DataFrame({"text_sha256": part, "labels": pl.Series(rows, dtype=LABELS_TYPE)})
        store.upsert("text_labels", frame.with_columns(labeler=pl.lit(labeler())))
    return LabelTextsSummary(texts=len(present) + len(todo), known=len(present), labelled=len(todo))


def _texts(store: Store) -> Iterator[tuple[str, str]]:
    """Digest and text of all there is to label: a raw report's digest is that of the whole report, `report_sha256`."""
    studies = store.scan("studies").filter(~pl.col("withdrawn").fill_null(False))
    raw = ("report_sha256", "findings_raw", "impression_raw", "report_raw")
    for digest, *parts in studies.select(raw).collect().iter_rows():
        yield digest, report_text(*parts)
    for parts in store.scan("cleaned_reports").select("findings", "impression").collect().iter_rows():
        if text := report_text(*parts):
            yield text_digest(text), text
