"""PhysioNet's rule at the command line: credentialed text goes nowhere public unless the host is named."""

import json
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from unix.cli import run
from unix.records import text_digest
from unix.store import Store

REPORT = " FINDINGS: A 4 mm nodule in the left lung.\n"
HOST = "api.deepseek.com"


@pytest.fixture
def mimic_store(tmp_path: Path) -> Store:
    """One study of a credentialed source; its report is invented."""
    study = {
        "source": "mimic-cxr",
        "subject_id": "1",
        "study_id": "1",
        "report_raw": REPORT,
        "report_sha256": text_digest(REPORT),
        "findings_raw": "A 4 mm nodule in the left lung.",
        "impression_raw": "",
        "sections": "{}",
        "fingerprint": "",
        "ingested_at": datetime.now(UTC),
        "withdrawn": False,
    }
    store = Store(tmp_path / "store")
    store.upsert("studies", pl.DataFrame([study]))
    return store


def test_deepseek_is_refused_before_anything_is_sent_and_allowed_once_it_is_named(
    mimic_store: Store,
    chat_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = chat_server("--latency-ms", "1")
    port = int(server.url.rsplit(":", 1)[1].removesuffix("/v1"))
    (tmp_path / "endpoints.yaml").write_text(
        f"deepseek: {{base_url: 'http://{HOST}:{port}/v1', model: m, api_key_env: DEEPSEEK_API_KEY}}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPSEEK_API_KEY", "a-key")
    public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: public)
    command = ["clean", "--store", mimic_store.uri, "--endpoint", "deepseek"]

    assert run(command) == 2
    refusal = capsys.readouterr().err
    assert "PhysioNet" in refusal
    assert f"--acknowledge-host {HOST}" in refusal
    assert "nodule" not in refusal
    assert run([*command, "--acknowledge-host", "deepseek.com"]) == 2
    assert run(["clean", "compare", "v1@deepseek", "v2@deepseek", "--store", mimic_store.uri]) == 2
    assert not server.events()
    assert mimic_store.version("cleaned_reports") is None

    # The acknowledged name leads to the local server, as a name service would lead it anywhere.
    local = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: local)
    summary = tmp_path / "summary.json"
    assert run([*command, "--acknowledge-host", HOST, "--json", str(summary)]) == 0
    assert json.loads(summary.read_text())["accepted"] == 1
    assert server.kinds()["ok"] == 1


def test_the_packages_own_deepseek_is_refused_without_a_key_too(
    mimic_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPSEEK_API_KEY", raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    assert run(["clean", "--store", mimic_store.uri, "--endpoint", "deepseek"]) == 2
    assert "PhysioNet" in capsys.readouterr().err


def test_a_store_that_does_not_exist_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["clean", "--store", str(tmp_path / "nowhere")]) == 2
    assert "unix ingest" in capsys.readouterr().err
