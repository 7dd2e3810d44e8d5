"""Every text is labelled once, raw reports under their own digest."""

from pathlib import Path

import polars as pl
import pytest

from unix.data.ingest import IngestConfig, ingest
from unix.data.labels import label_report
from unix.data.text_labels import cleaned_text_digests, label_texts, labeler, report_text
from unix.records import text_digest
from unix.store import Store


@pytest.fixture
def store(mimic_folder, tmp_path: Path) -> Store:
    report = " FINAL REPORT\n\n FINDINGS:  There is a left pleural effusion.\n\n IMPRESSION:  Effusion.\n"
    mimic_folder.study("10000001", "50000001", ["a-1"], report)
    mimic_folder.study("10000002", "50000002", ["a-2"], report)
    mimic_folder.study("10000003", "50000003", ["a-3"], " The lungs are clear.\n")
    store = Store(tmp_path / "store")
    ingest(IngestConfig(store=store.uri, source="mimic-cxr", root=str(mimic_folder.write_tables())))
    return store


def test_texts_are_labelled_once(store: Store) -> None:
    first = label_texts(store)
    assert (first.texts, first.known, first.labelled) == (2, 0, 2)
    again = label_texts(store)
    assert (again.texts, again.known, again.labelled) == (2, 2, 0)
    rows = store.read("text_labels")
    raw = store.read("studies").select("report_sha256", "findings_raw", "impression_raw", "report_raw")
    for digest, *parts in raw.iter_rows():
        labels = rows.filter(text_sha256=digest)["labels"].item()
        assert labels == label_report(report_text(*parts))


def test_another_labeler_reads_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    label_texts(store)
    monkeypatch.setattr("unix.data.text_labels.labeler", lambda: "another")
    assert label_texts(store).labelled == 2
    assert set(store.read("text_labels")["labeler"]) == {labeler(), "another"}


def test_a_report_without_sections_is_labelled_whole() -> None:
    assert report_text("", None, " whole ") == "whole"
    assert report_text("a", "b", "whole") == "a\n\nb"


def test_cleaned_texts_without_words_have_no_digest() -> None:
    frame = pl.DataFrame({"findings": ["a", None], "impression": ["b", ""]})
    assert cleaned_text_digests(frame).to_list() == [text_digest("a\n\nb"), None]
