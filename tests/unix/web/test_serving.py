"""`unix serve`: what it passes on, and what it refuses."""

import socket
from pathlib import Path

import pytest

from unix.cli import run
from unix.web.app import ServeConfig


def test_options_and_the_token_of_the_environment_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ServeConfig] = []
    monkeypatch.setattr("unix.web.app.serve", seen.append)
    monkeypatch.setenv("UNIX_SERVE_TOKEN", "a-token-of-some-length")
    assert run(["serve", "--store", "here", "--host", "0.0.0.0", "--port", "81", "--reviewer", "Ada"]) == 0
    wanted = ServeConfig(store="here", host="0.0.0.0", port=81, token="a-token-of-some-length", reviewer="Ada")
    assert seen == [wanted]


def test_loopback_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ServeConfig] = []
    monkeypatch.setattr("unix.web.app.serve", seen.append)
    monkeypatch.delenv("UNIX_SERVE_TOKEN", raising=False)
    assert run(["serve"]) == 0
    assert seen[0].loopback and seen[0].token is None


def test_a_short_token_is_a_usage_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("UNIX_SERVE_TOKEN", "short")
    assert run(["serve", "--host", "0.0.0.0"]) == 2
    assert "16 characters" in capsys.readouterr().err
    assert run(["serve", "--port", "70000"]) == 2


def test_a_port_that_is_taken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "--store", str(tmp_path), "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen on port {port} of 127.0.0.1" in said and "--port" in said
    assert "http://" not in said
