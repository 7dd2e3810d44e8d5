"""What an examination is asked for, and one line of what it finds."""

from typing import Literal

from unix.config import Config

State = Literal["ok", "warning", "missing"]
GIB = 2**30
FLOAT32 = 4
"""Bytes of a number."""


class DoctorConfig(Config):
    """What the run will use; what is not given is not checked."""

    store: str = "store"
    source: str | None = None
    root: str | None = None
    """The source's folder."""
    preset: str | None = None
    start: str | None = None
    """Folder of the weights that stage 1 starts from."""
    shards: str | None = None
    """Folder of the shard sets; None: the store's `shards/`."""
    runs: str = "runs"
    endpoint: str | None = None
    acknowledge_host: tuple[str, ...] = ()


class Check(Config):
    """One line of the examination."""

    name: str
    state: State
    found: str
    remedy: str = ""
    """What to do; "" where there is nothing to do."""


def shards_folder(config: DoctorConfig) -> str:
    """Where the shard sets are or will be."""
    return config.shards or f"{config.store.rstrip('/')}/shards"
