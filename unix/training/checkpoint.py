"""A run's folder on disk: whole checkpoints `step-<N>/`, published by rename; reasons not to resume from one."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError

from unix.config import Config
from unix.errors import ConfigError, ResumeError, UnixError
from unix.runs import META_FILE, Meta, newest_checkpoint, read_meta

__all__ = [
    "META_FILE",
    "STATE_FILE",
    "Meta",
    "RetentionConfig",
    "check_resumable",
    "claim",
    "discard_partial",
    "load_state",
    "newest_checkpoint",
    "prune",
    "publish",
    "read_meta",
    "save_state",
    "step_folder",
]

STATE_FILE = "training_state.pt"
_LOCK_FILE = ".lock"


class RetentionConfig(Config):
    """Which checkpoints of a run stay; the newest always does."""

    newest: PositiveInt | None = None
    """So many of the newest stay; None keeps all."""
    every: PositiveInt | None = None
    """Those at a multiple of so many steps stay as well."""


def step_folder(run_dir: str | Path, step: int) -> Path:
    """`<run_dir>/step-<N>`."""
    return Path(run_dir) / f"step-{step}"


@contextmanager
def claim(run_dir: str | Path) -> Generator[None]:
    """Hold a run's folder while open, so that no other process trains in it; a killed one lets go of it.

    Raises:
        ConfigError: another process holds it.
    """
    folder = Path(run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(f"another process trains in {folder}: wait for it, or give another run_dir") from error
        yield


def publish(run_dir: str | Path, meta: Meta, write: Callable[[Path], None], main: bool = True) -> Path:
    """Let `write` fill a folder aside, add `meta.json`, rename it to `step-<N>`: a crash leaves no half checkpoint.

    Where several ranks write into the folder all of them call this, one of them as `main`.

    Raises:
        UnixError: the disk is full or faulty; checkpoints that were there are untouched.
    """
    target = step_folder(run_dir, meta.step)
    aside = target.with_name(f".{target.name}.partial")
    try:
        aside.mkdir(parents=True, exist_ok=True)
        write(aside)
        if not main:
            return target
        (aside / META_FILE).write_text(json.dumps(meta.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
        _reach_the_disk(aside)
        if target.exists():
            shutil.rmtree(target)
        aside.replace(target)
        _synchronise(target.parent)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch reports a full disk as a RuntimeError
        shutil.rmtree(aside, ignore_errors=True)
        last = newest_checkpoint(run_dir)
        kept = f"the last whole checkpoint is {last}" if last is not None else "there is no whole checkpoint yet"
        raise UnixError(
            f"cannot save {target}: {error}; {kept}. Make room on the disk, then continue with --resume"
        ) from error
    return target


def discard_partial(run_dir: str | Path, step: int) -> None:
    """Remove what a killed run left of the checkpoint of `step`."""
    target = step_folder(run_dir, step)
    shutil.rmtree(target.with_name(f".{target.name}.partial"), ignore_errors=True)


def prune(run_dir: str | Path, retention: RetentionConfig) -> None:
    """Remove the checkpoints that the retention does not keep."""
    if retention.newest is None:
        return
    steps = sorted(int(path.parent.name.removeprefix("step-")) for path in Path(run_dir).glob(f"step-*/{META_FILE}"))
    for step in steps[: -retention.newest]:
        if retention.every is None or step % retention.every:
            folder = step_folder(run_dir, step)
            (folder / META_FILE).unlink()  # first: a half removed folder is no checkpoint
            shutil.rmtree(folder)


def _reach_the_disk(folder: Path) -> None:
    for path in folder.rglob("*"):
        _synchronise(path)
    _synchronise(folder)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write the optimizer's side of a checkpoint."""
    torch.save(state, folder / STATE_FILE)


def load_state(folder: Path) -> dict[str, Any]:
    """Read what `save_state` wrote; tensors and plain values only, never code.

    Raises:
        ResumeError: the file is missing or damaged.
    """
    path = folder / STATE_FILE
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise ResumeError(
            f"{path} is missing or damaged ({error}); remove {folder} to resume from the step before"
        ) from error


def check_resumable(folder: Path, meta: Meta, expected: Meta) -> None:
    """Refuse to continue a run whose data, stage, seed or architecture is not the one it began with.

    Raises:
        ResumeError: naming the first difference and both values.
    """
    for field, remedy in (
        ("stage", "give this stage a run_dir of its own"),
        ("architecture_digest", "start a new run for another architecture"),
        ("shards_digest", "point `shards` at the set the run began with, or start a new run with --from"),
        ("seed", "resume with the seed the run began with"),
    ):
        found, wanted = getattr(meta, field), getattr(expected, field)
        if found != wanted:
            raise ResumeError(f"{folder}: {field} is {found} there and {wanted} in this configuration; {remedy}")
    if meta.step > expected.steps:
        raise ResumeError(f"{folder} is at step {meta.step}, past this configuration's steps {expected.steps}")
