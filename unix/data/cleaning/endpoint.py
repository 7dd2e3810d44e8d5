"""OpenAI-compatible endpoints: how to reach them, what they cost, and which reports may go there."""

import ipaddress
import os
import re
import socket
from collections.abc import Collection, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import Field, ValidationError, field_validator

from unix.config import Config, describe, json_digest
from unix.data.sources import is_credentialed
from unix.errors import ConfigError, PolicyError
from unix.resources import resource

_PLAIN_ADDRESS = re.compile(
    r"https?://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/-]*)?", re.ASCII
)

_OUR_PART_OF_THE_BODY = frozenset({"model", "messages", "temperature", "max_tokens", "response_format", "stream", "n"})

EMBEDDED = "embedded"
"""Name of the endpoint in this process."""

_PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
)


class Price(Config):
    """US dollars per million tokens, as of a date."""

    as_of: date
    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)
    peak_hours_utc: tuple[tuple[int, int], ...] = ()
    """Hours [from, to) in UTC during which every price is multiplied by `peak_factor`."""
    peak_factor: float = Field(default=1.0, ge=1)

    def cost(self, prompt_tokens: int, cached_tokens: int, completion_tokens: int, at: datetime) -> float:
        """Dollars for one answer that was given at `at` (UTC); `cached_tokens` are part of `prompt_tokens`."""
        fresh = prompt_tokens - cached_tokens
        dollars = (fresh * self.input + cached_tokens * self.cached_input + completion_tokens * self.output) / 1e6
        peak = any(start <= at.hour < end for start, end in self.peak_hours_utc)
        return dollars * self.peak_factor if peak else dollars


class Limits(Config):
    """How hard an endpoint may be driven."""

    concurrency: int = Field(default=64, ge=1)
    """Requests in flight at most; 429 answers lower it for a while."""
    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    timeout_seconds: float = Field(default=120.0, gt=0)
    """Deadline of one request."""
    attempts: int = Field(default=6, ge=1)
    """Requests for one report at most, retries included."""


class Endpoint(Config):
    """One entry of `endpoints.yaml`."""

    name: str
    model: str
    base_url: str | None = None
    """None: the embedded rule cleaner, in this process."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key."""
    json_mode: Literal["schema", "object", "none"] = "schema"
    temperature: float = Field(default=0.0, ge=0)
    max_output_tokens: int = Field(default=4096, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict)
    warm_up: int = Field(default=0, ge=0)
    """Requests that finish one by one before the rest starts, so that the prompt's prefix is cached."""
    limits: Limits = Limits()
    price: Price | None = None

    @field_validator("extra_body")
    @classmethod
    def _leaves_the_rest_alone(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        if taken := _OUR_PART_OF_THE_BODY & set(extra_body):
            raise ValueError(f"{', '.join(sorted(taken))} cannot be set here: the client does")
        return extra_body

    @property
    def embedded(self) -> bool:
        """Whether the endpoint lives in this process."""
        return self.base_url is None

    @property
    def parameters_digest(self) -> str:
        """SHA-256 (hex) of the settings that shape an answer; the address is none of them."""
        shaping = {"json_mode", "temperature", "max_output_tokens", "extra_body"}
        return json_digest(self.model_dump(mode="json", include=shaping))

    def api_key(self) -> str:
        """The key from the environment; a placeholder where the endpoint needs none.

        Raises:
            ConfigError: the variable is not set.
        """
        if self.api_key_env is None:
            return "unused"
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise ConfigError(f"endpoint {self.name} needs its key in the environment variable {self.api_key_env}")
        return key


def load_endpoint(name: str, base_url: str | None = None, model: str | None = None) -> Endpoint:
    """The endpoint `name` from `./endpoints.yaml`, else `$UNIX_ENDPOINTS`, else the package's own file.

    `base_url` and `model` take the place of the file's values. A base URL without a name, that is with `embedded`,
    is an endpoint of its own, which needs a model.

    Raises:
        ConfigError: the file, the name or a setting is wrong.
    """
    if base_url is not None and name == EMBEDDED:
        if model is None:
            raise ConfigError(f"the endpoint at {base_url} needs the name of a model (--model)")
        return _checked({"name": "custom", "base_url": base_url, "model": model}, base_url)
    path = _endpoints_file()
    entries = _read_entries(path)
    if name == EMBEDDED and name not in entries:  # it is always there: no file can take the default away
        path = resource("endpoints.yaml")
        entries = _read_entries(path)
    if name not in entries:
        raise ConfigError(f"{path} has no endpoint {name!r}; it has {', '.join(map(str, entries)) or 'none'}")
    if not isinstance(entries[name], dict):
        raise ConfigError(f"{path}: endpoint {name} must be a mapping of its settings")
    values = dict(cast(dict[str, Any], entries[name]), name=name)
    if base_url is not None:
        values["base_url"] = base_url
    if model is not None:
        values["model"] = model
    return _checked(values, str(path))


def _read_entries(path: Path) -> dict[object, object]:
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the endpoints {path}: {error}") from error
    return cast(dict[object, object], entries) if isinstance(entries, dict) else {}


def check_policy(endpoint: Endpoint, sources: Collection[str], acknowledged: Collection[str] = ()) -> bool:
    """Refuse to send reports of credentialed sources to a host that is neither local, private nor acknowledged.

    Returns:
        Whether connections must be held to private addresses.

    Raises:
        PolicyError: what PhysioNet asks, and the lawful ways on.
    """
    credentialed = sorted(filter(is_credentialed, set(sources)))
    if endpoint.base_url is None or not credentialed:
        return False
    host = _host(endpoint.base_url)
    if host in {name.lower() for name in acknowledged}:
        return False
    if is_private(host):
        return True
    raise PolicyError(
        f"endpoint {endpoint.name}: reports of {', '.join(credentialed)} must not go to {host}, a public host: "
        "PhysioNet's data use agreement forbids sharing credentialed data with third parties, also through an API. Use "
        "the endpoint `embedded`, or a model on this machine or network (`local`, --base-url); where an agreement with "
        f"the provider covers this data, say so with --acknowledge-host {host}"
    )


def is_private(host: str) -> bool:
    """Whether every address of `host` is loopback or private; a host that does not resolve is not."""
    addresses = _addresses(host)
    return bool(addresses) and all(map(is_private_address, addresses))


def is_private_address(address: str) -> bool:
    """Whether an IP address, a zone after `%` aside, is loopback or private; one mapped into IPv6 is what it maps."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in _PRIVATE if network.version == parsed.version)


def _checked(values: dict[str, Any], origin: str) -> Endpoint:
    try:
        endpoint = Endpoint.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}, endpoint {values['name']}: {describe(error)}") from error
    if endpoint.base_url is not None and not _host(endpoint.base_url):
        # The value is not repeated: it may hold a password or a key.
        raise ConfigError(
            f"endpoint {endpoint.name}: its base_url is not an http(s) address of host, port and path alone, such as "
            "http://127.0.0.1:8000/v1; a key belongs in the environment variable that api_key_env names"
        )
    if endpoint.base_url is None and endpoint.name != EMBEDDED:
        raise ConfigError(f"{origin}, endpoint {endpoint.name}: base_url is missing")
    return endpoint


def _addresses(host: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return [str(entry[4][0]) for entry in found]


def _host(base_url: str) -> str:
    """The host of a plain http(s) address, else "".

    Plain: a host of letters, digits, dots and hyphens or an address in brackets, a port, a path. Whatever else an
    address can hold (a user before `@`, a backslash, a query) is what parsers disagree on, and the parser that decides
    about the policy is not the one that opens the connection.
    """
    match = _PLAIN_ADDRESS.fullmatch(base_url)
    return match["host"].strip("[]").lower() if match is not None else ""


def _endpoints_file() -> Path:
    here = Path("endpoints.yaml")
    if here.is_file():
        return here
    named = os.environ.get("UNIX_ENDPOINTS")
    return Path(named) if named else resource("endpoints.yaml")
