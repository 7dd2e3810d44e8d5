"""Brings Prefect's server up to what this checkout declares: `python -m pipelines.deployments`, or `make deploy`.

`prefect.yaml` declares the deployments, their work pool and the concurrency limits, `automations.yaml` what the server
does by itself. Doing it twice changes nothing, and what is no longer declared is removed. Only what bears our tag is
ever removed, so that other projects may use the same server. The stores that deployments name exist afterwards, empty
where they are new: nothing to do is no failure there.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.exceptions import ObjectNotFound

from pipelines.server import SECONDS_FOR_THE_SERVER, api_url, await_api
from unix.errors import ConfigError, UnixError
from unix.store import Store

TAG = "unix-cxr"
"""On every deployment and automation of ours."""

CHECKOUT_VARIABLE = "UNIX_CHECKOUT"
"""Names the folder that flows run in, in `prefect.yaml`; by default the one that is deployed."""

NOTIFY_VARIABLE = "UNIX_NOTIFY_URL"
"""Names the address that failures are posted to, as `{"text": ...}`."""

_BLOCK = "failures"
_BLOCK_TYPES = ("custom-webhook", "slack-webhook", "ms-teams-webhook", "discord-webhook", "mattermost-webhook")


def deploy(folder: Path) -> str:
    """Deploy what `folder` declares; returns what was done in one line, numbers and names alone.

    Raises:
        ConfigError: a file is missing, or declares something that Prefect refuses.
        UnixError: the server cannot be reached, or a deployment failed.
    """
    project = _read(folder / "prefect.yaml")
    await_api(api_url(), SECONDS_FOR_THE_SERVER)
    with get_client(sync_client=True) as client:
        pool = project["definitions"]["work_pool"]["name"]
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            try:
                _prefect(folder, "work-pool", "create", pool, "--type", "process")
            except UnixError:
                client.read_work_pool(pool)  # a worker that starts beside us may have made it first
        for name, limit in project["definitions"]["concurrency_limits"].items():
            client.upsert_global_concurrency_limit_by_name(name, limit)
        _prefect(folder, "deploy", "--all")
        for uri in {each["parameters"]["store"] for each in project["deployments"] if "store" in each["parameters"]}:
            Store(uri if "://" in uri else str(folder / uri)).create("studies")
        declared = {deployment["name"] for deployment in project["deployments"]}
        removed = _remove_deployments(client, declared)
        _save_webhook()
        automations = _declared_automations(client, _read(folder / "automations.yaml"))
        removed += _apply_automations(client, automations)
        notes = [f"{len(declared)} deployments", f"{len(automations)} automations"]
        notes += [f"removed {', '.join(removed)}"] if removed else []
        notes += [] if _notification_block(client) else [f"nobody hears of failures (${NOTIFY_VARIABLE} is not set)"]
    return "; ".join(notes)


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error!s:.300}") from error


def _prefect(folder: Path, *words: str) -> None:
    """Run a command of Prefect's own that has no equivalent in its client."""
    result = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *words],
        cwd=folder,
        env={CHECKOUT_VARIABLE: str(folder), **os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        said = " ".join((result.stdout + result.stderr).split())
        raise UnixError(f"prefect {' '.join(words)}: exit {result.returncode}: {said[-500:]}")


def _remove_deployments(client: SyncPrefectClient, declared: set[str]) -> list[str]:
    ours = client.read_deployments(deployment_filter=DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG])))
    found = {deployment.name for deployment in ours}
    if missing := sorted(declared - found):
        raise UnixError(f"{', '.join(missing)} cannot be found after deploying: each needs the tag {TAG}")
    gone = [deployment for deployment in ours if deployment.name not in declared]
    for deployment in gone:
        client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
        client.delete_deployment(deployment.id)
    return sorted(deployment.name for deployment in gone)


def _save_webhook() -> None:
    url = os.environ.get(NOTIFY_VARIABLE)
    if url:
        message = {"text": "{{subject}}\n{{body}}"}
        block = CustomWebhookNotificationBlock(name=_BLOCK, url=url, json_data=message, headers=None, cookies=None)
        block.save(_BLOCK, overwrite=True)


def _notification_block(client: SyncPrefectClient) -> str | None:
    """Id of the block that failures are sent to, ours or one that somebody made in Prefect's pages."""
    for kind in _BLOCK_TYPES:
        try:
            return str(client.read_block_document_by_name(_BLOCK, kind, include_secrets=False).id)
        except ObjectNotFound:
            continue
    return None


def _declared_automations(client: SyncPrefectClient, values: list[dict[str, Any]]) -> list[AutomationCore]:
    """The automations of the file; one that notifies is left out while there is no block to send to."""
    block = _notification_block(client)
    automations: list[AutomationCore] = []
    for value in values:
        notifies = [action for action in value["actions"] if action["type"] == "send-notification"]
        for action in notifies:
            action["block_document_id"] = block
        if block or not notifies:
            automations.append(AutomationCore.model_validate({**value, "tags": [TAG]}))
    return automations


def _apply_automations(client: SyncPrefectClient, declared: list[AutomationCore]) -> list[str]:
    """Create or replace the declared automations, remove the other ones of ours; returns the names of the removed."""
    ours = [automation for automation in client.read_automations() if TAG in automation.tags]
    present = {automation.name: automation for automation in ours}
    for automation in declared:
        before = present.pop(automation.name, None)
        if before is None:
            client.create_automation(automation)
        elif _content(before) != _content(automation):
            client.update_automation(before.id, automation)
    for automation in present.values():
        client.delete_automation(automation.id)
    return sorted(present)


def _content(automation: AutomationCore | Automation) -> dict[str, Any]:
    return AutomationCore.model_validate(automation.model_dump()).model_dump(mode="json")


def main() -> int:
    """Deploy the current folder and say so; 0, or the fault's status."""
    try:
        sys.stdout.write(f"{deploy(Path.cwd())}\nPrefect: {api_url().removesuffix('/api')}\n")
    except UnixError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
