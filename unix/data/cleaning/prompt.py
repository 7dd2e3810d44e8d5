"""Versioned prompts for cleaning: system text, answer schema, worked examples; frozen once rows were made with them."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict, cast

import polars as pl

from unix.errors import ConfigError
from unix.resources import resource
from unix.store import Store

PRIOR_REFERENCE = "prior_reference"
"""Category of references to earlier studies; a prompt that lists it asks for their removal."""

_OPEN, _CLOSE = "<report>\n", "\n</report>"
_FILES = ("examples.json", "schema.json", "system.md")


class Message(TypedDict):
    """One message of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class CleanPrompt:
    """A version of the cleaning prompt. The messages before the report are the same bytes for every report."""

    version: str
    digest: str
    """SHA-256 (hex) over the version's files."""
    schema: dict[str, Any]
    """JSON schema of the answer."""
    prefix: tuple[Message, ...]
    """System text and worked examples."""

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories of noise that are to be removed."""
        return categories_of(self.schema)

    @property
    def removes_priors(self) -> bool:
        """Whether references to earlier studies are to go."""
        return PRIOR_REFERENCE in self.categories

    def messages(self, report: str) -> list[Message]:
        """The chat that asks for one report: the constant prefix, then the report."""
        return [*self.prefix, {"role": "user", "content": wrap_report(report)}]


def load_prompt(version: str) -> CleanPrompt:
    """The prompt in `prompts/clean_report/<version>/`.

    Raises:
        ConfigError: there is no such version, or one of its files is missing or malformed.
    """
    folder = resource("prompts", "clean_report", version)
    if not version.isalnum() or not folder.is_dir():
        known = sorted(path.name for path in resource("prompts", "clean_report").iterdir() if path.is_dir())
        raise ConfigError(f"no cleaning prompt {version!r}; there are {', '.join(known)}")
    digest = hashlib.sha256()
    content: dict[str, str] = {}
    for name in _FILES:
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            raise ConfigError(f"prompt {version}: cannot read {folder / name}: {error.strerror}") from error
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
        content[name] = data.decode("utf-8")
    try:
        schema = cast(dict[str, Any], json.loads(content["schema.json"]))
        examples = cast(list[dict[str, Any]], json.loads(content["examples.json"]))
        prefix: list[Message] = [{"role": "system", "content": content["system.md"]}]
        for example in examples:
            prefix.append({"role": "user", "content": wrap_report(example["report"])})
            prefix.append({"role": "assistant", "content": json.dumps(example["answer"], ensure_ascii=False)})
        prompt = CleanPrompt(version, digest.hexdigest(), schema, tuple(prefix))
        if not prompt.categories:
            raise KeyError("categories")
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"prompt {version}: its schema or examples are malformed ({error})") from error
    return prompt


def check_frozen(store: Store, prompt: CleanPrompt) -> None:
    """Refuse a version whose files changed after rows were made with it.

    Raises:
        ConfigError: the store holds rows of this version with another digest.
    """
    made_with = (
        store.scan("cleaned_reports")
        .filter(pl.col("prompt_version") == prompt.version)
        .select(pl.col("prompt_digest").unique())
        .collect()["prompt_digest"]
        .to_list()
    )
    if others := [digest for digest in made_with if digest != prompt.digest]:
        raise ConfigError(
            f"prompt {prompt.version} is frozen: {store.uri} holds rows made with digest {others[0][:12]}, the files "
            f"now give {prompt.digest[:12]}; restore the files, or copy them to a new version and change that"
        )


def wrap_report(report: str) -> str:
    """The user message that carries a report."""
    return f"{_OPEN}{report}{_CLOSE}"


def unwrap_report(message: str) -> str | None:
    """The report in a user message, or None where the message carries none."""
    if not message.startswith(_OPEN) or not message.endswith(_CLOSE):
        return None
    return message[len(_OPEN) : -len(_CLOSE)]


def categories_of(schema: dict[str, Any]) -> tuple[str, ...]:
    """The noise categories that an answer schema allows; () where it names none."""
    try:
        return tuple(schema["properties"]["removed"]["items"]["properties"]["category"]["enum"])
    except (KeyError, TypeError):
        return ()
