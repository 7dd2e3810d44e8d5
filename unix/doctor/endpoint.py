"""Checks of an endpoint: whether reports may go there, whether its key is set, whether it answers."""

import os
from collections.abc import Iterator

from unix.doctor.check import Check, DoctorConfig
from unix.errors import PolicyError

_CONNECT_SECONDS = 5.0


def check_endpoint(config: DoctorConfig) -> Iterator[Check]:
    """Policy first, then the key, then one question that sends no text: nothing is asked of a host that is refused."""
    if config.endpoint is None:
        return
    from unix.data.cleaning.endpoint import check_policy, load_endpoint
    from unix.data.sources import source_names

    endpoint = load_endpoint(config.endpoint)
    name = f"endpoint {endpoint.name}"
    if endpoint.base_url is None:
        yield Check(name=name, state="ok", found="in this process: no key, no network")
        return
    try:
        check_policy(endpoint, source_names() if config.source is None else (config.source,), config.acknowledge_host)
    except PolicyError as error:
        yield Check(name=f"{name} policy", state="missing", found=str(error), remedy="not contacted")
        return
    yield Check(name=f"{name} policy", state="ok", found="its host may see these reports")
    key = None
    if endpoint.api_key_env is not None:
        key = os.environ.get(endpoint.api_key_env)
        yield Check(
            name=f"{name} key",
            state="ok" if key else "missing",
            found=f"{endpoint.api_key_env} is {'set' if key else 'not set'}",
            remedy="" if key else "export it in the shell that runs `unix clean`",
        )
        if not key:
            return
    yield _reach(name, endpoint.base_url, endpoint.model, key)


def _reach(name: str, base_url: str, model: str, key: str | None) -> Check:
    """Ask for the list of models: the one question that costs nothing."""
    import httpx

    url = f"{base_url.rstrip('/')}/models"
    try:
        answer = httpx.get(
            url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=_CONNECT_SECONDS, trust_env=False
        )
    except (httpx.HTTPError, ValueError) as error:
        # its message may repeat the request, and with it the key
        found = f"{base_url} does not answer ({type(error).__name__})"
        return Check(name=name, state="missing", found=found, remedy="start the server, or correct base_url")
    if answer.status_code in (401, 403):
        found = f"{base_url} refuses the key ({answer.status_code})"
        return Check(name=name, state="missing", found=found, remedy="look at the key and its rights")
    try:
        served = [str(item["id"]) for item in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        found = f"{base_url} answers, but lists no models ({answer.status_code})"
        return Check(name=name, state="warning", found=found, remedy="try `unix clean --limit 1`")
    if model not in served:
        found = f"{base_url} answers, but does not list {model} among its {len(served)} models"
        return Check(name=name, state="warning", found=found, remedy="name a model that it serves with --model")
    return Check(name=name, state="ok", found=f"{base_url} serves {model}")
