"""Both codecs: shapes, scaling, determinism, and that the cheap one can learn."""

import pytest
import torch

from unix.errors import ConfigError
from unix.model.latent import KLF16, FoldedVAE, FoldedVAEConfig, ImageCodec, KLF16Config, sample_posterior

SMALL = FoldedVAEConfig(fine_channels=8, coarse_channels=16, num_blocks=1)
TINY_KL = KLF16Config(base_channels=8, norm_groups=4, num_blocks=1)


def codecs() -> list[ImageCodec]:
    return [FoldedVAE.build(SMALL, 0), KLF16(TINY_KL)]


@pytest.mark.parametrize("codec", codecs(), ids=["folded", "kl-f16"])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (48, 32)])
def test_latents_are_sixteen_times_smaller(codec: ImageCodec, size: tuple[int, int]) -> None:
    with torch.no_grad():
        mean, logvar = codec.moments(torch.zeros(2, codec.channels, *size))
        assert mean.shape == logvar.shape == (2, 16, size[0] // 16, size[1] // 16)
        assert codec.decode(codec.scaled(mean)).shape == (2, codec.channels, *size)


@pytest.mark.parametrize("codec", codecs(), ids=["folded", "kl-f16"])
def test_scaling_is_inverted(codec: ImageCodec) -> None:
    z = torch.randn(2, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codec.unscaled(codec.scaled(z)), z)


def test_kl_f16_scales_as_released() -> None:
    z = torch.full((1, 16, 1, 1), 2.0)
    torch.testing.assert_close(KLF16(TINY_KL).scaled(z), torch.full_like(z, 0.238092 * (2 + 0.201906)))


def test_statistics_standardise_latents() -> None:
    codec = FoldedVAE.build(SMALL, 0)
    z = torch.randn(64, 16, 2, 2, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 17)[:, None, None] + 3
    codec.set_statistics(z.mean((0, 2, 3)), z.std((0, 2, 3)))
    scaled = codec.scaled(z)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(16))
    assert {"scale_C", "shift_C"} <= codec.state_dict().keys()


@pytest.mark.parametrize(("shape", "said"), [((1, 3, 32, 32), "3 x 32 x 32"), ((1, 1, 32, 40), "1 x 32 x 40")])
def test_unfit_images_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        FoldedVAE.build(SMALL, 0).moments(torch.zeros(shape))


def test_building_depends_on_the_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (FoldedVAE.build(SMALL, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_the_posterior_is_sampled_with_its_deviation() -> None:
    mean, logvar = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 2 * 1.5).log()
    sample = sample_posterior(mean, logvar, torch.full((1, 1, 1, 1), -1.0))
    torch.testing.assert_close(sample, mean - 3.0**0.5)


def test_the_folded_vae_learns() -> None:
    """Forty steps on four gradients halve the reconstruction error of the mean image."""
    codec = FoldedVAE.build(SMALL, 0)
    ramp = torch.linspace(-1, 1, 32)
    image = torch.stack(
        [ramp.expand(32, 32), -ramp.expand(32, 32), ramp[:, None].expand(32, 32), ramp.abs().expand(32, 32)]
    )
    pixels = image[:, None]
    optimizer = torch.optim.Adam(codec.parameters(), 3e-3)
    for _ in range(40):
        mean, _ = codec.moments(pixels)
        loss = (codec.decode(codec.scaled(mean)) - pixels).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.5 * float((pixels - pixels.mean(0)).square().mean())
