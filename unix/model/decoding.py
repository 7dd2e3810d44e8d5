"""Reports from images: batched decoding with a key-value cache, each sample stopping on its own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unix.errors import ConfigError
from unix.model.attention import KeyValue
from unix.model.dual_branch import DualBranch


@dataclass(frozen=True)
class DecodedStep:
    """One decoding step of a batch."""

    token_B: Tensor
    """int64; eos where a sample ends or has ended."""
    logits_BV: Tensor
    """float32 logits that the tokens were chosen from."""


def describe(
    model: DualBranch,
    pixels_BCSS: Tensor,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> list[list[int]]:
    """Answer each image's prompt; returns the answers' token ids, without bos and eos.

    Args:
        model: the model; its mode (train, eval) makes no difference.
        pixels_BCSS: normalised pixels, one image per prompt.
        prompt_ids: one prompt per image, of any lengths, without bos and eos.
        max_new_tokens: where an answer without eos is cut.
        temperature: 0 takes the most likely token; else tokens are drawn from softmax(logits / temperature).
        top_p: draw from the most likely tokens alone, as few as hold this much probability.
        seeds: of the draws, one per image: an answer depends on its own image, prompt and seed only.
    """
    answers: list[list[int]] = [[] for _ in prompt_ids]
    going = [True] * len(answers)
    for step in decode(model, pixels_BCSS, prompt_ids, max_new_tokens, temperature, top_p, seeds):
        for index, token in enumerate(step.token_B.tolist()):
            going[index] = going[index] and token != model.config.tokens.eos
            if going[index]:
                answers[index].append(token)
    return answers


@torch.inference_mode()
def decode(
    model: DualBranch,
    pixels_BCSS: Tensor,
    prompt_ids: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
) -> Iterator[DecodedStep]:
    """Decode step by step until every sample has ended; arguments as for `describe`.

    Raises:
        ConfigError: images, prompts and seeds differ in number, or a temperature comes without seeds.
    """
    if len(prompt_ids) != len(pixels_BCSS):
        raise ConfigError(f"{len(pixels_BCSS)} images but {len(prompt_ids)} prompts; give one prompt per image")
    if temperature > 0 and (seeds is None or len(seeds) != len(prompt_ids)):
        given = "no" if seeds is None else len(seeds)
        raise ConfigError(
            f"temperature {temperature} draws tokens at random: {given} seeds for {len(prompt_ids)} prompts"
        )
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p {top_p} is not in (0, 1]; 1 leaves every token in")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds or ()]
    tokens, device = model.config.tokens, pixels_BCSS.device
    prompts = [[tokens.bos, *prompt, tokens.eos] for prompt in prompt_ids]
    length_B = torch.tensor([len(prompt) for prompt in prompts], device=device)
    longest = max(map(len, prompts))
    text_ids_BL = torch.tensor([prompt + [tokens.eos] * (longest - len(prompt)) for prompt in prompts], device=device)

    image = model.embed_image(pixels_BCSS)
    hidden = torch.cat([image, model.embedding(text_ids_BL).to(image.dtype)], dim=1)
    _, prefill = model.read(hidden, image.shape[1])
    start = hidden.shape[1]
    cache = [_extended(kv, start + max_new_tokens) for kv in prefill]
    mask = None
    if bool((length_B < longest).any()):
        visible_BL = torch.arange(longest, device=device) < length_B[:, None]
        visible_BL = functional.pad(visible_BL, (image.shape[1], max_new_tokens), value=True)
        mask = visible_BL[:, None, None]

    token_B = torch.full_like(length_B, tokens.bos)
    ended_B = torch.zeros_like(length_B, dtype=torch.bool)
    for index in range(max_new_tokens):
        column = start + index
        rotary = model.rotary((length_B + 1 + index)[:, None])
        state = model.embedding(token_B[:, None]).to(image.dtype)
        seen = None if mask is None else mask[..., : column + 1]
        for layer, past in zip(model.layers, cache, strict=True):
            state = layer.step(state, rotary, past, column, seen)
        logits_BV = model.head(model.understanding_norm(state[:, 0])).float()
        token_B = torch.where(ended_B, tokens.eos, _choose(logits_BV, temperature, top_p, generators))
        ended_B = ended_B | (token_B == tokens.eos)
        yield DecodedStep(token_B, logits_BV)
        if bool(ended_B.all()):
            return


def _choose(logits_BV: Tensor, temperature: float, top_p: float, generators: Sequence[torch.Generator]) -> Tensor:
    if temperature <= 0:
        return logits_BV.argmax(-1)
    probability_BV, token_BV = torch.softmax(logits_BV / temperature, dim=-1).cpu().sort(-1, descending=True)
    # a token stays while those before it hold less than top_p, so the first always does
    probability_BV = probability_BV.masked_fill(probability_BV.cumsum(-1) - probability_BV >= top_p, 0)
    rows = zip(probability_BV, token_BV, generators, strict=True)
    drawn = [token_V[torch.multinomial(weight_V, 1, generator=own)] for weight_V, token_V, own in rows]
    return torch.cat(drawn).to(logits_BV.device)


def _extended(kv: KeyValue, columns: int) -> KeyValue:
    more = columns - kv.key.shape[2]
    return KeyValue(functional.pad(kv.key, (0, 0, 0, more)), functional.pad(kv.value, (0, 0, 0, more)))
