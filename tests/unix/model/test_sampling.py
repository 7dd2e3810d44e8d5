"""Sampling: seeds, batches, guidance."""

from itertools import pairwise

import pytest
import torch

from unix.batch import GenerationBatch
from unix.errors import ConfigError
from unix.model.dual_branch import DualBranch
from unix.model.sampling import SamplerConfig, guide, integrate, sample_latents

CAPTIONS = [[5, 6, 7, 8], [9], []]
CONFIG = SamplerConfig(num_steps=5, guidance=2.5)


def noise(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 16, 2, 3, generator=torch.Generator().manual_seed(0))


def test_an_image_does_not_depend_on_its_batch(model: DualBranch) -> None:
    together = sample_latents(model, CAPTIONS, (2, 3), [7, 8, 9], CONFIG)
    assert together.shape == (3, 16, 2, 3) and together.dtype == torch.float32
    turned = sample_latents(model, CAPTIONS[::-1], (2, 3), [9, 8, 7], CONFIG)
    torch.testing.assert_close(turned.flip(0), together, rtol=1e-4, atol=1e-4)
    for row in range(3):
        alone = sample_latents(model, CAPTIONS[row : row + 1], (2, 3), [7 + row], CONFIG)
        torch.testing.assert_close(alone, together[row : row + 1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sample_latents(model, CAPTIONS, (2, 3), [17, 8, 9], CONFIG)[0], together[0], atol=1e-2)


def test_conditional_velocity_is_the_training_one(model: DualBranch) -> None:
    step = next(integrate(model, [CAPTIONS[0]], noise(1), SamplerConfig(num_steps=1, guidance=1)))
    batch = GenerationBatch(
        keys=("a",),
        caption_ids_BL=torch.tensor([[0, *CAPTIONS[0], 1]]),
        caption_length_B=torch.tensor([6]),
        latent_BChw=torch.zeros(1, 16, 2, 3),
        noise_BChw=noise(1),
        time_B=torch.ones(1),
    )
    with torch.no_grad():
        expected = model.generation(batch).velocity_BChw
    torch.testing.assert_close(step.velocity_BChw, expected, rtol=1e-4, atol=1e-5)


def test_both_passes_in_one_forward_equal_two(model: DualBranch) -> None:
    step = next(integrate(model, CAPTIONS, noise(), CONFIG))
    captioned = next(integrate(model, CAPTIONS, noise(), SamplerConfig(num_steps=5, guidance=1)))
    bare = next(integrate(model, [[], [], []], noise(), SamplerConfig(num_steps=5, guidance=1)))
    assert step.unconditional_BChw is not None
    torch.testing.assert_close(step.conditional_BChw, captioned.velocity_BChw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step.unconditional_BChw, bare.velocity_BChw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(step.conditional_BChw[2], step.unconditional_BChw[2], rtol=1e-4, atol=1e-5)


def test_guidance_acts_inside_its_interval_only(model: DualBranch) -> None:
    config = SamplerConfig(num_steps=10, guidance=3, interval=(0.35, 0.75), time_shift=1)
    for step in integrate(model, CAPTIONS, noise(), config):
        assert (step.unconditional_BChw is not None) == (0.35 < step.time <= 0.75)
        if step.unconditional_BChw is None:
            assert torch.equal(step.velocity_BChw, step.conditional_BChw)


def test_a_time_at_the_interval_s_lower_end_is_outside(model: DualBranch) -> None:
    """0.4 as float32 is more than 0.4, but is no later time."""
    config = SamplerConfig(num_steps=5, guidance=3, interval=(0.4, 1.0), time_shift=1)
    steps = list(integrate(model, CAPTIONS, noise(), config))
    assert [step.unconditional_BChw is not None for step in steps] == [True, True, True, False, False]


def test_steps_are_as_many_as_asked_and_chain(model: DualBranch) -> None:
    steps = list(integrate(model, CAPTIONS, noise(), SamplerConfig(num_steps=7)))
    assert len(steps) == 7
    for before, after in pairwise(steps):
        assert torch.equal(before.next_BChw, after.noised_BChw)
    assert torch.equal(steps[0].noised_BChw, noise())


@pytest.mark.parametrize("renormalisation", ["sample", "token", "batch"])
def test_renormalisation_never_exceeds_the_conditional_norm(renormalisation: str) -> None:
    conditional, unconditional = torch.randn(2, 3, 16, 2, 3, generator=torch.Generator().manual_seed(1))
    over = {"sample": (1, 2, 3), "token": (1,), "batch": (0, 1, 2, 3)}[renormalisation]
    config = SamplerConfig.model_validate({"guidance": 4, "renormalisation": renormalisation})
    guided = guide(conditional, unconditional, config)
    norms = [torch.linalg.vector_norm(x, dim=over) for x in (guided, conditional)]
    assert bool((norms[0] <= norms[1] + 1e-4).all())


def test_only_the_reference_couples_the_samples_of_a_batch() -> None:
    conditional, unconditional = torch.randn(2, 3, 16, 2, 3, generator=torch.Generator().manual_seed(1))
    louder = conditional.clone()
    louder[1:] *= 5

    def first(given: torch.Tensor, renormalisation: str) -> torch.Tensor:
        config = SamplerConfig.model_validate({"guidance": 4, "renormalisation": renormalisation})
        return guide(given, unconditional, config)[0]

    for kind in ("sample", "token", "text_token", "none"):
        assert torch.equal(first(conditional, kind), first(louder, kind))
    assert not torch.allclose(first(conditional, "batch"), first(louder, "batch"))


def test_image_guidance_on_captions_is_one_larger_scale() -> None:
    conditional, unconditional = torch.randn(2, 3, 16, 2, 3, generator=torch.Generator().manual_seed(1))
    both = SamplerConfig(guidance=3, image_guidance=1.5, renormalisation="none")
    one = SamplerConfig(guidance=4, renormalisation="none")
    torch.testing.assert_close(guide(conditional, unconditional, both), guide(conditional, unconditional, one))


def test_captions_and_seeds_must_pair_up(model: DualBranch) -> None:
    with pytest.raises(ConfigError, match="3 captions but 2 seeds"):
        sample_latents(model, CAPTIONS, (2, 3), [1, 2], CONFIG)
