"""The wordings in which a user asks for a report: findings alone, or findings and impression."""

from dataclasses import dataclass
from typing import cast

import yaml

from unix.errors import ConfigError
from unix.resources import resource


@dataclass(frozen=True)
class UserPrompts:
    """Twenty wordings of each request."""

    findings: tuple[str, ...]
    findings_and_impression: tuple[str, ...]


def load_user_prompts() -> UserPrompts:
    """The wordings in `prompts/describe/`.

    Raises:
        ConfigError: a file is missing or is not a list of strings.
    """
    return UserPrompts(_read("findings"), _read("findings_and_impression"))


def _read(name: str) -> tuple[str, ...]:
    path = resource("prompts", "describe", f"{name}.yaml")
    try:
        wordings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the user prompts {path}: {error}") from error
    if not isinstance(wordings, list) or not all(isinstance(item, str) for item in cast(list[object], wordings)):
        raise ConfigError(f"{path} must hold a list of strings")
    return tuple(cast(list[str], wordings))
