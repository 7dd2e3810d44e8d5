"""The one kind of task: a command of `unix`, with retries, its numbers as an artifact, and the events after it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from prefect import allow_failure, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.futures import PrefectFuture, as_completed
from prefect.tasks import Task

from pipelines.runtime import FAILED, CommandError, CommandSummary, Option, run_command

DATA_LANDED = "unix.data.landed"
DATASET_UPDATED = "unix.dataset.updated"
MODEL_TRAINED = "unix.model.trained"
MODEL_PROMOTED = "unix.model.promoted"

ENDPOINT_SLOT = "unix-endpoint"
GPU_SLOT = "unix-gpu"
"""Concurrency limits of `prefect.yaml`. A server without them sets none."""

HOUR = 3600.0


async def may_pass_later(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """True for a failed job (exit 1): a wrong option or a refusal (2) and a stop on request (75) stay as they are."""
    result: object = await state.aresult(raise_on_failure=False)
    return not isinstance(result, CommandError) or result.exit_code == FAILED


@task(
    name="run",
    task_run_name="{command}",
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_jitter_factor=0.5,
    retry_condition_fn=may_pass_later,
)
def run(
    command: str, *arguments: str, timeout: float | None = None, slot: str | None = None, **options: Option
) -> CommandSummary:
    """Run `unix COMMAND ...` (see `runtime.run_command`); its numbers become an artifact named after the command.

    Tried again when it fails, for what was done before a failure is kept. With `slot` it waits for its place under that
    concurrency limit; whoever dies in a place loses it within minutes.
    """
    with concurrency(slot or [], raise_on_lease_renewal_failure=False):
        summary = run_command(command, *arguments, log=get_run_logger().info, timeout=timeout, **options)
    publish(summary)
    return summary


def run_side_by_side(
    command: str, options: Sequence[dict[str, Any]], width: int, slot: str, timeout: float
) -> list[CommandSummary]:
    """Run a command once per set of options, `width` at a time, and show how far that is.

    Every one is tried before a failed one is reported.
    """
    progress = create_progress_artifact(0.0, key=f"{command}-progress", description=f"Tasks of `unix {command}`")
    running: list[PrefectFuture[Any]] = []
    for each in options:
        before = [allow_failure(running[-width])] if len(running) >= width else None
        running.append(
            run.submit(command, slot=slot, timeout=timeout, **each, wait_for=before)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]: Prefect leaves some overloads untyped
        )
    for num_done, _ in enumerate(as_completed(running), start=1):
        update_progress_artifact(cast(UUID, progress), 100.0 * num_done / len(running))
    return [future.result() for future in running]


def publish(summary: CommandSummary) -> None:
    """Show a summary's numbers, and only numbers, as a table artifact, and the page that it wrote as a link."""
    create_table_artifact(
        key=summary.command.replace(" ", "-"),
        table=[{"quantity": name, "value": value} for name, value in summary.numbers().items()],
        description=f"`unix {summary.command}` in {summary.seconds:.1f} s",
    )
    if page := summary.values.get("report_html"):
        link = Path(page).absolute().as_uri()
        create_link_artifact(link=link, link_text=Path(page).name, key=f"{summary.command.replace(' ', '-')}-report")


def publish_total(name: str, summaries: Sequence[CommandSummary]) -> None:
    """Show what commands side by side did together: the sums of their counts and dollars; shares and rates are no sums.

    The artifact is named `name`.
    """
    total: dict[str, int | float] = {}
    for summary in summaries:
        for quantity, value in summary.numbers().items():
            if isinstance(value, int) or quantity.endswith("_usd"):
                total[quantity] = total.get(quantity, 0) + value
    create_table_artifact(
        key=name,
        table=[{"quantity": quantity, "value": value} for quantity, value in total.items()],
        description=f"{len(summaries)} commands together; each has a table of its own",
    )


def publish_sentence(name: str, sentence: str) -> None:
    """Show why a flow did what it did; a sentence of names and numbers, named `name`."""
    get_run_logger().info(sentence)
    create_markdown_artifact(key=f"{name}-reason", markdown=sentence, description=f"why `{name}` did what it did")


def announce(event: str, subject: str, summary: CommandSummary, **details: str | int | None) -> None:
    """Emit an event about `subject` (a release of shards, a run's folder) with the summary's numbers as payload.

    `details` go in beside the numbers, those that are not None: places and digests, never text or ids.
    """
    told = {name: value for name, value in details.items() if value is not None}
    emit_event(event, resource={"prefect.resource.id": f"unix.{subject}"}, payload={**summary.numbers(), **told})


def landing_resource(source: str) -> dict[str, str]:
    """What an event about something landed in a source's folder, not yet curated, is about."""
    return {"prefect.resource.id": f"unix.landing.{source}"}
