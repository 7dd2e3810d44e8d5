"""The command `unix demo`: the flows of `pipelines` on a phantom, in a Prefect API of its own, then the report."""

import json as jsonlib
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from unix import __version__
from unix.cli.frame import JsonOption, present
from unix.errors import ConfigError
from unix.manifest import write_atomically

_MARK = "demo.json"
_LOOPBACK = "127.0.0.1,localhost"


def demo(
    work: Annotated[Path, typer.Option(file_okay=False, metavar="DIR", help="Folder for everything.")] = Path("demo"),
    seed: Annotated[
        int, typer.Option(min=0, metavar="S", help="Of the phantom, the training and the drawn images.")
    ] = 0,
    long: Annotated[
        bool,
        typer.Option("--long", help="Twice the studies and steps: half an hour on two idle cores, better numbers."),
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A few steps: a minute or two, proves the chain, not the learning.")
    ] = False,
    json: JsonOption = None,
) -> None:
    """Run the whole chain on synthetic data, to an HTML report.

    It takes about seven minutes on two idle cores. A demo that was interrupted goes on where it stopped when it is run
    again in the same folder.
    """
    if long and smoke:
        raise ConfigError("--long and --smoke exclude each other")
    size = "long" if long else "smoke" if smoke else "normal"
    started = time.monotonic()
    work = work.absolute()
    continued = _claim(work, {"seed": seed, "size": size, "version": __version__})
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_RunFormatter())
        handler.addFilter(_of_interest)
    home = work / "prefect"
    _forget_the_users_prefect(home)

    from pipelines.server import temporary_api

    with temporary_api(home) as url:
        os.environ["PREFECT_API_URL"] = url
        from pipelines.demo import STAGES, demo

        outcome = demo(str(work), seed, size)
    for task, evaluation in outcome.evaluations.items():
        write_atomically(work / "evaluation" / f"{task}.json", jsonlib.dumps(evaluation.values).encode())

    from unix.evaluation.demo_report import DemoRun, report_demo

    summary = report_demo(
        DemoRun(
            store=str(work / "store"),
            phantom=str(work / "phantom"),
            shards=str(work / "store" / "shards"),
            runs=tuple(str(work / "runs" / stage) for stage in STAGES),
            understanding=str(work / "evaluation" / "understanding.json"),
            generation=str(work / "evaluation" / "generation.json"),
            step_seconds=outcome.seconds,
            seconds=round(time.monotonic() - started, 1),
            continued=continued,
            seed=seed,
            page=str(work / "report.html"),
        )
    )
    present(summary, json)
    typer.echo(f"\nThe report: {summary.report_html}")


class _RunFormatter(logging.Formatter):
    """Time, the name of the flow or task run that speaks, what it says."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s  %(run)-24s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Fill in the run's name, which Prefect adds to the records of its runs."""
        record.run = getattr(record, "task_run_name", None) or getattr(record, "flow_run_name", None) or record.name
        return super().format(record)


def _of_interest(record: logging.LogRecord) -> bool:
    """Leave out what a temporary API does not have: Prefect's pages and the concurrency limits of a shared machine."""
    return not record.getMessage().startswith(("View at ", "Concurrency limits "))


def _claim(work: Path, identity: dict[str, Any]) -> bool:
    """Take an empty or new folder, or one that the same demo was run in before; whether it is such a one.

    Raises:
        ConfigError: it holds something else.
    """
    mark = work / _MARK
    if mark.is_file():
        found, wanted = mark.read_text(encoding="utf-8").strip(), jsonlib.dumps(identity)
        if found != wanted:
            raise ConfigError(f"{work} holds another demo ({found}, not {wanted}): remove it, or give another --work")
        return True
    if work.is_dir() and any(not item.name.startswith(".") for item in work.iterdir()):
        raise ConfigError(f"{work} is not empty and holds no demo: give another --work")
    write_atomically(mark, jsonlib.dumps(identity).encode())
    return False


def _forget_the_users_prefect(home: Path) -> None:
    """Set up the environment, before Prefect is imported, for a temporary API with everything in `home`.

    The user's profile, server and database are neither read nor touched, and nothing is reported anywhere.
    """
    shutil.rmtree(home, ignore_errors=True)
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]
    os.environ.update(
        PREFECT_HOME=str(home),
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_LOGGING_TO_API_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), _LOOPBACK]))
