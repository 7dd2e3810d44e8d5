"""Floating-point operations that a step's mathematics needs: the numerator of model FLOPs utilisation.

Matrix products and attention of the real tokens, forward and twice that backward where something learns from it; no
padding, no recomputation, no convolutional stem, no frozen image encoder.
"""

from collections.abc import Sequence

from unix.model.dual_branch import ModelConfig

_BACKWARD = 2
"""A backward pass costs two forward passes."""


def understanding_flops(config: ModelConfig, text_lengths: Sequence[int], num_targets: int) -> float:
    """Stage 1's pass over samples of one image and so many text positions each, of which `num_targets` bear a loss."""
    vision, decoder = config.vision, config.decoder
    image, width = vision.num_tokens, vision.hidden_size
    tower = vision.num_layers * (
        2 * image * (4 * width**2 + 2 * width * vision.intermediate_size) + 4 * width * image**2
    )
    connector = 2 * image * (width + decoder.hidden_size) * decoder.hidden_size
    block = image + 2
    forward = len(text_lengths) * (tower + connector)
    for length in text_lengths:
        seen = block**2 + length * block + length * (length + 1) / 2
        forward += _decoder(config, block + length, seen)
    forward += 2 * decoder.hidden_size * decoder.vocabulary_size * num_targets
    return (1 + _BACKWARD) * forward


def generation_flops(
    config: ModelConfig, caption_lengths: Sequence[int], num_latents: int, *, frozen: bool, remembered: bool
) -> float:
    """The pass of stages 2 and 3 over samples of `num_latents` latent tokens with captions of these lengths.

    Args:
        config: of the model.
        caption_lengths: text positions of each sample; 0 where the caption was dropped.
        num_latents: of one sample.
        frozen: the understanding branch runs forward only.
        remembered: it does not even read the captions.
    """
    latent = config.latent
    drawn = 2.0 * len(caption_lengths) * num_latents * 2 * latent.channels * config.decoder.hidden_size
    read = 0.0
    for length in caption_lengths:
        block = length + 2 + num_latents
        drawn += _decoder(config, num_latents, num_latents * block)
        read += _decoder(config, 2, 2 * block)
        if not remembered:
            read += _decoder(config, length, length * (length + 1) / 2)
    return (1 + _BACKWARD) * drawn + (1 if frozen else 1 + _BACKWARD) * read


def _decoder(config: ModelConfig, tokens: int, seen: float) -> float:
    """One branch's layers forward over `tokens` tokens that attend to `seen` positions in all."""
    decoder = config.decoder
    width = decoder.hidden_size
    keys = width // decoder.num_heads * decoder.num_key_value_heads
    weights = 2 * width**2 + 2 * width * keys + 3 * width * decoder.intermediate_size
    return decoder.num_layers * (2 * tokens * weights + 4 * width * seen)
