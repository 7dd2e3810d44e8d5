"""The command line's frame: shared options, one-line errors, exit codes, the printed and written summary.

Exit codes: 0 success, 2 a usage, configuration or policy error, 1 a failed job, 75 interrupted after saving state.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel, ValidationError
from typer.exceptions import TyperException

from unix import __version__
from unix.config import describe
from unix.errors import Interrupted, UnixError
from unix.manifest import write_atomically
from unix.parent import stop_with_parent

FAILED, MISUSED = 1, 2
_CLICK_INTERRUPTED = 130

app = typer.Typer(
    name="unix",
    help="Curate chest radiographs and their reports, train one model that reads and draws them, measure it.",
    epilog="Every command takes --debug, anywhere: show the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _must_have_a_folder(path: Path | None) -> Path | None:
    if path is not None and not path.absolute().parent.is_dir():
        raise typer.BadParameter(f"the folder {path.absolute().parent} does not exist")
    return path


StoreOption = Annotated[
    str, typer.Option("--store", envvar="UNIX_STORE", metavar="URI", help="The store: a folder or an object store.")
]
JsonOption = Annotated[
    Path | None,
    typer.Option(
        "--json", metavar="PATH", dir_okay=False, callback=_must_have_a_folder, help="Write the summary as JSON here."
    ),
]
DEFAULT_STORE = "store"


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None: ...


def given(**values: Any) -> dict[str, Any]:
    """The options that were given: what is None is left to the configuration's own default."""
    return {name: value for name, value in values.items() if value is not None}


def present(summary: BaseModel | Mapping[str, Any], path: Path | None) -> None:
    """Print a summary's numbers as an aligned table, and write them to `path` as one JSON object."""
    values = _plain(summary)
    rows = _flatten(values)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        typer.echo(f"{name:<{width}}  {value}")
    write(summary, path)


def write(summary: BaseModel | Mapping[str, Any], path: Path | None) -> None:
    """Write a summary to `path`, where there is one, as one JSON object that appears whole."""
    if path is not None:
        write_atomically(path, (json.dumps(_plain(summary), indent=2) + "\n").encode())


def _plain(summary: BaseModel | Mapping[str, Any]) -> dict[str, Any]:
    return summary.model_dump(mode="json") if isinstance(summary, BaseModel) else dict(summary)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows.extend(_flatten(value, f"{prefix}{name}."))  # pyright: ignore[reportUnknownArgumentType]
        else:
            rows.append((f"{prefix}{name}", _cell(value)))
    return rows


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool() | str():
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}"
        case list() if len(value) <= 5 and all(isinstance(item, str | int) for item in value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            return ", ".join(map(str, value)) or "-"  # pyright: ignore[reportUnknownArgumentType]
        case list():
            return f"{len(value)} entries"  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return str(value)


def main() -> NoReturn:
    """Run the command line of this process and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str], commands: typer.Typer = app) -> int:
    """Run one of `commands` and return its exit status; a foreseeable fault is one line on stderr."""
    debug = "--debug" in arguments
    _log_to_stderr()
    try:
        _stop_on_sigterm()
        stop_with_parent()
        status = commands([word for word in arguments if word != "--debug"], prog_name="unix", standalone_mode=False)
        if status == _CLICK_INTERRUPTED:
            raise KeyboardInterrupt
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader of our output has gone; keep the interpreter from saying so again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        typer.echo("error: interrupted; what was committed is kept: run the same command again to continue", err=True)
        return Interrupted.exit_code
    except (UnixError, TyperException, ValidationError, OSError) as error:
        if debug:
            logging.getLogger(__name__).exception("the traceback, as --debug asks")
        typer.echo(f"error: {_one_line(error)}", err=True)
        return _exit_code(error)
    return status if isinstance(status, int) else 0


def _one_line(error: Exception) -> str:
    match error:
        case ValidationError():
            text = f"{error.title}: {describe(error)}"
        case TyperException():
            context = getattr(error, "ctx", None)
            text = (
                error.format_message().rstrip(".") + "." + (f" See '{context.command_path} --help'." if context else "")
            )
        case OSError() if error.filename is not None:
            text = f"{error.strerror}: {error.filename}"
        case _:
            text = str(error) or type(error).__name__
    return " ".join(text.split())


def _exit_code(error: Exception) -> int:
    match error:
        case UnixError() | TyperException():
            return error.exit_code
        case ValidationError():
            return MISUSED
        case _:
            return FAILED


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("unix").setLevel(logging.INFO)


def _stop_on_sigterm() -> None:
    """Let SIGTERM unwind the command as Ctrl-C does; a job that saves its state first sets a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        return
    owner = os.getpid()

    def interrupt(*_: object) -> None:
        if os.getpid() != owner:  # a forked worker inherits the handler; it only has to go
            os._exit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
