"""Tells Prefect what landed in a folder, from outside any flow: `unix watch` calls it."""

from prefect.events import emit_event
from prefect.settings import get_current_settings

from pipelines.steps import DATA_LANDED, landing_resource
from unix.data.landing import Landing
from unix.errors import ConfigError


def tell(landing: Landing) -> None:
    """Emit the event that starts `curate`; its payload is the numbers, and where the folder and the store are.

    Raises:
        ConfigError: no Prefect server is named, so nobody would hear.
    """
    if get_current_settings().api.url is None:
        raise ConfigError("no Prefect server is named: set PREFECT_API_URL, or watch from the checkout")
    emit_event(DATA_LANDED, resource=landing_resource(landing.source), payload=landing.model_dump(mode="json"))
