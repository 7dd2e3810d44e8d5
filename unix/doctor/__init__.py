"""Checks an installation before a long run: what is there, what is missing, where to get it.

Each check is one line. None of them changes anything, none reads a report, and no key is ever shown.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from unix.config import Config
from unix.doctor.check import Check, DoctorConfig, shards_folder
from unix.doctor.data import check_sets, check_source, check_store
from unix.doctor.disk import check_disk
from unix.doctor.endpoint import check_endpoint
from unix.doctor.machine import check_devices, check_memory, check_packages
from unix.doctor.weights import check_weights
from unix.errors import ConfigError
from unix.resources import resource

if TYPE_CHECKING:
    from unix.training.stages import TrainConfig

__all__ = ["Check", "DoctorConfig", "DoctorSummary", "examine"]


class DoctorSummary(Config):
    """The whole examination."""

    checks: tuple[Check, ...]
    missing: int
    warnings: int


def examine(config: DoctorConfig) -> DoctorSummary:
    """Run every check that the configuration asks for.

    Raises:
        ConfigError: only one of `source` and `root` is given, or there is no such source, preset or endpoint.
    """
    if (config.source is None) != (config.root is None):
        raise ConfigError("give a source's name and its folder together (--source NAME --root DIR)")
    stages = _stages(config)
    groups: tuple[Callable[[], Iterator[Check]], ...] = (
        check_packages,
        lambda: check_devices(stages),
        lambda: check_memory(stages),
        lambda: check_store(config),
        lambda: check_source(config),
        lambda: check_weights(config, stages),
        lambda: check_sets(config, stages),
        lambda: check_disk(config, stages),
        lambda: check_endpoint(config),
    )
    checks = tuple(check for group in groups for check in group())
    count = [check.state for check in checks].count
    return DoctorSummary(checks=checks, missing=count("missing"), warnings=count("warning"))


def _stages(config: DoctorConfig) -> "list[TrainConfig]":
    if config.preset is None:
        return []
    try:
        from unix.training.stages import load_stage
    except ImportError:  # without torch, which has a line of its own
        return []
    folder = resource("presets", config.preset)
    names = sorted(path.stem for path in folder.glob("stage*.yaml"))
    if not names:
        there = sorted(path.name for path in resource("presets").iterdir() if path.is_dir())
        raise ConfigError(f"there is no preset {config.preset}; there are {', '.join(there)}")
    places = (f"shards={shards_folder(config)}", f"run_dir={config.runs}", f"from_checkpoint={config.start or 'none'}")
    return [load_stage(name, preset=config.preset, overrides=places) for name in names]
