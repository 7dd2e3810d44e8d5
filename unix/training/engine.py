"""Where the ranks of a run meet: sums of counts and gradients, who writes. One process is a world of one."""

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import torch
import torch.distributed as dist
from pydantic import PositiveFloat, TypeAdapter
from torch import Tensor, nn
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]: "not exported", yet documented
from torch.distributed.tensor import DTensor

from unix.config import Config
from unix.errors import ConfigError
from unix.model.dual_branch import DualBranch, ModelConfig
from unix.model.weights.native import load_model, read_config
from unix.training import sharding
from unix.training.background import staged
from unix.training.checkpoint import load_state, save_state
from unix.training.rates import matmul_rate, memory_in_use
from unix.training.streamed import load_onto_shards

Item = TypeVar("Item")


class EngineConfig(Config):
    """How a run uses its devices; the losses are the same up to rounding."""

    sharding: Literal["none", "full"] = "none"
    """`none`: every rank holds the whole model. `full`: FSDP2 spreads weights, gradients and moments over the ranks."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; weights, gradients' sums, moments and losses are float32 either way."""
    cpu_offload: bool = False
    """With `full` sharding, keep what is spread in host memory."""
    recompute_layers: bool = False
    """Run each decoder layer again in the backward pass rather than keep its activations: less memory, more time."""
    peak_tflops: PositiveFloat | None = None
    """Peak of one device in `precision`, 10^12 operations a second, for `model_flops_utilisation` in the metrics; None
    measures large matrix products once."""


@dataclass(frozen=True)
class Place:
    """Which rank a process is, of how many, and where they meet."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Rank among this machine's processes: its GPU."""
    rendezvous: str = "env://"
    """Where torch.distributed gathers the ranks."""

    @classmethod
    def of_this_process(cls) -> "Place":
        """As torchrun says in the environment; the only rank without it."""
        rank, world, local = (int(os.environ.get(name, default)) for name, default in _TORCHRUN)
        return cls(rank, world, local)


_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


class Engine:
    """Data parallelism by summed gradients.

    Losses are already divided by counts over the whole global batch, so gradients are summed, never averaged, and one
    rank with four micro-batches does what four ranks with one do.
    """

    def __init__(self, place: Place, config: EngineConfig | None = None) -> None:
        self._place, self._config = place, config or EngineConfig()
        self.rank, self.world = place.rank, place.world
        self._writers: dist.ProcessGroup | None = None
        self.device = torch.device("cuda", place.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def __enter__(self) -> Self:
        if self.world > 1 or self.is_sharded:
            alone = self.world == 1
            dist.init_process_group(
                "nccl" if self.device.type == "cuda" else "gloo",
                init_method=None if alone else self._place.rendezvous,
                store=HashStore() if alone else None,
                rank=self.rank,
                world_size=self.world,
            )
            # what is written in the background must not meet the training's messages, and wants no GPU
            self._writers = self._gloo_group() if self.is_sharded else None
        return self

    def _gloo_group(self) -> dist.ProcessGroup:
        group = dist.new_group(backend="gloo")
        if not isinstance(group, dist.ProcessGroup):
            raise ConfigError("this process is not among the ranks that it was started with")
        return group

    def __exit__(self, *_: object) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_sharded(self) -> bool:
        """Whether the model is spread over the ranks."""
        return self._config.sharding == "full"

    def load(self, folder: Path, config: ModelConfig) -> DualBranch:
        """The model in a checkpoint's folder, on this rank's device or spread over all of them.

        Raises:
            ConfigError: the folder holds another architecture than `config`.
            WeightsError: its weights are missing, damaged or do not fit.
        """
        held = read_config(folder / "model.json", TypeAdapter(ModelConfig))
        if held != config:
            raise ConfigError(
                f"{folder} holds another architecture than the one configured; use the preset it came from"
            )
        if self.is_sharded:
            place = torch.device("cpu") if self._config.cpu_offload else self.device
            model = load_onto_shards(config, folder / "model.safetensors", place, self._spread)
        else:
            model = load_model(folder)[0].to(self.device)
        model.recompute_layers = self._config.recompute_layers
        return model

    def _spread(self, model: DualBranch) -> None:
        precision = getattr(torch, self._config.precision)
        sharding.shard(model, self.world, self.device, precision, self._config.cpu_offload)

    def autocast(self) -> AbstractContextManager[object]:
        """Compute in the configured precision while open; a sharded model does so by itself."""
        if self._config.precision == "float32" or self.is_sharded:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def stage(self, state: dict[str, Any], model: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Copies in host memory of a checkpoint's two sides, the model's whole. Every rank calls.

        A rank gets what it will write: its part of a sharded state; state and model as a whole on the main one only.
        """
        if self.is_sharded:
            return staged(state), sharding.gather(model, self.is_main)
        both = staged({"state": state, "model": model}) if self.is_main else {"state": {}, "model": {}}
        return both["state"], both["model"]

    def save_state(self, folder: Path, state: dict[str, Any]) -> None:
        """Write the optimizer's side of a checkpoint as `stage` gave it, in any thread. Every writing rank calls."""
        if self.is_sharded:
            sharding.save_sharded(folder, state, self._writers)
        elif self.is_main:
            save_state(folder, state)

    def load_state(self, folder: Path, like: dict[str, Any]) -> dict[str, Any]:
        """Read what `save_state` wrote; `like` is a state of the same shape, which may be overwritten."""
        if not self.is_sharded:
            return load_state(folder)
        sharding.load_sharded(folder, like)
        return like

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the model, its meta data and the metrics."""
        return self.rank == 0

    @property
    def writes(self) -> bool:
        """Whether this rank writes any part of a checkpoint."""
        return self.is_main or self.is_sharded

    @functools.cached_property
    def peak_flops(self) -> float:
        """FLOP/s of all ranks' devices at most, as configured or else as this rank's device multiplies matrices."""
        given = self._config.peak_tflops
        precision = getattr(torch, self._config.precision)
        return self.world * (matmul_rate(self.device, precision) if given is None else given * 1e12)

    def memory_gb(self) -> float:
        """GiB that this rank takes: the most so far on its GPU, or what its process holds."""
        return memory_in_use(self.device) / 2**30

    def share(self, items: Sequence[Item]) -> list[Item]:
        """This rank's part of the global batch."""
        return list(items[self.rank :: self.world])

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """Each number summed over the ranks."""
        if self.world == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(values)
        return values.tolist()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients over the ranks in place, as one flat message; sharded parameters have theirs summed already."""
        parameters = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        if self.world == 1 or not parameters:
            return
        gradients = [
            parameter.grad if parameter.grad is not None else torch.zeros_like(parameter) for parameter in parameters
        ]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, piece in zip(parameters, gradients, pieces, strict=True):
            parameter.grad = piece.view_as(gradient)

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all ranks, in their order."""
        if self.world == 1:
            return list(items)
        gathered: list[list[Item]] = [[] for _ in range(self.world)]
        dist.all_gather_object(gathered, list(items))
        return [item for part in gathered for item in part]

    def sum_rows(self, rows: Tensor | None) -> Tensor:
        """A table of which each rank filled its own rows and left zeros elsewhere (None: it had none to fill)."""
        if self.world == 1:
            if rows is None:
                raise ValueError("a single process must fill every row")
            return rows
        shapes: list[tuple[int, ...] | None] = [None] * self.world
        dist.all_gather_object(shapes, None if rows is None else tuple(rows.shape))
        shape = next(item for item in shapes if item is not None)
        table = torch.zeros(shape, device=self.device) if rows is None else rows
        dist.all_reduce(table)
        return table

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.world > 1:
            dist.barrier()
