"""The watch over the worker: it ends the process once the health check says that no more work is asked for."""

import http.server
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest


def test_a_worker_that_gave_up_is_ended(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))
    statuses = [200, 200, 503]
    asked: list[int] = []

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(statuses[len(asked)])
            self.send_response(asked[-1])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = (
            "import sys; from pipelines import worker\n"
            "worker._SECONDS_BETWEEN_LOOKS = 0.01\n"
            "worker.end_when_it_gave_up(sys.argv[1])"
        )
        url = f"http://127.0.0.1:{server.server_address[1]}/health"
        ended = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
        server.shutdown()
    assert ended.returncode == -signal.SIGTERM
    assert "no longer asks for work" in ended.stderr
    assert asked == statuses
