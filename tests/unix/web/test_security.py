"""What the server refuses, what it escapes, and what it keeps out of its log."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient

from tests.unix.web.conftest import ORIGIN, SLOPPY, Reader
from unix.errors import ConfigError
from unix.records import text_digest
from unix.store import SCHEMAS, Store, now
from unix.web.app import ServeConfig, create_app

TOKEN = "a-token-of-some-length"
ATTACK = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'{{7*7}}"


@pytest.fixture
def guarded(store: Store) -> Iterator[TestClient]:
    """A server that listens beyond loopback."""
    config = ServeConfig(store=store.uri, host="0.0.0.0", token=TOKEN)
    with TestClient(create_app(config), base_url="http://audit.example") as client:
        yield client


def csrf(client: TestClient, path: str = "/login") -> str:
    found = re.search(r'name="csrf_token" value="(\w+)"', client.get(path).text)
    assert found is not None
    return found[1]


def test_beyond_loopback_needs_a_token(tmp_path: Path) -> None:
    for token in (None, "short"):
        with pytest.raises(ConfigError, match="token"):
            create_app(ServeConfig(store=str(tmp_path), host="0.0.0.0", token=token))


def test_the_token_never_shows_in_the_configuration() -> None:
    assert TOKEN not in repr(ServeConfig(store="store", token=TOKEN))


def test_pages_need_the_login(guarded: TestClient) -> None:
    for path in ("/", "/studies", "/studies.csv", "/image/x", "/sample", "/study?study=phantom/1"):
        answer = guarded.get(path, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert guarded.post("/decide", data={}).status_code == 401
    assert guarded.get("/jobs", headers={"hx-request": "true"}).status_code == 401


def test_a_wrong_token_is_refused(guarded: TestClient) -> None:
    for token in ("", "wrong", TOKEN + "x", TOKEN[:-1], "é"):
        answer = guarded.post("/login", data={"csrf_token": csrf(guarded), "token": token, "reviewer": "Eve"})
        assert answer.status_code == 403
    assert guarded.get("/studies", follow_redirects=False).status_code == 303


def test_the_token_opens_and_logging_out_closes(guarded: TestClient) -> None:
    fields = {"token": TOKEN, "reviewer": "Ada"}
    answer = guarded.post("/login", data={"csrf_token": csrf(guarded), **fields}, follow_redirects=False)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert guarded.get("/studies").status_code == 200
    guarded.post("/logout", data={"csrf_token": csrf(guarded, "/studies")})
    assert guarded.get("/studies", follow_redirects=False).status_code == 303


def test_a_forged_or_broken_session_is_none(guarded: TestClient) -> None:
    for value in ("W10.00", "nonsense", "a.b.c", "."):
        guarded.cookies.set("unix_session", value)
        assert guarded.get("/studies", follow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    "path", ["/decide", "/bulk", "/undo", "/reclean", "/labels", "/guards", "/reviewer", "/logout", "/login"]
)
def test_a_write_without_csrf_token_is_refused(reader: Reader, store: Store, path: str) -> None:
    study = reader.studies(status="flagged")[0]
    fields = {"study": study, "decision": "reject", "query": f"model={SLOPPY}", "count": "60"}
    for token in ({}, {"csrf_token": "0" * 64}, {"csrf_token": "é"}):
        assert reader.client.post(path, data=fields | token).status_code == 403
    assert store.read("reviews").is_empty()


def test_the_csrf_token_of_another_session_is_refused(reader: Reader, client: TestClient) -> None:
    client.cookies.clear()
    client.get("/")
    assert reader.post("/undo").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_write_from_elsewhere_is_refused(reader: Reader, headers: dict[str, str]) -> None:
    answer = reader.client.post("/undo", data={"csrf_token": reader.token}, headers=headers)
    assert answer.status_code == 403


def test_writes_are_forms_of_bounded_size(reader: Reader) -> None:
    assert reader.client.post("/undo", json={"csrf_token": reader.token}).status_code == 415
    assert reader.post("/guards", findings="x" * 1_100_000).status_code == 413
    assert reader.client.put("/undo").status_code == 405


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "192.168.0.7:8900"])
def test_loopback_answers_to_its_own_names_only(reader: Reader, host: str) -> None:
    assert reader.client.get("/", headers={"host": host}).status_code == 421


def test_loopback_answers_to_its_own_names(reader: Reader) -> None:
    for host in ("localhost:8900", "127.0.0.1", "[::1]:8900"):
        assert reader.client.get("/", headers={"host": host}).status_code == 200


def test_every_answer_has_the_headers(reader: Reader) -> None:
    for path in ("/", "/studies", "/nothing", "/static/unix.css", "/studies.csv"):
        headers = reader.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    assert reader.client.get("/studies").headers["cache-control"] == "no-store"
    assert reader.client.get("/openapi.json").status_code == 404


def test_no_template_holds_inline_script_or_style() -> None:
    from unix.resources import resource

    for file in resource("web", "templates").glob("*.j2"):
        text = file.read_text("utf-8")
        assert not re.search(r"\son[a-z]+=|\sstyle=|<style|javascript:|hx-on", text), file.name
        assert not re.search(r"<script(?! src=\"/static/)", text), file.name
        assert not re.search(r"\|\s*safe\b|https?://(?!127)", text), file.name


@pytest.mark.parametrize(
    "image",
    [
        "../../etc/passwd",
        "..%2F..%2Fetc%2Fpasswd",
        "%2Fetc%2Fpasswd",
        "file:%2F%2F%2Fetc%2Fpasswd",
        "....//passwd",
        ".",
    ],
)
def test_no_path_reaches_a_file(reader: Reader, image: str) -> None:
    answer = reader.client.get(f"/image/{image}")
    assert answer.status_code in (404, 421) and "root:" not in answer.text
    assert reader.client.get(f"/static/{image}").status_code == 404


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[TestClient]:
    """A store whose every text, id and name is an attack."""
    store = Store(tmp_path / "hostile")
    digest = text_digest(ATTACK)
    texts = {name: ATTACK for name, dtype in SCHEMAS["studies"].items() if dtype == pl.String}
    study = {**texts, "report_sha256": digest, "sections": "{}", "withdrawn": False}
    store.append("studies", pl.DataFrame([study]).with_columns(ingested_at=now()))
    answer = {name: ATTACK for name, dtype in SCHEMAS["cleaned_reports"].items() if dtype == pl.String}
    answer |= {"report_sha256": digest, "status": "flagged", "flags": [ATTACK]}
    answer |= {"removed": [{"text": ATTACK, "category": ATTACK}]}
    empty = {name: None for name, dtype in SCHEMAS["cleaned_reports"].items() if name not in answer}
    rows = pl.DataFrame([answer | empty], schema_overrides=dict(SCHEMAS["cleaned_reports"]))
    store.upsert("cleaned_reports", rows.select(SCHEMAS["cleaned_reports"].names()))
    image = {name: ATTACK for name, dtype in SCHEMAS["images"].items() if dtype == pl.String}
    image |= {"rows": 1, "columns": 1, "labels": None, "withdrawn": False}
    store.append(
        "images", pl.DataFrame([image], schema_overrides=dict(SCHEMAS["images"])).select(SCHEMAS["images"].names())
    )
    review = {name: ATTACK for name, dtype in SCHEMAS["reviews"].items() if dtype == pl.String}
    review |= {"report_sha256": digest, "decision": "approve"}
    store.append("reviews", pl.DataFrame([review]).with_columns(created_at=now()))
    rejection = {name: ATTACK for name, dtype in SCHEMAS["rejections"].items() if dtype == pl.String}
    store.append("rejections", pl.DataFrame([rejection]).with_columns(created_at=now()))
    with TestClient(create_app(ServeConfig(store=store.uri, reviewer=ATTACK)), base_url=ORIGIN) as client:
        yield client


def test_texts_ids_and_names_are_shown_as_text(hostile: TestClient) -> None:
    study = f"{ATTACK}/{ATTACK}"
    shown = 0
    for path, parameters in (
        ("/", {}),
        ("/studies", {}),
        ("/studies", {"q": ATTACK}),
        ("/studies", {"status": ATTACK, "flag": ATTACK, "model": ATTACK}),
        ("/study", {"study": study}),
        ("/versions", {"study": study}),
        ("/sample", {"sample": "1:5"}),
        ("/rejections", {"reason": ATTACK}),
        ("/bulk", {"decision": "approve"}),
        ("/reclean", {}),
        ("/studies", {"sort": ATTACK}),
        (f"/image/{ATTACK.replace('/', '')}", {}),
    ):
        answer = hostile.get(path, params=parameters)
        assert answer.status_code < 500, path
        assert "<script>alert" not in answer.text and "<img src=x" not in answer.text, path
        assert "49" not in re.findall(r"'(\d+)", answer.text), path
        shown += "&lt;script&gt;" in answer.text
    assert shown >= 8


def test_the_log_holds_no_search_words_ids_or_texts(reader: Reader, caplog: pytest.LogCaptureFixture) -> None:
    study = reader.studies(status="flagged")[0]
    with caplog.at_level(logging.DEBUG):
        reader.get("/studies", q="effusion-of-somebody")
        reader.post("/decide", study=study, decision="reject", note="secret note", query=f"model={SLOPPY}")
        reader.client.get("/image/id-of-somebody")
        reader.client.get("/path-of-somebody-that-is-long")
    ours = [record for record in caplog.records if record.name.startswith("unix")]
    text = "\n".join(record.getMessage() for record in ours)
    assert "GET /studies 200" in text
    assert not any(secret in text for secret in ("effusion", study[8:], "secret", "somebody-that"))


def test_a_bug_shows_and_logs_no_text(
    reader: Reader, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("words of a report")

    monkeypatch.setattr("unix.web.audit.study_page", broken)
    answer = reader.client.get("/study", params={"study": reader.studies()[0]})
    assert answer.status_code == 500 and "RuntimeError" in answer.text
    assert "content-security-policy" in answer.headers
    assert "words of a report" not in answer.text + caplog.text
    assert "RuntimeError in broken" in caplog.text
