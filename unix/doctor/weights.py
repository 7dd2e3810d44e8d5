"""Checks of the weights that a preset names: there, whole, and which by a digest of their header."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from unix.doctor.check import GIB, Check, DoctorConfig
from unix.errors import WeightsError
from unix.runs import newest_checkpoint
from unix.tensor_file import read_header

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
        file = read_header(weights)
    except WeightsError as error:
        return Check(name=name, state="missing", found=str(error), remedy="fetch or convert it again")
    size = f"{file.num_bytes / GIB:.2f} GiB"
    return Check(name=name, state="ok", found=f"{path}: {file.num_tensors} tensors, {size}, header {file.digest}")
