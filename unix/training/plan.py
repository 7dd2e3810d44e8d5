"""What a stage will need: parameters, memory per GPU, FLOPs, hours. Nothing of the model is allocated.

One micro-batch's forward and backward pass runs over tensors that have shapes and no data; every operation is seen, its
FLOPs counted by torch's own formulas, and the memory of what is alive added up.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from unix.config import Config
from unix.errors import ConfigError
from unix.model.dual_branch import CaptionPrefix, DualBranch
from unix.model.latent import DOWNSAMPLING
from unix.model.layers import position_table
from unix.training.losses import generation_losses, understanding_losses
from unix.training.objectives import train_only
from unix.training.stages import Stage, TrainConfig

_GIB = 2**30
_FLOAT32 = 4
_MOMENTS = 2
_USABLE = 0.95
"""Share of a GPU's memory that a run can count on."""


class PlanConfig(Config):
    """The stage to plan, and the machine to plan it for."""

    train: TrainConfig
    gpus: PositiveInt = 1
    gpu_memory_gb: float | None = Field(default=None, gt=0)
    """Memory of one GPU in GiB."""
    tokens: PositiveInt = 160
    """Text positions of a sample: prompt and report in stage 1, caption in stages 2 and 3."""
    tflops: float = Field(default=150.0, gt=0)
    """Dense bfloat16 peak of one GPU, 10^12 operations a second."""
    utilisation: float = Field(default=0.35, gt=0, le=1)
    """Share of that peak that training reaches."""


class PlanSummary(Config):
    """What the stage takes. Memory is in GiB per GPU."""

    stage: str
    parameters: int
    trained_parameters: int
    gpus: int
    micro_batch: int
    micro_batches_per_step: int
    """On each GPU."""
    weights_gb: float
    gradients_gb: float
    optimizer_gb: float
    """AdamW's moments, and the moving average where there is one."""
    activations_gb: float
    """Everything else at the peak: what the backward pass needs, gathered layers, casts."""
    peak_gb: float
    gpu_memory_gb: float | None
    fits: bool | None
    """None where the GPU's memory was not given."""
    tflop_per_step: float
    """10^12 operations of forward and backward passes over the global batch; frozen image encoders are not in it."""
    steps: int
    seconds_per_step: float
    hours: float
    assumed: str
    """What the hours rest on."""

    def with_measured(self, seconds_per_step: float, peak_gb: float) -> "PlanSummary":
        """The same with time and peak as a rehearsal found them."""
        given = self.gpu_memory_gb
        return self.model_copy(
            update={
                "seconds_per_step": seconds_per_step,
                "hours": seconds_per_step * self.steps / 3600,
                "peak_gb": peak_gb,
                "fits": None if given is None else peak_gb <= _USABLE * given,
                "assumed": "nothing: measured on this machine",
            }
        )


def plan(config: PlanConfig) -> PlanSummary:
    """Work out one stage.

    Raises:
        ConfigError: stage 0 is asked for, or the global batch does not divide over the GPUs.
    """
    train = config.train
    if train.stage == Stage.WARM_START:
        raise ConfigError("stage0 is for the tiny presets, on the CPU: there is nothing to plan; ask for stage1 to 3")
    if train.global_batch % config.gpus:
        raise ConfigError(f"global_batch {train.global_batch} does not divide over {config.gpus} GPUs")
    per_gpu = train.global_batch // config.gpus
    micro_batch = min(train.micro_batch, per_gpu)
    traced = _trace(train, micro_batch, config.tokens)
    average = 1 if train.optimizer.average_decay is not None else 0
    shards = config.gpus if train.engine.sharding == "full" else 1
    weights = _FLOAT32 * traced.parameters / shards
    gradients = _FLOAT32 * traced.trained / shards
    moments = _FLOAT32 * traced.trained * (_MOMENTS + average) / shards
    activations = float(traced.peak - _FLOAT32 * (traced.parameters + traced.trained))
    if shards > 1:  # two layers gathered at a time, and what is outside the layers
        width = 2 if train.engine.precision == "bfloat16" else _FLOAT32
        activations += width * (2 * traced.layer + traced.outside)
    elif config.gpus > 1:
        activations += gradients  # the flat message in which gradients are summed
    peak = weights + gradients + moments + max(activations, 0.0)
    flops = traced.flops * train.global_batch / micro_batch
    seconds = flops / (config.gpus * config.tflops * 1e12 * config.utilisation)
    return PlanSummary(
        stage=train.stage,
        parameters=traced.parameters,
        trained_parameters=traced.trained,
        gpus=config.gpus,
        micro_batch=micro_batch,
        micro_batches_per_step=-(-per_gpu // micro_batch),
        weights_gb=weights / _GIB,
        gradients_gb=gradients / _GIB,
        optimizer_gb=moments / _GIB,
        activations_gb=max(activations, 0.0) / _GIB,
        peak_gb=peak / _GIB,
        gpu_memory_gb=config.gpu_memory_gb,
        fits=None if config.gpu_memory_gb is None else peak / _GIB <= _USABLE * config.gpu_memory_gb,
        tflop_per_step=flops / 1e12,
        steps=train.steps,
        seconds_per_step=seconds,
        hours=seconds * train.steps / 3600,
        assumed=f"{config.utilisation:.0%} of {config.tflops:g} TFLOP/s a GPU, texts of {config.tokens} tokens",
    )


class _Traced:
    """What one micro-batch came to; of the joint stage, a mean of its two kinds, and the higher peak."""

    def __init__(self, model: DualBranch, peak: int, flops: float) -> None:
        self.parameters = sum(value.numel() for value in model.parameters())
        self.trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
        self.layer = sum(value.numel() for value in model.layers[0].parameters())
        self.outside = self.parameters - len(model.layers) * self.layer
        self.peak, self.flops = peak, flops


def _trace(config: TrainConfig, micro_batch: int, tokens: int) -> _Traced:
    with torch.device("meta"):
        model = DualBranch(config.model)
    ledger = _Ledger()
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device="cpu")
        train_only(model, trained_names(model, config))
        for parameter in model.parameters():
            ledger.note(parameter)
        flops = 0.0
        with ledger:
            for share, forward in passes(model, config, tokens):
                before = ledger.flops
                with torch.autocast("cpu", torch.bfloat16, enabled=config.engine.precision == "bfloat16"):
                    loss = forward(micro_batch)
                loss.backward()
                del loss
                flops += share * (ledger.flops - before)
    position_table.cache_clear()  # it would hand this trace's shape without data to the next model that draws
    return _Traced(model, ledger.peak, flops)


def trained_names(model: DualBranch, config: TrainConfig) -> set[str]:
    """Names of the parameters that the stage trains."""
    if config.generation is not None and not config.generation.freeze_understanding:
        return {name for name, _ in model.named_parameters()}
    reads = config.stage == Stage.UNDERSTANDING
    return {name for name, _ in (model.understanding_parameters() if reads else model.generation_parameters())}


def passes(model: DualBranch, config: TrainConfig, tokens: int) -> list[tuple[float, Callable[[int], Tensor]]]:
    """The stage's kinds of forward pass over so many made-up samples: each one's share of the batches, and its loss."""
    side = int(config.data_set.rsplit("-", 1)[-1]) // DOWNSAMPLING
    frozen = config.generation is None or config.generation.freeze_understanding
    reading = 1.0 if config.stage == Stage.UNDERSTANDING else 0.0
    if config.mixture is not None:
        reading = config.mixture.understanding / (config.mixture.understanding + config.mixture.generation)
    kinds: list[tuple[float, Callable[[int], Tensor]]] = [
        (reading, lambda count: _read(model, count, tokens)),
        (1 - reading, lambda count: _draw(model, count, tokens, side, frozen)),
    ]
    return [(share, forward) for share, forward in kinds if share > 0]


def _read(model: DualBranch, count: int, tokens: int) -> Tensor:
    """Stage 1's pass, with a loss at every text position."""
    side = model.config.vision.image_size
    image = model.embed_image(torch.zeros(count, 3, side, side))
    ids = torch.zeros(count, tokens, dtype=torch.long)
    text = model.embedding(ids).to(image.dtype)
    hidden, _ = model.read(torch.cat([image, text], dim=1), image.shape[1])
    logits = model.head(hidden[:, image.shape[1] :].flatten(0, 1))
    return understanding_losses(logits, ids.flatten(), float(ids.numel())).loss


def _draw(model: DualBranch, count: int, tokens: int, side: int, frozen: bool = True) -> Tensor:
    """The pass of stages 2 and 3 over full captions."""
    caption_ids = torch.zeros(count, tokens, dtype=torch.long)
    prefix = CaptionPrefix(model.caption_layers(caption_ids, torch.arange(-tokens, 0), not frozen), None)
    latents = torch.zeros(count, model.config.latent.channels, side, side)
    output = model.velocity(latents, torch.zeros(count), prefix, freeze_understanding=frozen)
    return generation_losses(output.velocity_BChw, latents, None, 0.0, float(count)).loss


class _Ledger(TorchDispatchMode):
    """Bytes that are alive, their peak, and the FLOPs of what ran."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = self.flops = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def note(self, tensor: Tensor) -> None:
        """Count a tensor's memory until it is freed."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = weakref.ref(storage, lambda _: self._free(key, size))
            self.alive += size
            self.peak = max(self.peak, self.alive)

    def _free(self, key: int, size: int) -> None:
        if self._known.pop(key, None) is not None:
            self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and enter it."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        operation = func._overloadpacket
        if operation is _ATTENTION:
            self.flops += sdpa_flop_count(*(tensor.shape for tensor in args[:3]))
        elif operation is _ATTENTION_BACKWARD:
            self.flops += sdpa_backward_flop_count(*(tensor.shape for tensor in args[:4]))
        elif operation in flop_registry:
            self.flops += flop_registry[operation](*args, **(kwargs or {}), out_val=out)
        return out


# The CPU's fused attention, which torch's own table of formulas leaves out.
_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ATTENTION_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
