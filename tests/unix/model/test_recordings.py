"""Unpacking recorded layouts."""

import pytest
import torch

from unix.batch import IGNORED
from unix.errors import WeightsError
from unix.model.dual_branch import DualBranch
from unix.model.recordings import generation_batch, pack, tokens, understanding_batch

IMAGE = [2, -1, -1, -1, -1, 3]


def test_samples_of_different_lengths_are_padded(model: DualBranch) -> None:
    record = {
        "images": torch.zeros(2, 3, 32, 32),
        "sample0.token_ids": torch.tensor([*IMAGE, 0, 7, 1, 0, 8, 1]),
        "sample1.token_ids": torch.tensor([*IMAGE, 0, 1, 0, 1]),
        "ce_loss_indexes": torch.tensor([9, 10, 20]),
        "packed_label_ids": torch.tensor([8, 1, 1]),
    }
    batch = understanding_batch(model, record)
    assert batch.text_ids_BL.tolist() == [[0, 7, 1, 0, 8, 1], [0, 1, 0, 1, 0, 0]]
    assert batch.text_length_B.tolist() == [6, 4]
    assert batch.target_ids_BL[0].tolist() == [IGNORED] * 3 + [8, 1, IGNORED]
    assert batch.target_ids_BL[1].tolist() == [IGNORED] * 2 + [1] + [IGNORED] * 3
    record["sample1.token_ids"] = torch.tensor([0, 1, *IMAGE])
    with pytest.raises(WeightsError, match="layout is unknown"):
        understanding_batch(model, record)


def test_dropped_captions_have_no_length(model: DualBranch) -> None:
    latent = torch.randn(2, 16, 2, 3, generator=torch.Generator().manual_seed(0))
    drawn = [2, *[-1] * 6, 3]
    layout = {
        "latent": latent,
        "noise": tokens(latent),
        "sample0.token_ids": torch.tensor([0, 9, 1, *drawn]),
        "sample1.token_ids": torch.tensor(drawn),
        "packed_timesteps": torch.tensor([0.5] * 6 + [-1.0] * 6),
    }
    batch = generation_batch(model, layout, layout)
    assert batch.caption_length_B.tolist() == [3, 0]
    assert batch.caption_ids_BL[0].tolist() == [0, 9, 1]
    assert torch.equal(batch.noise_BChw, latent)
    torch.testing.assert_close(batch.time_B, torch.sigmoid(torch.tensor([0.5, -1.0])))


def test_packing_drops_the_padding() -> None:
    hidden = torch.arange(12.0).reshape(2, 3, 2)
    assert pack(hidden, [3, 1]).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
