"""Weights read from a checkpoint onto the ranks that they are spread over, without a whole copy on any of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor

from unix.errors import WeightsError
from unix.model.dual_branch import DualBranch, ModelConfig
from unix.model.vision import VisionTower
from unix.model.weights.native import load_tensors
from unix.model.weights.tensors import TensorSource

_VISION = "vision."


def load_onto_shards(
    config: ModelConfig, weights: Path, device: torch.device, spread: Callable[[DualBranch], None]
) -> DualBranch:
    """The model in a safetensors file: made without memory, spread by `spread`, then filled a tensor at a time.

    Each rank reads the rows that are its own, so its host memory holds no more than its part and one tensor of it.

    Args:
        config: of the model in the file.
        weights: the file.
        device: where the parts lie.
        spread: replaces the model's parameters by sharded ones, split along their first dimension.

    Raises:
        WeightsError: the file is missing or damaged, or a tensor is missing, misshapen or unexpected.
    """
    with torch.device("meta"):
        model = DualBranch(config)
    _check(model, TensorSource.open(weights))
    spread(model)
    model.to_empty(device=device)
    # the only tensor that no file holds
    for name, buffer in model.named_buffers():
        if not name.endswith(".position_ids"):
            raise WeightsError(f"{name} is in no checkpoint, and how to make it is not known")
        buffer.copy_(torch.arange(buffer.numel(), device=device).view_as(buffer))
    with torch.no_grad():
        for name, value in model.state_dict().items():
            with safe_open(weights, "pt") as file:  # opened anew, so that no page of it stays mapped in
                part = value.to_local() if isinstance(value, DTensor) else value
                first = _first_row(value)
                part.copy_(file.get_slice(name)[first : first + len(part)])
    return model


def load_tower(config: ModelConfig, weights: Path) -> VisionTower:
    """The vision tower alone, whole and on the CPU, of the model in a safetensors file. Raises as above."""
    with torch.random.fork_rng(devices=[]):
        tower = VisionTower(config.vision)
    source = TensorSource.open(weights)
    names = {name.removeprefix(_VISION): name for name in source if name.startswith(_VISION)}
    readers = {short: partial(source.__getitem__, name) for short, name in names.items()}
    shapes = {short: source.shapes[name] for short, name in names.items()}
    load_tensors(tower, TensorSource(source.origin, readers, shapes), str(weights))
    return tower


def _first_row(value: Tensor) -> int:
    """Of this rank's part: rows are dealt out in equal pieces, as `torch.chunk` does, the last ones smaller or none."""
    if not isinstance(value, DTensor):
        return 0
    rank, ranks = value.device_mesh.get_local_rank(), value.device_mesh.size()
    return min(rank * -(-value.shape[0] // ranks), value.shape[0])


def _check(model: DualBranch, source: TensorSource) -> None:
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    faults = [f"{name} is missing" for name in wanted if name not in source.shapes]
    faults += [f"{name} is unexpected" for name in source.shapes if name not in wanted]
    faults += [
        f"{name} has shape {source.shapes[name]}, not {shape}"
        for name, shape in wanted.items()
        if source.shapes.get(name, shape) != shape
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise WeightsError(f"{source.origin}: {'; '.join(faults[:5])}{more}")
