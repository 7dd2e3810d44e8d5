"""The one kind of task: a command of `unix`, with retries, its numbers as an artifact, and the events after it."""

from collections.abc import Sequence
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import emit_event
from prefect.tasks import Task

from pipelines.runtime import CommandError, CommandSummary, Option, run_command

DATA_LANDED = "unix.data.landed"
DATASET_UPDATED = "unix.dataset.updated"
MODEL_TRAINED = "unix.model.trained"

_FAILED = 1


async def may_pass_later(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """True for a failed job (exit 1): a wrong option or a refusal (2) and a stop on request (75) stay as they are."""
    result: object = await state.aresult(raise_on_failure=False)
    return not isinstance(result, CommandError) or result.exit_code == _FAILED


@task(name="run", task_run_name="{command}", retry_condition_fn=may_pass_later)
def run(command: str, *arguments: str, timeout: float | None = None, **options: Option) -> CommandSummary:
    """Run `unix COMMAND ...` (see `runtime.run_command`); its numbers become an artifact named after the command."""
    summary = run_command(command, *arguments, log=get_run_logger().info, timeout=timeout, **options)
    publish(summary)
    return summary


reaching_out = run.with_options(retries=2, retry_delay_seconds=[10, 60], retry_jitter_factor=0.5)
"""For commands that depend on an endpoint; what was done before a failure is kept."""


def publish(summary: CommandSummary) -> None:
    """Show a summary's numbers, and only numbers, as a table artifact."""
    create_table_artifact(
        key=summary.command.replace(" ", "-"),
        table=[{"quantity": name, "value": value} for name, value in summary.numbers().items()],
        description=f"`unix {summary.command}` in {summary.seconds:.1f} s",
    )


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


def announce(event: str, subject: str, summary: CommandSummary, **details: str | int | None) -> None:
    """Emit an event about `subject` (a release of shards, a run's folder) with the summary's numbers as payload.

    `details` go in beside the numbers, those that are not None: places and digests, never text or ids.
    """
    told = {name: value for name, value in details.items() if value is not None}
    emit_event(event, resource={"prefect.resource.id": f"unix.{subject}"}, payload={**summary.numbers(), **told})


def landing_resource(source: str) -> dict[str, str]:
    """What an event about something landed in a source's folder, not yet curated, is about."""
    return {"prefect.resource.id": f"unix.landing.{source}"}
