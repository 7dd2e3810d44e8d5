"""Checks of the weights that a preset names: there, whole, and which by a digest of their header."""

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from unix.doctor.check import GIB, Check, DoctorConfig
from unix.runs import newest_checkpoint

if TYPE_CHECKING:
    from unix.training.stages import TrainConfig

WEIGHTS_GUIDE = "docs/weights.md"


def check_weights(config: DoctorConfig, stages: "list[TrainConfig]") -> Iterator[Check]:
    """The folders that the stages name, and the weights to start from."""
    from unix.training.stages import Stage

    if not stages:
        return
    starts = all(stage.stage != Stage.WARM_START for stage in stages)
    if config.start is not None:
        yield _folder_of_weights("weights to start from", config.start, ("model.safetensors", "model.json"))
    elif starts:
        yield Check(
            name="weights to start from",
            state="warning",
            found="not named, so not looked at",
            remedy=f"name the converted Janus-Pro-1B with --from; {WEIGHTS_GUIDE} says how to make it",
        )
    places = dict[tuple[str, str], tuple[str, ...]]()
    for stage in stages:
        if stage.generation is None:
            continue
        if stage.generation.autoencoder is not None:
            places["autoencoder", stage.generation.autoencoder] = ("vae.safetensors", "vae.json")
        wanted = stage.generation.alignment
        if wanted is not None and wanted.encoder != "vision-tower":
            files = ("model.safetensors", "config.json", "preprocessor_config.json")
            places["alignment encoder", wanted.encoder] = files
    for (name, folder), files in places.items():
        yield _folder_of_weights(name, folder, files)


def _folder_of_weights(name: str, folder: str, files: tuple[str, ...]) -> Check:
    """Whether the files are there and the first of them is as long as its header says."""
    path = newest_checkpoint(folder) or Path(folder)
    absent = [file for file in files if not (path / file).is_file()]
    if absent:
        return Check(
            name=name,
            state="missing",
            found=f"{path} lacks {', '.join(absent)}",
            remedy=f"{WEIGHTS_GUIDE} says where to get it and how to convert it",
        )
    weights = path / files[0]
    try:
        header, size = _safetensors_header(weights)
    except ValueError as error:
        return Check(name=name, state="missing", found=f"{weights}: {error}", remedy="fetch or convert it again")
    numbers = sum(1 for key in header if key != "__metadata__")
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]
    return Check(name=name, state="ok", found=f"{path}: {numbers} tensors, {size / GIB:.2f} GiB, header {digest}")


def _safetensors_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and the file's size.

    Raises:
        ValueError: it is none, or not as long as its header says.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("no safetensors file")
            header = cast(dict[str, Any], json.loads(file.read(length)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (struct.error, json.JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise ValueError("no safetensors file") from error
    whole = 8 + length + max(ends, default=0)
    if size != whole:
        raise ValueError(f"{size} bytes instead of {whole}: it was cut off")
    return header, size
