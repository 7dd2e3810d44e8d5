"""Small models and batches for the model's tests."""

import pytest
import torch

from unix.batch import IGNORED, GenerationBatch, UnderstandingBatch
from unix.model.dual_branch import DecoderConfig, DualBranch, LatentConfig, ModelConfig, SpecialTokens
from unix.model.vision import VisionConfig

VOCABULARY = 40
SPECIAL = SpecialTokens(bos=0, eos=1, boi=2, eoi=3)


@pytest.fixture
def config() -> ModelConfig:
    """Two query heads a key-value head, a patch tower of 4 tokens, latents up to 8 x 8."""
    return ModelConfig(
        decoder=DecoderConfig(
            vocabulary_size=VOCABULARY,
            hidden_size=32,
            intermediate_size=48,
            num_layers=3,
            num_heads=4,
            num_key_value_heads=2,
        ),
        vision=VisionConfig(
            image_size=32, patch_size=16, hidden_size=24, intermediate_size=32, num_layers=1, num_heads=2
        ),
        latent=LatentConfig(max_side=8),
        tokens=SPECIAL,
    )


@pytest.fixture
def model(config: ModelConfig) -> DualBranch:
    """Every parameter random, so that nothing is hidden behind a zero or a one."""
    return scramble(DualBranch(config))


def scramble(model: DualBranch, seed: int = 0) -> DualBranch:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3, generator=generator)
    return model


@pytest.fixture
def understanding_batch() -> UnderstandingBatch:
    """Three samples with texts of 9, 5 and 7 tokens; the last 4, 2 and 3 of them bear a loss."""
    generator = torch.Generator().manual_seed(1)
    lengths = (9, 5, 7)
    ids = torch.randint(4, VOCABULARY, (3, 9), generator=generator)
    targets = torch.full_like(ids, IGNORED)
    for row, (length, answers) in enumerate(zip(lengths, (4, 2, 3), strict=True)):
        targets[row, length - answers : length] = torch.randint(4, VOCABULARY, (answers,), generator=generator)
        ids[row, length:] = 1
    return UnderstandingBatch(
        keys=("a", "b", "c"),
        pixels_BCSS=torch.randn(3, 3, 32, 32, generator=generator),
        text_ids_BL=ids,
        text_length_B=torch.tensor(lengths),
        target_ids_BL=targets,
    )


@pytest.fixture
def generation_batch() -> GenerationBatch:
    """Three samples with captions of 6, 0 (dropped) and 4 tokens, latents of 4 x 6."""
    generator = torch.Generator().manual_seed(2)
    return GenerationBatch(
        keys=("a", "b", "c"),
        caption_ids_BL=torch.randint(4, VOCABULARY, (3, 6), generator=generator),
        caption_length_B=torch.tensor([6, 0, 4]),
        latent_BChw=torch.randn(3, 16, 4, 6, generator=generator),
        noise_BChw=torch.randn(3, 16, 4, 6, generator=generator),
        time_B=torch.tensor([0.2, 0.5, 0.9]),
    )
