"""The tower with either input, the connector, and the normalisation of pixels."""

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from unix.errors import ConfigError
from unix.model.vision import Connector, VisionConfig, VisionTower, normalise_pixels

PATCHES = VisionConfig(image_size=32, patch_size=16, hidden_size=24, intermediate_size=32, num_layers=1, num_heads=2)
STEM = PATCHES.model_copy(update={"patch_size": 8, "stem_channels": (8, 16)})


@pytest.mark.parametrize(("config", "tokens"), [(PATCHES, 4), (STEM, 16)])
def test_the_tower_returns_every_patch_token(config: VisionConfig, tokens: int) -> None:
    out = VisionTower(config)(torch.zeros(2, 3, 32, 32))
    assert out.shape == (2, tokens, 24) and config.num_tokens == tokens


def test_tokens_are_normalised_and_carry_their_position() -> None:
    out = VisionTower(PATCHES)(torch.zeros(1, 3, 32, 32))
    torch.testing.assert_close(out.mean(-1), torch.zeros(1, 4), atol=1e-5, rtol=0)
    assert not torch.allclose(out[0, 0], out[0, 3])


def test_the_stem_sees_local_structure_in_place() -> None:
    """A bright corner changes the stem's output in that corner only."""
    stem = VisionTower(STEM).stem
    assert stem is not None
    stem.norms = torch.nn.ModuleList(torch.nn.Identity() for _ in stem.norms)
    dark = torch.zeros(1, 3, 32, 32)
    bright = dark.clone()
    bright[..., :4, :4] = 1
    change = (stem(bright) - stem(dark)).detach().abs().sum(1)[0]
    assert float(change[0, 0]) > 0
    assert float(change[2:, :].max()) == 0 and float(change[:, 2:].max()) == 0


def test_other_image_sizes_are_refused() -> None:
    with pytest.raises(ConfigError, match="reads 32 x 32 pixels, not \\(16, 32\\)"):
        VisionTower(PATCHES)(torch.zeros(1, 3, 16, 32))


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ValidationError, match="image_size 33 is not a multiple of patch_size 16"):
        VisionConfig(image_size=33)
    with pytest.raises(ValidationError, match="stem's stride 8"):
        VisionConfig(image_size=32, patch_size=4, stem_channels=(8, 8, 8, 8))


@pytest.mark.parametrize(("activation", "approximate"), [("erf", "none"), ("tanh", "tanh")])
def test_the_connector_uses_the_configured_gelu(activation: str, approximate: str) -> None:
    connector = Connector(6, 4, activation)  # type: ignore[arg-type]
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0)) * 3
    expected = connector.second(functional.gelu(connector.first(x), approximate=approximate))
    assert torch.equal(connector(x), expected)


def test_pixels_are_normalised_on_three_channels() -> None:
    image = torch.tensor([[[0, 255], [128, 64]]], dtype=torch.uint8)
    out = normalise_pixels(image)
    assert out.shape == (1, 3, 2, 2)
    torch.testing.assert_close(out[0, 2, 0, 1], torch.tensor((1 - 0.555895) / 0.336385))
    assert torch.equal(out[0, 0], out[0, 2])
