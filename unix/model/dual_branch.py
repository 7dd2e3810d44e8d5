"""The model: one decoder with two sets of weights, reading images into text and drawing latents from captions.

The *understanding* branch carries image and text tokens (and the begin- and end-of-image tokens around latents), the
*generation* branch noised latents. `understanding` and `generation` are the training passes; `embed_image`, `read`,
`caption_prefix` and `velocity` are their parts, which decoding and sampling share.
Rotary positions: an image block shares one; text counts on by one. Only differences matter, so every image block is
counted as position 0, and a caption before it has negative positions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar, cast

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.config import Config
from unix.errors import ConfigError
from unix.model import flow
from unix.model.attention import DualLayer, KeyValue
from unix.model.initialisation import initialise
from unix.model.layers import Linear, RMSNorm, Rotary, TimeEmbedding, position_table
from unix.model.vision import Connector, Gelu, VisionConfig, VisionTower

T = TypeVar("T")


class DecoderConfig(Config):
    """Shape of the decoder, the same for both branches; the defaults are those of the paper."""

    vocabulary_size: int = 102_400
    """Token ids V, special ones included."""
    hidden_size: int = 2048
    """Width E of a token; a multiple of 4 and of 2 x num_heads."""
    intermediate_size: int = 5632
    """Width inside the gated MLP."""
    num_layers: int = 24
    """Layers, each with both branches' weights."""
    num_heads: int = 16
    """Query heads, each hidden_size / num_heads wide."""
    num_key_value_heads: int = 16
    """Heads of keys and values, which query heads share in equal groups."""
    rotary_theta: float = 10_000.0
    """Base of the rotary positions' wavelengths."""
    norm_epsilon: float = 1e-6
    """Added to the mean square in every RMSNorm."""
    initial_deviation: float = 0.02
    """Standard deviation of freshly initialised matrices."""

    @model_validator(mode="after")
    def _check(self) -> "DecoderConfig":
        if self.hidden_size % 4 or self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of 4 and of 2 x num_heads {self.num_heads}: "
                "positions take channels by fours, rotations a head's by twos"
            )
        if self.num_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_key_value_heads {self.num_key_value_heads}"
            )
        return self


class LatentConfig(Config):
    """The latent grid that the generation branch draws."""

    channels: int = 16
    """Latent channels, those of the image codec."""
    max_side: int = 32
    """Largest number of latent rows or columns."""
    positions: Literal["corner", "interpolated"] = "corner"
    """`corner`: a grid uses the positions 0, 1, ... whatever its size, so a small grid's positions are a large one's
    top-left corner. `interpolated`: a grid larger than `base_side` is laid over the extent of the base grid."""
    base_side: int = 16
    """Side of the grid whose positions are whole numbers under `interpolated`."""


class SpecialTokens(Config):
    """Ids of the four tokens that the layout of a sample needs."""

    bos: int = 100_000
    """Begins a text."""
    eos: int = 100_001
    """Ends a text."""
    boi: int = 100_003
    """Begins an image."""
    eoi: int = 100_580
    """Ends an image."""


class ModelConfig(Config):
    """Everything that decides the model's tensors and their meaning; the defaults are those of the paper."""

    decoder: DecoderConfig = DecoderConfig()
    """The dual-branch decoder."""
    vision: VisionConfig = VisionConfig()
    """The understanding branch's eye."""
    latent: LatentConfig = LatentConfig()
    """What the generation branch draws."""
    tokens: SpecialTokens = SpecialTokens()
    """The tokenizer's special ids."""
    connector_activation: Gelu = "erf"
    """`erf` is what the connector was trained with; the reference runs it with `tanh`."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        largest = max(self.tokens.bos, self.tokens.eos, self.tokens.boi, self.tokens.eoi)
        if largest >= self.decoder.vocabulary_size:
            raise ValueError(f"special token id {largest} >= vocabulary_size {self.decoder.vocabulary_size}")
        return self


@dataclass(frozen=True)
class UnderstandingOutput:
    """Logits at the N positions that bear a loss, in row-major order of the batch."""

    logits_NV: Tensor
    targets_N: Tensor


@dataclass(frozen=True)
class GenerationOutput:
    """Predicted velocity (noise - clean), and the latent tokens' hidden state after `capture_layer` layers."""

    velocity_BChw: Tensor
    captured_BTE: Tensor | None


@dataclass(frozen=True)
class CaptionPrefix:
    """Captions as the latents see them: each layer's keys and values, and which of them are real."""

    layers: Iterable[KeyValue]
    """In order; none where no sample has a caption."""
    visible_BL: Tensor | None
    """Boolean; None where every position is real."""


class DualBranch(nn.Module):
    """UniX: vision tower, connector, dual-branch decoder, and the heads of both branches."""

    def __init__(self, config: ModelConfig) -> None:
        """Tensors as torch and transformers make them; `build` gives seeded ones."""
        super().__init__()
        self.config = config
        self.recompute_layers = False
        """Keep only each layer's input for the backward pass and run the layer again there: less memory, more time."""
        decoder = config.decoder
        width = decoder.hidden_size
        self.vision = VisionTower(config.vision)
        self.connector = Connector(config.vision.hidden_size, width, config.connector_activation)
        self.embedding = nn.Embedding(decoder.vocabulary_size, width)
        layers = nn.ModuleList(
            DualLayer(
                width,
                decoder.intermediate_size,
                decoder.num_heads,
                decoder.num_key_value_heads,
                width // decoder.num_heads,
                decoder.norm_epsilon,
            )
            for _ in range(decoder.num_layers)
        )
        self.layers = cast(Sequence[DualLayer], layers)
        self.understanding_norm = RMSNorm(width, decoder.norm_epsilon)
        self.generation_norm = RMSNorm(width, decoder.norm_epsilon)
        self.head = Linear(width, decoder.vocabulary_size, bias=False)
        self.time_embedding = TimeEmbedding(width)
        self.latent_in = nn.Linear(config.latent.channels, width)
        self.latent_out = nn.Linear(width, config.latent.channels)

    @classmethod
    def build(cls, config: ModelConfig, seed: int) -> "DualBranch":
        """A freshly initialised model, the same for the same seed; torch's global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            model = cls(config)
        initialise(model, torch.Generator().manual_seed(seed), config.decoder.initial_deviation)
        with torch.no_grad():
            for layer in model.layers:
                for branch in (layer.understanding, layer.generation):
                    for projection in (branch.output, branch.mlp.down):
                        projection.weight /= (2 * config.decoder.num_layers) ** 0.5
            nn.init.zeros_(model.latent_out.weight)
            nn.init.zeros_(model.latent_out.bias)
        return model

    def understanding_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of stage 1: tower, connector, embedding, head and the understanding branch."""
        return ((name, value) for name, value in self.named_parameters() if not is_generation(name))

    def generation_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of stages 2 and 3: the generation branch, time embedding, latent projections."""
        return ((name, value) for name, value in self.named_parameters() if is_generation(name))

    def copy_understanding_to_generation(self) -> None:
        """Start the generation branch of the decoder as a copy of the understanding branch."""
        for layer in self.layers:
            layer.generation.load_state_dict(layer.understanding.state_dict())
        self.generation_norm.load_state_dict(self.understanding_norm.state_dict())

    # Reading

    def encode_images(self, pixels_BCSS: Tensor) -> Tensor:
        """Normalised pixels [B, 3, S, S] -> image tokens [B, T, E] of the decoder."""
        return self.connector(self.vision(pixels_BCSS))

    def embed_image(self, pixels_BCSS: Tensor) -> Tensor:
        """`[boi] image [eoi]` as the decoder's input, [B, T + 2, E]."""
        image = self.encode_images(pixels_BCSS)
        edges = self._edges(len(image)).to(image.dtype)
        return torch.cat([edges[:, :1], image, edges[:, 1:]], dim=1)

    def rotary(self, position: Tensor) -> Rotary:
        """Rotations of text positions [L] or [B, L]."""
        decoder = self.config.decoder
        return Rotary(position, decoder.hidden_size // decoder.num_heads, decoder.rotary_theta)

    def read(self, hidden_BLE: Tensor, num_image: int, rows_BL: Tensor | None = None) -> tuple[Tensor, list[KeyValue]]:
        """The understanding branch over `[image block | text]`, text from rotary position 1.

        Returns the hidden states after the final norm and each layer's keys and values. With `rows_BL` (boolean over
        text positions) only these rows' hidden states, [N, E].
        """
        num_text = hidden_BLE.shape[1] - num_image
        rotary = self.rotary(torch.arange(1, num_text + 1, device=hidden_BLE.device))
        mask = text_mask(num_text, num_image, hidden_BLE.device) if num_image else None
        cache: list[KeyValue] = []
        for index, layer in enumerate(self.layers):
            rows = rows_BL if index == len(self.layers) - 1 else None
            hidden_BLE, kv = self._run(layer.read, hidden_BLE, num_image, rotary, mask, rows)
            cache.append(kv)
        return self.understanding_norm(hidden_BLE), cache

    def understanding(self, batch: UnderstandingBatch) -> UnderstandingOutput:
        """Logits wherever the batch has a target (not IGNORED)."""
        image = self.embed_image(batch.pixels_BCSS)
        text = self.embedding(batch.text_ids_BL).to(image.dtype)
        rows_BL = batch.target_ids_BL != IGNORED
        hidden_NE, _ = self.read(torch.cat([image, text], dim=1), image.shape[1], rows_BL)
        return UnderstandingOutput(self.head(hidden_NE), batch.target_ids_BL[rows_BL])

    # Drawing

    def generation(
        self, batch: GenerationBatch, capture_layer: int | None = None, freeze_understanding: bool = True
    ) -> GenerationOutput:
        """Predict the velocity of latents noised to the batch's times.

        Args:
            batch: captions, clean latents, noise and times.
            capture_layer: return the latents' hidden state after this many decoder layers (1 = after the first).
            freeze_understanding: no gradient reaches or passes through anything that the understanding weights compute
                (captions, begin- and end-of-image tokens); values are the same either way.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_understanding):
            prefix = self.passing_caption(batch.caption_ids_BL, batch.caption_length_B)
        noised = flow.interpolate(batch.latent_BChw, batch.noise_BChw, batch.time_B)
        return self.velocity(noised, batch.time_B, prefix, capture_layer, freeze_understanding)

    def caption_prefix(self, caption_ids_BL: Tensor, length_B: Tensor) -> CaptionPrefix:
        """Run captions (with bos and eos, padded on the right) through the understanding branch, to be seen again."""
        prefix = self.passing_caption(caption_ids_BL, length_B)
        return replace(prefix, layers=tuple(prefix.layers))

    def passing_caption(self, caption_ids_BL: Tensor, length_B: Tensor) -> CaptionPrefix:
        """The same, to be seen once: a layer's keys and values are made when asked for, and kept by nobody here."""
        longest = caption_ids_BL.shape[1]
        if longest == 0:
            return CaptionPrefix((), None)
        column = torch.arange(longest, device=caption_ids_BL.device)
        visible_BL = column < length_B[:, None]
        layers = self.caption_layers(caption_ids_BL, column - length_B[:, None], torch.is_grad_enabled())
        # asking costs a synchronisation on an accelerator, more than the mask it saves
        complete = visible_BL.device.type == "cpu" and bool(visible_BL.all())
        return CaptionPrefix(layers, None if complete else visible_BL)

    def caption_layers(self, caption_ids_BL: Tensor, position: Tensor, gradients: bool) -> Iterator[KeyValue]:
        """Each layer's keys and values of captions at rotary positions [L] or [B, L], with or without `gradients`.

        Whatever gradients the caller wants for its own work in between.
        """
        rotary = self.rotary(position)
        *others, last = self.layers
        with torch.set_grad_enabled(gradients):
            hidden = self.embedding(caption_ids_BL)
        for layer in others:
            with torch.set_grad_enabled(gradients):
                hidden, kv = layer.read(hidden, 0, rotary, None)
            yield kv
        with torch.set_grad_enabled(gradients):
            kv = last.remember(hidden, rotary)
        yield kv

    def velocity(
        self,
        noised_BChw: Tensor,
        time_B: Tensor,
        prefix: CaptionPrefix,
        capture_layer: int | None = None,
        freeze_understanding: bool = True,
    ) -> GenerationOutput:
        """The generation branch over `[boi] latents [eoi]`, seeing the captions of `prefix`."""
        rows, columns = noised_BChw.shape[-2:]
        latents = self.embed_latents(noised_BChw, time_B)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not freeze_understanding):
            edges = self._edges(len(latents)).to(latents.dtype)
        mask = None
        if prefix.visible_BL is not None:
            mask = functional.pad(prefix.visible_BL, (0, 2 + rows * columns), value=True)[:, None, None]
        captured, captions = None, iter(prefix.layers)
        for index, layer in enumerate(self.layers):
            caption = next(captions, None)
            last = index == len(self.layers) - 1
            edges, latents = self._run(layer.draw, edges, latents, caption, mask, freeze_understanding, last)
            if index + 1 == capture_layer:
                captured = latents
        velocity = self.latent_out(self.generation_norm(latents))
        return GenerationOutput(velocity.transpose(1, 2).unflatten(2, (rows, columns)), captured)

    def embed_latents(self, noised_BChw: Tensor, time_B: Tensor) -> Tensor:
        """Noised latents as the decoder's input: linear projection + time embedding + position, [B, h * w, E]."""
        rows, columns = noised_BChw.shape[-2:]
        latent = self.config.latent
        if max(rows, columns) > latent.max_side:
            raise ConfigError(
                f"a latent grid of {rows} x {columns} exceeds latent.max_side = {latent.max_side}; "
                "draw smaller images or raise the setting"
            )
        scale = min(1.0, latent.base_side / max(rows, columns)) if latent.positions == "interpolated" else 1.0
        position = position_table(rows, columns, self.config.decoder.hidden_size, scale, str(noised_BChw.device))
        tokens = self.latent_in(noised_BChw.flatten(2).transpose(1, 2).to(self.latent_in.weight.dtype))
        return tokens + self.time_embedding(time_B)[:, None] + position.to(tokens.dtype)

    def _run(self, layer: Callable[..., T], *arguments: object) -> T:
        """Call one layer's method, to be run again in the backward pass where that is wanted."""
        if self.recompute_layers and torch.is_grad_enabled():
            return cast(T, checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False))
        return layer(*arguments)

    def _edges(self, count: int) -> Tensor:
        """Embeddings of begin- and end-of-image, [count, 2, E]."""
        ids = torch.tensor([self.config.tokens.boi, self.config.tokens.eoi], device=self.embedding.weight.device)
        return self.embedding(ids).expand(count, -1, -1)


def is_generation(name: str) -> bool:
    """Whether a parameter of `DualBranch` belongs to the generation side."""
    return name.startswith(("generation_norm.", "time_embedding.", "latent_in.", "latent_out.")) or (
        name.startswith("layers.") and ".generation." in name
    )


def text_mask(num_text: int, num_image: int, device: torch.device) -> Tensor:
    """[num_text, num_image + num_text], True = may attend: text sees the whole image and the text up to itself."""
    return torch.ones(num_text, num_image + num_text, dtype=torch.bool, device=device).tril(num_image)
