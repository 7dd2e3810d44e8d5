"""Between the layout of recorded activations and ours.

Recordings pack samples one after another and know them by token ids and kinds; our batches pad samples to one length.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.errors import WeightsError
from unix.model.dual_branch import DualBranch
from unix.model.flow import shift_time

Recording = Mapping[str, Tensor]
"""The tensors of one recorded file."""


def understanding_batch(model: DualBranch, record: Recording) -> UnderstandingBatch:
    """The batch of a stage 1 recording.

    Raises:
        WeightsError: a sample is not one image block followed by text.
    """
    num_image = model.config.vision.num_tokens + 2
    texts, targets, offset = [], [], 0
    label = dict(zip(record["ce_loss_indexes"].tolist(), record["packed_label_ids"].tolist(), strict=True))
    for ids in _per_sample(record, "token_ids"):
        if ids[0] != model.config.tokens.boi or ids[num_image - 1] != model.config.tokens.eoi:
            raise WeightsError("stage1: a sample does not start with one image block; this layout is unknown")
        texts.append(ids[num_image:])
        targets.append([label.get(offset + index, IGNORED) for index in range(num_image, len(ids))])
        offset += len(ids)
    return UnderstandingBatch(
        keys=tuple(map(str, range(len(texts)))),
        pixels_BCSS=record["images"],
        text_ids_BL=_padded(texts, 0),
        text_length_B=torch.tensor([len(text) for text in texts]),
        target_ids_BL=_padded(targets, IGNORED),
    )


def generation_batch(
    model: DualBranch, stage2: Recording, layout: Recording, time_shift: float = 1.0
) -> GenerationBatch:
    """The batch of `layout` (captions and times, to be shifted) with the latents and noise of `stage2`."""
    captions = [ids[: ids.index(model.config.tokens.boi)] for ids in _per_sample(layout, "token_ids")]
    latent = stage2["latent"]
    rows, columns = latent.shape[-2:]
    noise = stage2["noise"].unflatten(0, (len(latent), rows * columns)).transpose(1, 2).unflatten(2, (rows, columns))
    number_BT = layout["packed_timesteps"].unflatten(0, (len(latent), rows * columns))
    return GenerationBatch(
        keys=tuple(map(str, range(len(captions)))),
        caption_ids_BL=_padded(captions, 0),
        caption_length_B=torch.tensor([len(caption) for caption in captions]),
        latent_BChw=latent,
        noise_BChw=noise,
        time_B=shift_time(torch.sigmoid(number_BT[:, 0]), time_shift),
    )


def _per_sample(record: Recording, name: str) -> Iterator[list[int]]:
    index = 0
    while f"sample{index}.{name}" in record:
        yield record[f"sample{index}.{name}"].tolist()
        index += 1


def _padded(rows: list[list[int]], fill: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows], dtype=torch.long)


def pack(hidden_BLE: Tensor, lengths: list[int]) -> Tensor:
    """Samples' real rows one after another, [sum of lengths, E]."""
    return torch.cat([rows[:length] for rows, length in zip(hidden_BLE, lengths, strict=True)])


def tokens(latent_BChw: Tensor) -> Tensor:
    """[B, C, h, w] -> [B * h * w, C]."""
    return latent_BChw.flatten(2).transpose(1, 2).flatten(0, 1)
