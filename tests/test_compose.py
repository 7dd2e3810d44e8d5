"""compose.yaml as Docker Compose reads it: known keys, references that exist, commands that this checkout has."""

import importlib.util
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from unix.cli import run


class Strict(BaseModel):
    """Unknown keys are refused, as Compose does."""

    model_config = ConfigDict(extra="forbid", strict=True)


def _seconds_or_minutes(text: str) -> str:
    assert re.fullmatch(r"(\d+(ms|s|m|h))+", text), text
    return text


Duration = Annotated[str, AfterValidator(_seconds_or_minutes)]


class Healthcheck(Strict):
    """How Docker asks whether a service works."""

    test: list[str] = Field(min_length=2)
    interval: Duration
    retries: int


class Dependency(Strict):
    """What a service waits for."""

    condition: Literal["service_started", "service_healthy", "service_completed_successfully"]


class EnvironmentFile(Strict):
    """A file of variables."""

    path: str
    required: bool


class Service(Strict):
    """One service, with the keys that this file uses."""

    build: Literal["."] | None = None
    image: str
    restart: Literal["no", "always", "on-failure", "unless-stopped"]
    command: str | None = None
    environment: dict[str, str]
    env_file: list[EnvironmentFile] = []
    volumes: list[Annotated[str, Field(pattern=r"^[\w./-]+:/[\w./-]+(:ro)?$")]]
    ports: list[Annotated[str, Field(pattern=r"^127\.0\.0\.1:\d+:\d+$")]] = []
    depends_on: dict[str, Dependency] = {}
    healthcheck: Healthcheck | None = None
    stop_grace_period: Duration | None = None


class Compose(Strict):
    """The file, without its extension fields."""

    services: dict[str, Service]
    volumes: dict[str, None]


@pytest.fixture
def compose(repository: Path) -> Compose:
    values = yaml.safe_load((repository / "compose.yaml").read_text())
    return Compose.model_validate({name: value for name, value in values.items() if not name.startswith("x-")})


def test_services_wait_only_for_what_can_come(compose: Compose) -> None:
    """A service that is waited for to be healthy says when it is; one that is to complete is not restarted for ever."""
    for name, service in compose.services.items():
        for other, dependency in service.depends_on.items():
            assert other != name
            waited_for = compose.services[other]
            if dependency.condition == "service_healthy":
                assert waited_for.healthcheck
            if dependency.condition == "service_completed_successfully":
                assert waited_for.restart in ("no", "on-failure")


def test_named_volumes_are_declared_and_others_are_folders_of_this_checkout(compose: Compose) -> None:
    sources = [volume.split(":")[0] for service in compose.services.values() for volume in service.volumes]
    assert {source for source in sources if not source.startswith("./")} == set(compose.volumes)


def test_commands_exist(compose: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    for service in compose.services.values():
        if service.build is None or service.command is None:
            continue
        program, *words = shlex.split(service.command)
        if program == "python":
            assert words[0] == "-m"
            assert importlib.util.find_spec(words[1])
        elif program == "unix":
            assert run([words[0], "--help"]) == 0
            told = capsys.readouterr().out
            assert all(word in told for word in words if word.startswith("--"))
        else:
            assert (program, *words[:2]) == ("prefect", "server", "start")


def test_every_variable_has_a_default_or_is_asked_for(repository: Path) -> None:
    """Compose would take an unset variable for "", and a service without a password would start."""
    text = (repository / "compose.yaml").read_text()
    variables: list[Any] = re.findall(r"(?<!\$)\$\{?(\w+)(:[-?])?", text)
    assert variables
    assert all(operator in (":-", ":?") for _, operator in variables)


def test_secrets_stay_out_of_the_image_and_out_of_git(repository: Path, compose: Compose) -> None:
    files = {file.path for service in compose.services.values() for file in service.env_file}
    assert files
    for ignored in (".dockerignore", ".gitignore"):
        assert files <= {line.strip("/") for line in (repository / ignored).read_text().splitlines()}
