"""FSDP2: the model's parameters, gradients and optimizer state spread over the ranks, layer by layer.

The decoder and the tower are called through methods of their own, not `forward`, so each such method is named to FSDP.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from unix.errors import ResumeError, UnixError
from unix.model.dual_branch import DualBranch

STATE_FOLDER = "training_state"
_MODEL_METHODS = ("understanding", "generation", "velocity", "caption_prefix")
_LAYER_METHODS = ("read", "remember", "draw", "step")


def shard(model: DualBranch, world: int, device: torch.device, precision: torch.dtype, cpu_offload: bool) -> None:
    """Spread `model`, which may have no memory yet, over `world` ranks; a decoder layer is gathered at a time.

    Parameters and gradients' sums stay float32; a layer computes in `precision`. Gradients are summed over the ranks,
    not averaged, since losses are divided by counts over the global batch already.
    """
    # nothing writes into what these methods return
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(device.type, (world,))
    settings: dict[str, Any] = {
        "mesh": mesh,
        "mp_policy": MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32),
        "offload_policy": CPUOffloadPolicy() if cpu_offload else OffloadPolicy(),
    }
    for layer in model.layers:
        fully_shard(layer, **settings)
        for method in _LAYER_METHODS:
            register_fsdp_forward_method(layer, method)
    # else its own parameters would stay gathered after a pass without gradients, and be taken for the sharded ones
    fully_shard(model, reshard_after_forward=True, **settings)
    for method in _MODEL_METHODS:
        register_fsdp_forward_method(model, method)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # gloo knows no multiplied sum, and a factor of one needs none
            module.set_force_sum_reduction_for_comms(True)


def gather(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Whole copies on the CPU, one tensor at a time; every rank must call, those without `keep` get nothing."""
    gathered: dict[str, Tensor] = {}
    for name, value in tensors.items():
        part = value.detach()
        whole = part.full_tensor() if isinstance(part, DTensor) else part
        if keep:
            own = part.to_local() if isinstance(part, DTensor) else part
            # on one rank's CPU the whole may be the part itself, which the next step changes
            alias = whole.untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
            gathered[name] = whole.to("cpu", copy=alias)
    return gathered


def save_sharded(folder: Path, state: dict[str, Any], ranks: dist.ProcessGroup | None) -> None:
    """Write a state of sharded tensors; every one of `ranks` must call.

    Raises:
        UnixError: a rank could not write.
    """
    try:
        save(state, checkpoint_id=folder / STATE_FOLDER, process_group=ranks)
    except CheckpointException as error:
        raise UnixError(f"cannot save {folder / STATE_FOLDER}: {error}") from error


def load_sharded(folder: Path, state: dict[str, Any]) -> None:
    """Read into `state`'s tensors, whatever the number of ranks that wrote; every rank must call.

    Raises:
        ResumeError: the files are missing or damaged.
    """
    try:
        load(state, checkpoint_id=folder / STATE_FOLDER)
    except (CheckpointException, OSError, RuntimeError, ValueError) as error:
        raise ResumeError(
            f"{folder / STATE_FOLDER} is missing or damaged ({error}); remove {folder} to resume from the step before"
        ) from error
