"""The command line: exit codes, one-line errors, summaries, and what `--help` loads."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from unix.cli import app, run
from unix.cli.frame import JsonOption, given, present
from unix.config import Config
from unix.errors import ConfigError, Interrupted, PolicyError, ResumeError, SourceError, UnixError

HEAVY = {"torch", "transformers", "diffusers", "openai", "prefect", "pipelines", "polars", "PIL", "deltalake", "numpy"}


class Counts(Config):
    """A summary such as a job returns."""

    kept: int
    rejected: dict[str, int]
    share: float


def command(body: Callable[[], None]) -> typer.Typer:
    """A command line of one command, `work`."""
    commands = typer.Typer(rich_markup_mode=None)

    @commands.callback()
    def root() -> None:  # pyright: ignore[reportUnusedFunction]
        """Makes `work` a subcommand."""

    @commands.command()
    def work(json: JsonOption = None) -> None:  # pyright: ignore[reportUnusedFunction]
        body()
        present(Counts(kept=1234, rejected={"no_report": 2}, share=0.99837), json)

    return commands


def fails_with(error: BaseException) -> typer.Typer:
    def body() -> None:
        raise error

    return command(body)


@pytest.fixture(autouse=True)
def signals_as_before() -> object:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("steps must be positive, not -1"), 2),
        (PolicyError("host not acknowledged"), 2),
        (SourceError("metadata CSV is missing"), 1),
        (ResumeError("shards differ"), 1),
        (Interrupted("saved at step 40"), 75),
        (KeyboardInterrupt(), 75),
        (FileNotFoundError(2, "No such file or directory", "reports.csv"), 1),
        (PermissionError(13, "Permission denied", "store"), 1),
    ],
)
def test_faults_are_one_line_and_a_status(
    error: BaseException, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["work"], fails_with(error)) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    if isinstance(error, OSError):
        assert error.filename in lines[0]


def test_a_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str]) -> None:
    run(["work"], fails_with(UnixError("first\n  second")))
    assert capsys.readouterr().err == "error: first second\n"


@pytest.mark.parametrize("position", [["--debug", "work"], ["work", "--debug"]])
def test_debug_shows_the_traceback(position: list[str], caplog: pytest.LogCaptureFixture) -> None:
    assert run(position, fails_with(SourceError("metadata CSV is missing"))) == 1
    assert caplog.records[0].exc_info is not None


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        run(["work"], fails_with(ZeroDivisionError()))


@pytest.mark.parametrize(
    "words", [["bogus"], ["ingest"], ["phantom", "--studies", "many", "--out", "x"], ["phantom", "--colour", "red"]]
)
def test_misuse_exits_2_with_a_pointer_to_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    message = capsys.readouterr().err
    assert re.fullmatch(r"error: .* See 'unix.*--help'\.\n", message)


def test_the_summary_is_printed_and_written_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "summary.json"
    assert run(["work", "--json", str(path)], command(lambda: None)) == 0
    assert json.loads(path.read_text()) == {"kept": 1234, "rejected": {"no_report": 2}, "share": 0.99837}
    assert capsys.readouterr().out.splitlines() == [
        "kept                1,234",
        "rejected.no_report  2",
        "share               0.9984",
    ]
    assert list(tmp_path.iterdir()) == [path]


def test_a_summary_that_could_not_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    worked: list[bool] = []
    assert run(["work", "--json", str(tmp_path / "absent" / "x.json")], command(lambda: worked.append(True))) == 2
    assert not worked
    assert "absent" in capsys.readouterr().err


def test_options_not_given_are_left_to_the_configuration() -> None:
    assert given(store="s", limit=None, images=False, seed=0) == {"store": "s", "images": False, "seed": 0}


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command by its words, subcommands included."""
    for name, registered in group.commands.items():
        yield (*path, name), registered
        if hasattr(registered, "commands"):
            yield from commands_of(registered, (*path, name))


COMMANDS = dict(commands_of(typer.main.get_command(app)))
COMPUTES_NOTHING = {("ablate",), ("endpoint",), ("evaluate",), ("export",), ("serve",)}


def test_the_commands_are_those_of_the_contract() -> None:
    assert set(COMMANDS) >= {
        *(("demo",), ("phantom",), ("ingest",), ("clean",), ("endpoint",), ("guard",), ("export", "reports")),
        *(("splits",), ("shards",), ("shards", "verify"), ("shards", "latents"), ("train",), ("describe",)),
        *(
            ("generate",),
            ("evaluate", "understanding"),
            ("evaluate", "generation"),
            ("label",),
            ("parity",),
            ("convert",),
            ("plan",),
            ("doctor",),
            ("runs",),
        ),
    }


def test_the_overview_shows_every_command_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    assert "..." not in capsys.readouterr().out.split("Commands:")[1]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_is_explained_and_every_result_can_be_written(words: tuple[str, ...]) -> None:
    parameters = {name: parameter for parameter in COMMANDS[words].params for name in parameter.opts}
    assert COMMANDS[words].help
    assert [name for name, parameter in parameters.items() if not parameter.help] == []
    assert ("--json" in parameters) != (words in COMPUTES_NOTHING)


@pytest.mark.parametrize("images", ["--images", "--no-images"])
def test_a_phantom_is_ingested_whole(images: str, tmp_path: Path) -> None:
    phantom, summary = str(tmp_path / "phantom"), tmp_path / "ingest.json"
    store = str(tmp_path / "store")
    assert run(["phantom", "--studies", "5", "--out", phantom, "--image-size", "32", images]) == 0
    assert run(["ingest", "--source", "phantom", "--root", phantom, "--store", store, "--json", str(summary)]) == 0
    assert json.loads(summary.read_text())["studies_kept"] == 5


def test_help_loads_nothing_heavy(repository: Path) -> None:
    program = (
        "import sys; from unix.cli import run; status = run(['--help']);"
        f"print('loaded:', sorted(set(sys.modules) & {HEAVY!r}), file=sys.stderr); sys.exit(status)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=repository, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "loaded: []\n")


def test_a_command_stops_when_the_parent_it_was_told_of_has_gone(repository: Path) -> None:
    """The watcher sees another parent than the one named, and interrupts the command as SIGTERM does."""
    program = (
        "import time, typer; from unix.cli.frame import run\n"
        "commands = typer.Typer()\n"
        "@commands.command()\n"
        "def work() -> None: time.sleep(60)\n"
        "raise SystemExit(run([], commands))\n"
    )
    nobody = subprocess.Popen([sys.executable, "-c", ""])
    nobody.wait()
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        env={**os.environ, "UNIX_PARENT_PID": str(nobody.pid)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 75
    assert result.stderr.startswith("error: interrupted")


def test_output_into_a_closed_pipe_is_quiet(repository: Path) -> None:
    result = subprocess.run(
        f"{sys.executable} -m unix --help | true",
        shell=True,
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
