"""Checks of the room for what a preset's runs will write: shard sets and checkpoints."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from unix.doctor.check import FLOAT32, GIB, Check, DoctorConfig, shards_folder
from unix.doctor.data import set_names, source_manifest_name
from unix.doctor.machine import count_parameters
from unix.errors import UnixError

if TYPE_CHECKING:
    from unix.manifest import Manifest
    from unix.store import Store
    from unix.training.stages import TrainConfig

_JPEG_BYTES_PER_PIXEL = 0.25
"""Of a padded radiograph as grayscale JPEG of quality 95; 60 real ones average 0.26, 0.22, 0.21 at 256, 384, 512."""
_SAMPLE_OVERHEAD = 3_000
"""Bytes of a sample's JSON, its tar headers and its line in the index."""
_LATENT_BYTES_PER_PIXEL = 2 * 2 * 16 / 16**2
"""Mean and log-variance of 16 channels in float16, one position for 16 x 16 pixels."""


def check_disk(config: DoctorConfig, stages: "list[TrainConfig]") -> Iterator[Check]:
    """Room for what is still to be written: shard sets where they go, checkpoints where runs go."""
    needs = dict[str, tuple[str, float]]()
    if "://" not in shards_folder(config):
        needs["disk for shards"] = (shards_folder(config), _bytes_of_sets(config, stages))
    needs["disk for runs"] = (config.runs, sum(map(_bytes_of_checkpoints, stages)))
    shared: dict[int, float] = {}
    for name, (folder, need) in needs.items():
        place = _existing(Path(folder))
        device = place.stat().st_dev
        shared[device] = shared.get(device, 0.0) + need
        free, together = shutil.disk_usage(place).free, shared[device]
        tight = free < 1.1 * together
        writable = os.access(place, os.W_OK)
        yield Check(
            name=name,
            state="missing" if tight or not writable else "ok",
            found=f"{free / GIB:.0f} GiB free at {place}"
            + (f"; about {need / GIB:.3g} to come" if need else "")
            + (f", {together / GIB:.3g} with the above on the same disk" if together > need > 0 else "")
            + ("" if writable else "; not writable"),
            remedy="" if writable and not tight else "make room, or name another folder (--shards, --runs)",
        )


def _existing(path: Path) -> Path:
    """The folder or the nearest one above it that exists."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.is_dir())


def _bytes_of_sets(config: DoctorConfig, stages: "list[TrainConfig]") -> float:
    """What the sets that are not finished yet will take."""
    from unix.manifest import find_manifest
    from unix.store import Store

    images, need = _images_to_come(config, Store(config.store)), 0.0
    for name in set_names(stages):
        known: Manifest | None = None
        with suppress(UnixError):  # a damaged one is to be built again
            known = find_manifest(Path(shards_folder(config)) / name)
        if known is None:
            match = re.search(r"-(\d+)(-latents)?$", name)
            side, latents = (int(match[1]), bool(match[2])) if match else (0, False)
            per_pixel = _LATENT_BYTES_PER_PIXEL if latents else _JPEG_BYTES_PER_PIXEL
            need += images * (side**2 * per_pixel + _SAMPLE_OVERHEAD)
    return need


def _images_to_come(config: DoctorConfig, store: "Store") -> int:
    """At most so many images end in one set: those of the store, else those of the source's manifest."""
    import polars as pl

    from unix.data.sources.manifest import load_manifest

    try:
        known = store.scan("images").select(pl.len()).collect().item()
    except UnixError:
        known = 0  # said by the store's own check
    if known:
        return int(known)
    return (load_manifest(source_manifest_name(config.source)).images or 0) if config.source is not None else 0


def _bytes_of_checkpoints(stage: "TrainConfig") -> float:
    """What a stage's run holds at its end, and the one that is being written aside."""
    everything, trained = count_parameters(stage)
    copies = 2 + (stage.optimizer.average_decay is not None)
    one = FLOAT32 * (everything + copies * trained)
    kept = range(stage.checkpoint_every, stage.steps + 1, stage.checkpoint_every)
    count = len(kept)
    if stage.retention.newest is not None:
        by_interval = [step for step in kept if stage.retention.every and step % stage.retention.every == 0]
        count = len({*by_interval, *kept[-stage.retention.newest :]})
    return one * (max(1, count) + 1)
