"""The temporary Prefect API: it answers on loopback, and is gone with its owner, however that ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from pipelines.server import temporary_api
from unix.errors import UnixError

SECONDS_TO_GO = 30


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.fixture(autouse=True)
def modules_from_the_checkout(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(repository))


@pytest.mark.slow
def test_it_answers_inside_and_is_gone_afterwards(tmp_path: Path) -> None:
    with temporary_api(tmp_path / "prefect") as url:
        assert url.startswith("http://127.0.0.1:")
        assert answers(url)
        assert (tmp_path / "prefect" / "prefect.db").exists()
    assert not answers(url)


@pytest.mark.slow
def test_it_is_gone_after_its_owner_was_killed(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time; from pipelines.server import temporary_api\n"
        "with temporary_api(pathlib.Path(sys.argv[1])) as url:\n"
        "    print(url, flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        assert answers(url)
        owner.kill()
    deadline = time.monotonic() + SECONDS_TO_GO
    while answers(url) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not answers(url)


@pytest.mark.slow
def test_ctrl_c_leaves_it_to_its_owner_who_still_has_runs_to_end(tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time; from pipelines.server import temporary_api\n"
        # whoever started the tests in the background of a shell has it ignored from there on
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with temporary_api(pathlib.Path(sys.argv[1])) as url:\n"
        "    try: print(url, flush=True); time.sleep(600)\n"
        "    except KeyboardInterrupt: print('asked to stop', flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with owner:
        assert owner.stdin is not None and owner.stdout is not None
        url = owner.stdout.readline().strip()
        os.killpg(owner.pid, signal.SIGINT)
        assert owner.stdout.readline() == "asked to stop\n"
        assert answers(url)
        owner.stdin.close()
    assert not answers(url)


def test_a_server_that_cannot_start_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UnixError, match=r"did not start; its log is .*server\.log"), temporary_api(tmp_path):
        pytest.fail("there is no server")
