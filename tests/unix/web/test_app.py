"""The pages over a phantom store: what they show, find, decide and take back."""

import csv
import io
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from tests.unix.web.conftest import ORIGIN, SLOPPY, Reader
from unix.data.approved import report_outcomes
from unix.store import Store
from unix.web.app import ServeConfig, create_app


def test_overview_counts_balance_and_lead_to_their_studies(reader: Reader) -> None:
    page = reader.get("/", model=SLOPPY)
    rows = reader.library.view(model=SLOPPY).rows
    rejected = rows.filter(status="rejected").height
    assert 0 < rejected < rows.height == 60
    assert f'href="/studies?model={SLOPPY}&amp;prompt=v1&amp;status=rejected"' in page or "status=rejected" in page
    listed = reader.get("/studies", model=SLOPPY, status="rejected")
    assert f"<strong>{rejected}</strong> of 60 studies" in listed
    assert "Phantom data." in page


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with TestClient(create_app(ServeConfig(store=str(tmp_path / "none"))), base_url=ORIGIN) as client:
        assert "unix ingest" in client.get("/").text
        assert "unix ingest" in client.get("/studies").text
        assert client.get("/sample?sample=1:5").status_code == 200
        assert "Phantom data." not in client.get("/").text


def test_one_study_shows_diff_guards_labels_and_image(reader: Reader) -> None:
    study = next(one for one in reader.studies(status="rejected") if "laterality_changed" in reader.row(one)["flags"])
    page = reader.get("/study", study=study, model=SLOPPY)
    assert "<ins>" in page and '<del class="noise-' in page and "<mark>" in page
    assert "A side (left, right, both) was changed." in page
    image = page.partition('src="/image/')[2].partition('"')[0].replace("&amp;", "&")
    picture = reader.client.get(f"/image/{image}")
    assert picture.headers["content-type"] == "image/jpeg" and picture.content[:2] == b"\xff\xd8"
    both = reader.get("/versions", study=study, model=SLOPPY)
    assert "rules-3" in both and SLOPPY in both


def test_a_decision_lands_in_reviews_and_in_what_training_sees(reader: Reader, store: Store) -> None:
    study = reader.studies(status="flagged")[0]
    answer = reader.post("/decide", study=study, decision="approve", note="fine", query=f"model={SLOPPY}")
    assert answer.status_code == 303 and answer.headers["location"].startswith("/study?")
    review = store.read("reviews").row(0, named=True)
    assert (review["study_id"], review["decision"], review["reviewer"], review["note"], review["model"]) == (
        study[8:],
        "approve",
        "Ada",
        "fine",
        SLOPPY,
    )
    outcome = report_outcomes(store, "v1", SLOPPY).filter(pl.col("study_id") == study[8:]).collect()
    assert outcome["outcome"].item() == "approved"
    assert reader.row(study)["outcome"] == "approved"
    assert "Undo approval" in reader.get("/study", study=study, model=SLOPPY)
    assert reader.post("/undo", back="//elsewhere.example").headers["location"] == "/studies"
    assert store.read("reviews").is_empty()
    assert reader.row(study)["decision"] is None


def test_a_rejected_cleaning_cannot_be_approved(reader: Reader, store: Store) -> None:
    study = reader.studies(status="rejected")[0]
    answer = reader.post("/decide", study=study, decision="approve", query=f"model={SLOPPY}")
    assert answer.status_code == 400 and "cannot be approved" in answer.text
    assert store.read("reviews").is_empty()


def test_an_edit_is_judged_before_it_is_saved(reader: Reader, store: Store) -> None:
    study = reader.studies(status="rejected")[0]
    fields = {"study": study, "decision": "edit", "query": f"model={SLOPPY}", "impression": ""}
    answer = reader.post("/decide", findings="There is a giant tumour.", **fields)
    assert answer.status_code == 409 and "The guards would reject this text" in answer.text
    assert "There is a giant tumour." in answer.text
    assert store.read("reviews").is_empty()
    live = reader.post("/guards", findings="There is a giant tumour.", **fields)
    assert "added content" in live.text and "<mark>There is a giant tumour.</mark>" in live.text
    assert (
        reader.post("/decide", findings="There is a giant tumour.", despite_guards="yes", **fields).status_code == 303
    )
    assert store.read("reviews")["findings"].to_list() == ["There is a giant tumour."]
    assert "As edited" in reader.get("/study", study=study, model=SLOPPY)


def test_undo_brings_back_the_decision_before(reader: Reader) -> None:
    study = reader.studies(status="flagged")[0]
    for decision in ("approve", "reject"):
        reader.post("/decide", study=study, decision=decision, query=f"model={SLOPPY}")
    reader.post("/undo")
    assert reader.row(study)["decision"] == "approve"


def test_bulk_asks_first_and_is_undone_whole(reader: Reader, store: Store) -> None:
    query = f"model={SLOPPY}&status=flagged"
    count = len(reader.studies(status="flagged"))
    assert f"Approve {count} studies?" in reader.get("/bulk", decision="approve", model=SLOPPY, status="flagged")
    assert reader.post("/bulk", decision="approve", query=query, count=str(count + 1)).status_code == 400
    assert store.read("reviews").is_empty()
    assert reader.post("/bulk", decision="approve", query=query, count=str(count)).status_code == 303
    assert len(reader.studies(decision="approve")) == count
    reader.post("/undo")
    assert store.read("reviews").is_empty()


def test_undo_leaves_the_decisions_of_others(reader: Reader, client: TestClient, store: Store) -> None:
    first, second, *_ = reader.studies(status="flagged")
    reader.post("/decide", study=first, decision="approve", query=f"model={SLOPPY}")
    reader.post("/reviewer", reviewer="Grace")
    grace = Reader(client)
    grace.post("/decide", study=second, decision="reject", query=f"model={SLOPPY}")
    grace.post("/undo")
    grace.post("/undo")
    assert store.read("reviews").select("reviewer", "study_id").rows() == [("Ada", first[8:])]


def test_two_reviewers_at_once_lose_nothing(reader: Reader, client: TestClient, store: Store) -> None:
    studies = [*reader.studies(status="flagged"), *reader.studies(status="accepted")][:12]

    def decide(part: list[str]) -> None:
        for study in part:
            assert reader.post("/decide", study=study, decision="reject", query=f"model={SLOPPY}").status_code == 303

    threads = [threading.Thread(target=decide, args=(studies[start::2],)) for start in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reviews = store.read("reviews")
    assert sorted(reviews["study_id"]) == sorted(study[8:] for study in studies)
    assert reviews["created_at"].n_unique() == len(studies)


def test_search_sort_and_pages(reader: Reader) -> None:
    rows = reader.library.view().rows
    word = "effusion"
    wanted = rows.filter(pl.col("report_raw").str.to_lowercase().str.contains(word)).height
    assert f"<strong>{wanted}</strong> of 60" in reader.get("/studies", q=word.upper())
    assert "No study fits" in reader.get("/studies", q="zebra")
    one = rows["study_id"][7]
    assert "<strong>1</strong> of 60" in reader.get("/studies", q=one)
    longest = rows.sort("raw_words", descending=True)["study_id"][0]
    page = reader.get("/studies", sort="raw_words", order="down", size="1")
    assert longest in page and "Page 1 of 60" in page
    part = reader.client.get("/studies?q=zebra", headers={"hx-request": "true", "hx-target": "results"}).text
    assert "No study fits" in part and "<html" not in part


@pytest.mark.parametrize(
    "query",
    [
        "status=flagged",
        "flag=added_content",
        "split=train",
        "task=generation",
        "source=phantom",
        "view=PA",
        "label=raw:Edema",
        "label=clean:Edema",
        "noise=technique",
        "words=60-80",
        "words=clean:10-40",
        "review=none",
        "outcome=cleaning_rejected",
    ],
)
def test_every_filter_narrows(reader: Reader, query: str) -> None:
    name, _, value = query.partition("=")
    page = reader.get("/studies", model=SLOPPY, **{name: value})
    count = int(page.partition("<p><strong>")[2].partition("<")[0])
    assert 0 < count < 60 or query in ("source=phantom", "review=none", "task=generation")
    assert f"{name}={value}".replace(":", "%3A") in page


def test_exports_hold_the_filter(reader: Reader) -> None:
    answer = reader.client.get(f"/studies.csv?model={SLOPPY}&status=rejected")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert sorted(f"phantom/{row['study_id']}" for row in rows) == sorted(reader.studies(status="rejected"))
    assert {row["model"] for row in rows} == {SLOPPY} and rows[0]["flags"].startswith("[")
    table = pl.read_parquet(reader.client.get(f"/studies.parquet?model={SLOPPY}&status=rejected").content)
    assert table["study_id"].to_list() == [row["study_id"] for row in rows]
    assert "attachment" in answer.headers["content-disposition"]
    assert reader.client.get("/studies.exe").status_code == 404


def test_a_sample_is_reviewed_and_estimated(reader: Reader) -> None:
    page = reader.client.get(f"/sample?n=10&seed=3&stratify=status&model={SLOPPY}")
    assert "not known yet" in page.text and page.url.query.endswith(b"sample=3%3A10%3Astatus")
    query = page.url.query.decode()
    study = reader.client.get(f"/sample?{query}").text.partition("Start reviewing")[0].rpartition("study=phantom/")[2]
    assert reader.post("/decide", study=f"phantom/{study[:8]}", decision="reject", query=query).status_code == 303
    after = reader.client.get(f"/sample?{query}").text
    assert "1 errors in 1 reviewed of 10" in after and "Go on reviewing" in after


def test_rejected_studies_are_cleaned_again_in_the_background(reader: Reader, store: Store) -> None:
    rejected = reader.studies(status="rejected")
    query = f"model={SLOPPY}&status=rejected"
    assert f"Clean {len(rejected)} studies again" in reader.get("/reclean", model=SLOPPY, status="rejected")
    refused = reader.post("/reclean", query=query, prompt_version="v9", endpoint="embedded")
    assert refused.status_code == 400 and "no cleaning prompt" in refused.text
    assert reader.post("/reclean", query=query, prompt_version="v2", endpoint="embedded").status_code == 303
    reader.client.app.state.jobs.finish()
    assert "done" in reader.get("/jobs")
    again = store.read("cleaned_reports").filter(prompt_version="v2")
    assert sorted(f"phantom/{study}" for study in again["study_id"]) == sorted(rejected)
    assert ("v2", "rules-3") in reader.library.cleanings


def test_credentialed_reports_are_not_sent_to_a_public_host(store: Store) -> None:
    frame = store.read("studies").with_columns(source=pl.lit("mimic-cxr"))
    store.replace("studies", frame)
    store.replace("cleaned_reports", store.read("cleaned_reports").with_columns(source=pl.lit("mimic-cxr")))
    with TestClient(create_app(ServeConfig(store=store.uri)), base_url=ORIGIN) as client:
        answer = Reader(client).post(
            "/reclean",
            query="",
            prompt_version="v1",
            endpoint="embedded",
            base_url="http://203.0.113.7/v1",
            model_name="any",
        )
        assert answer.status_code == 403 and "PhysioNet" in answer.text
        assert "Phantom data." not in client.get("/").text


def test_commits_from_elsewhere_appear(store: Store) -> None:
    config = ServeConfig(store=store.uri, refresh_seconds=0.05)
    with TestClient(create_app(config), base_url=ORIGIN) as client:
        reader = Reader(client)
        other = store.read("cleaned_reports").with_columns(model=pl.lit("another"))
        store.upsert("cleaned_reports", other)
        deadline = time.monotonic() + 30
        while ("v1", "another") not in reader.library.cleanings and time.monotonic() < deadline:
            reader.get("/jobs")
        assert "another" in reader.get("/")


def test_a_bad_address_is_explained(reader: Reader) -> None:
    for path in ("/studies?page=x", "/studies?label=raw:Nonsense", "/sample?sample=no", "/studies?words=a-b"):
        answer = reader.client.get(path)
        assert answer.status_code == 400 and "This cannot be done" in answer.text
    assert reader.client.get("/study?study=phantom/1").status_code == 404
    assert reader.client.get("/nothing").status_code == 404
