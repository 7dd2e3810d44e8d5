"""Typed configuration: frozen pydantic models, read from YAML, changed by `a.b=c` overrides, digested."""

import difflib
import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Self, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from unix.errors import ConfigError


class Config(BaseModel):
    """Base of every configuration and summary: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON of all fields, defaults included."""
        return json_digest(self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read YAML at `path`, apply overrides such as `optimizer.learning_rate=1e-4`, validate.

        Raises:
            ConfigError: the file is missing or not a mapping, an override is malformed, or a value is refused;
                the message names every offending field.
        """
        return cls.build(read_yaml(Path(path)), overrides, origin=str(path))

    @classmethod
    def build(cls, values: dict[str, Any], overrides: Sequence[str] = (), origin: str = "configuration") -> Self:
        """Validate `values` with overrides applied; `origin` names them in errors."""
        for override in overrides:
            key, separator, text = override.partition("=")
            if not separator or not key:
                raise ConfigError(f"override {override!r} is not of the form a.b=value")
            try:
                value = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise ConfigError(f"override {override!r}: the value is not valid YAML") from error
            _assign(values, key.split("."), value)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{origin}: {describe(error, cls.model_fields)}") from error


def describe(error: ValidationError, known: Collection[str] = ()) -> str:
    """All faults of a validation error on one line: `field: message (value)`; values are shortened.

    Of the names `known`, the nearest is offered in place of an unknown one.
    """
    return "; ".join(_describe(fault, known) for fault in error.errors(include_url=False))


def _describe(fault: ErrorDetails, known: Collection[str]) -> str:
    field = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if not field:  # a rule over several fields, which names those that it is about
        return message
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, known, 1)
        message = f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"
    return f"{field}: {message} (got {fault['input']!r:.60})"


def json_digest(value: object) -> str:
    """SHA-256 (hex) of a JSON-able value, keys sorted, no spaces."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the YAML file at `path`.

    Raises:
        ConfigError: it is missing, malformed, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold a mapping at its top level, not {type(values).__name__}")
    return {str(key): value for key, value in cast(dict[object, Any], values).items()}


def _assign(values: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        group = values.setdefault(key, {})
        if not isinstance(group, dict):
            raise ConfigError(f"override {'.'.join(keys)}: {key} holds a value, not a group of settings")
        values = cast(dict[str, Any], group)
    values[keys[-1]] = value
