"""The rule cleaner as an endpoint on a port."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

from unix.data.cleaning.server import EndpointConfig, serve
from unix.errors import ConfigError


def get(url: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = json.dumps(body).encode() if body is not None else None
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as response:
        return json.load(response)


def test_it_says_where_it_listens_answers_and_ends_on_a_signal() -> None:
    command = [sys.executable, "-m", "unix", "endpoint", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert get(f"{url}/models")["data"][0]["id"].startswith("rules-")
        report = {"role": "user", "content": "FINDINGS: Clear lungs. Dictated by ___."}
        answer = get(f"{url}/chat/completions", {"model": "rules", "messages": [report]})
        assert json.loads(answer["choices"][0]["message"]["content"])["findings"] == "Clear lungs."
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, 75)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"):
            serve(EndpointConfig(port=port), lambda _: None)
