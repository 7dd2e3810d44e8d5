"""Every option says what it is and what holds without it, and says it truly."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from unix.cli import app
from unix.config import Config
from unix.data.cleaning.compare import CompareConfig
from unix.data.cleaning.parts import PartsConfig
from unix.data.cleaning.server import EndpointConfig
from unix.data.landing import WatchConfig
from unix.data.phantom import PhantomConfig
from unix.data.shards import ShardsConfig
from unix.data.splits import SplitsConfig
from unix.evaluation.predict import DescribeConfig, GenerateConfig
from unix.registry.decision import DecideConfig
from unix.registry.retraining import PlanConfig as RetrainingConfig
from unix.training.latents import LatentsConfig
from unix.training.plan import PlanConfig
from unix.web.app import ServeConfig

STATED = re.compile(r"default: (\S+?)\.?$|(\S+) \(the default\)")


def parameters(command: Any, path: str = "unix") -> Iterator[tuple[str, Any]]:
    """Each command's path with each of its parameters."""
    for parameter in command.params:
        yield path, parameter
    for name, inner in getattr(command, "commands", {}).items():
        yield from parameters(inner, f"{path} {name}")


ALL = {f"{path} {parameter.name}": parameter for path, parameter in parameters(typer.main.get_command(app))}


@pytest.mark.parametrize("name", ALL)
def test_an_option_says_what_it_is_and_what_holds_without_it(name: str) -> None:
    parameter = ALL[name]
    assert parameter.help
    assert parameter.help.endswith(".")
    assert parameter.is_flag if parameter.metavar is None else True, "such as <int range> tells a reader nothing"
    if parameter.param_type_name == "option" and not (parameter.required or parameter.is_flag):
        stated = parameter.default is not None or "default" in parameter.help.lower()
        assert stated or "with --" in parameter.help or parameter.name in ("json", "from_checkpoint")


@pytest.mark.parametrize(
    ("command", "config", "options"),
    [
        ("phantom", PhantomConfig, ("seed", "first_study", "image_size")),
        ("watch", WatchConfig, ("interval",)),
        ("clean", PartsConfig, ("prompt", "engine")),
        ("clean compare", CompareConfig, ("sample",)),
        ("endpoint", EndpointConfig, ("port",)),
        ("splits", SplitsConfig, ("seed",)),
        ("shards", ShardsConfig, ("sets",)),
        ("shards latents", LatentsConfig, ("batch",)),
        ("describe", DescribeConfig, ("batch", "temperature", "top_p", "seed")),
        ("generate", GenerateConfig, ("batch", "num_steps", "guidance", "seed")),
        ("plan", PlanConfig, ("gpus", "tokens", "tflops", "utilisation")),
        ("models plan", RetrainingConfig, ("runs", "preset", "min_new_studies", "test_set")),
        ("models decide", DecideConfig, ("test_set", "encoder")),
        ("serve", ServeConfig, ("host", "port", "runs")),
    ],
)
def test_a_stated_default_is_the_configurations(command: str, config: type[Config], options: tuple[str, ...]) -> None:
    for option in options:
        default = config.model_fields[option].default
        text = ",".join(default) if isinstance(default, tuple) else str(default).removesuffix(".0")
        found = STATED.search(ALL[f"unix {command} {option}"].help)
        assert found is not None, option
        assert (found[1] or found[2]) == text, option
