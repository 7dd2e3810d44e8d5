"""What the stages train: packing, frozen parts and losses of one branch, the other, or both."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.data.pack import GenerationPacking, UnderstandingPacking, pack_generation, pack_understanding
from unix.data.stream import Sample
from unix.data.tokenizer import Tokenizer
from unix.model.dual_branch import DualBranch
from unix.model.flow import interpolate, velocity_target
from unix.records import Task, join_report
from unix.training.alignment import Alignment
from unix.training.captions import RememberedCaptions
from unix.training.encodings import LatentSource
from unix.training.flops import generation_flops, understanding_flops
from unix.training.loop import MicroBatch
from unix.training.losses import GenerationLosses, UnderstandingLosses, generation_losses, understanding_losses


def train_only(module: nn.Module, names: set[str]) -> dict[str, nn.Parameter]:
    """Freeze everything in `module` but the parameters in `names`, and return those."""
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in names)
        if name in names:
            trained[name] = parameter
    return trained


def in_length_order(samples: Sequence[Sample], text_of: Mapping[str, str], micro_batch: int) -> Iterator[list[Sample]]:
    """Micro-batches of texts of like length, so that little of a batch is padding."""
    ordered = sorted(samples, key=lambda sample: (len(text_of[sample.image_id]), sample.image_id))
    for start in range(0, len(ordered), micro_batch):
        yield ordered[start : start + micro_batch]


class UnderstandingObjective:
    """Stage 1: reports from images. Trains tower, connector and understanding branch."""

    def __init__(
        self, model: DualBranch, tokenizer: Tokenizer, packing: UnderstandingPacking, *, seed: int, micro_batch: int
    ) -> None:
        self._model, self._tokenizer, self._packing = model, tokenizer, packing
        self._seed, self._micro_batch = seed, micro_batch
        self._trained = train_only(model, {name for name, _ in model.understanding_parameters()})

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """Everything but the generation branch."""
        return self._trained

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Images with their reports, one micro-batch per group of like length."""
        reports = {sample.image_id: join_report(sample.findings, sample.impression) for sample in samples}
        packed: list[MicroBatch] = []
        for group in in_length_order(samples, reports, self._micro_batch):
            texts = [reports[sample.image_id] for sample in group]
            batch = pack_understanding(group, texts, self._tokenizer, self._packing, seed=self._seed, step=step)
            num_targets = int((batch.target_ids_BL != IGNORED).sum())
            lengths = batch.text_length_B.tolist()
            num_tokens = sum(lengths) + (self._model.config.vision.num_tokens + 2) * len(group)
            flops = understanding_flops(self._model.config, lengths, num_targets)
            packed.append(MicroBatch(batch, num_targets, num_tokens, num_flops=flops))
        return packed

    def losses(self, batch: UnderstandingBatch, num_targets: float) -> UnderstandingLosses:
        """Cross entropy of the report's tokens."""
        output = self._model.understanding(batch.to(self._model.head.weight.device))
        return understanding_losses(output.logits_NV, output.targets_N, num_targets)


class GenerationObjective:
    """Stages 2 and 3: latents from captions. Trains the generation branch, and REPA's projector where there is one.

    Without `freeze_understanding` the understanding branch, which reads the captions, learns from drawing as well.
    """

    def __init__(
        self,
        model: DualBranch,
        tokenizer: Tokenizer,
        packing: GenerationPacking,
        latents: LatentSource,
        alignment: Alignment | None,
        captions: RememberedCaptions | None = None,
        *,
        seed: int,
        micro_batch: int,
        freeze_understanding: bool = True,
    ) -> None:
        self._model, self._tokenizer, self._packing = model, tokenizer, packing
        self._latents, self._alignment, self._captions = latents, alignment, captions
        self._seed, self._micro_batch = seed, micro_batch
        self._freeze_understanding = freeze_understanding
        trained = model.generation_parameters() if freeze_understanding else model.named_parameters()
        self._trained = train_only(model, {name for name, _ in trained})

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The generation branch, or the whole model, and `alignment.*`."""
        projector = {} if self._alignment is None else self._alignment.parameters()
        return {**self._trained, **{f"alignment.{name}": value for name, value in projector.items()}}

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Captions with latents, noise and times, one micro-batch per group of like length."""
        captions = {sample.image_id: sample.caption for sample in samples}
        packed: list[MicroBatch] = []
        for group in in_length_order(samples, captions, self._micro_batch):
            batch = pack_generation(
                [sample.image_id for sample in group],
                [sample.caption for sample in group],
                self._latents.of(group, step),
                self._tokenizer,
                self._packing,
                seed=self._seed,
                step=step,
                alignment_BTE=None if self._alignment is None else self._alignment.features(group),
            )
            lengths, num_latents = batch.caption_length_B.tolist(), batch.latent_BChw[0, 0].numel()
            num_tokens = sum(lengths) + (num_latents + 2) * len(group)
            flops = generation_flops(
                self._model.config,
                lengths,
                num_latents,
                frozen=self._freeze_understanding,
                remembered=self._captions is not None,
            )
            packed.append(MicroBatch(batch, len(group), num_tokens, Task.GENERATION, flops))
        return packed

    def losses(self, batch: GenerationBatch, num_targets: float) -> GenerationLosses:
        """Flow matching, and alignment where the stage has it."""
        batch = batch.to(self._model.head.weight.device)
        layer = None if self._alignment is None else self._alignment.layer
        if self._captions is None:
            output = self._model.generation(batch, layer, self._freeze_understanding)
        else:
            noised_BChw = interpolate(batch.latent_BChw, batch.noise_BChw, batch.time_B)
            output = self._model.velocity(noised_BChw, batch.time_B, self._captions.of(batch), layer)
        aligned: Tensor | None = None
        if self._alignment is not None and output.captured_BTE is not None and batch.alignment_BTE is not None:
            rows, columns = batch.latent_BChw.shape[-2:]
            aligned = self._alignment.loss(output.captured_BTE, batch.alignment_BTE, (rows, columns))
        weight = 0.0 if self._alignment is None else self._alignment.weight
        target = velocity_target(batch.latent_BChw, batch.noise_BChw)
        return generation_losses(output.velocity_BChw, target, aligned, weight, num_targets)


class JointObjective:
    """The joint stage: reports from images and latents from captions in one step, nothing of the model frozen."""

    def __init__(
        self, understanding: UnderstandingObjective, generation: GenerationObjective, understanding_weight: float
    ) -> None:
        """`generation`, which must not freeze the understanding branch, is made after `understanding`."""
        self._understanding, self._generation, self._weight = understanding, generation, understanding_weight

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The whole model, and `alignment.*`."""
        return self._generation.parameters()

    def pack(self, samples: Sequence[Sample], step: int) -> list[MicroBatch]:
        """Micro-batches of the understanding sets' samples, then of the generation sets'."""
        reading = [sample for sample in samples if sample.task == Task.UNDERSTANDING]
        drawing = [sample for sample in samples if sample.task == Task.GENERATION]
        return [*self._understanding.pack(reading, step), *self._generation.pack(drawing, step)]

    def losses(
        self, batch: UnderstandingBatch | GenerationBatch, num_targets: float
    ) -> UnderstandingLosses | GenerationLosses:
        """Those of the batch's branch; each branch's terms are means over its own part of the global batch."""
        if isinstance(batch, GenerationBatch):
            return self._generation.losses(batch, num_targets)
        losses = self._understanding.losses(batch, num_targets)
        return losses._replace(loss=self._weight * losses.loss)
