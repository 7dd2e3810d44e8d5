"""The sources of studies, by name. A new one is a module here and a line in `_SOURCES`."""

from unix.data.sources.base import Source
from unix.data.sources.iu_xray import IuXray
from unix.data.sources.mimic_cxr import MimicCxr
from unix.data.sources.phantom import Phantom
from unix.errors import ConfigError

_SOURCES: dict[str, Source] = {source.name: source for source in (MimicCxr(), IuXray(), Phantom())}


def source_names() -> tuple[str, ...]:
    """Every known source's name."""
    return tuple(_SOURCES)


def get_source(name: str) -> Source:
    """The source of that name.

    Raises:
        ConfigError: there is none.
    """
    try:
        return _SOURCES[name]
    except KeyError:
        raise ConfigError(f"source: unknown source {name!r}; known: {', '.join(_SOURCES)}") from None


def is_credentialed(name: str) -> bool:
    """Whether a data-use agreement covers the source's text; True for a name nobody knows, to be on the safe side."""
    return name not in _SOURCES or _SOURCES[name].credentialed
