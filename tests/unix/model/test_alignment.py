"""The alignment loss done right, its reference variant, and the frozen encoders' doors."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model

from unix.errors import ConfigError, WeightsError
from unix.model.alignment import AlignmentProjector, RadDinoEncoder, TowerEncoder, alignment_loss, resize_features
from unix.model.vision import VisionConfig, VisionTower, normalise_pixels


def features(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equal_directions_are_the_minimum() -> None:
    target = features(2, 12, 5)
    torch.testing.assert_close(alignment_loss(3 * target, target, (3, 4)), torch.tensor(-1.0))
    torch.testing.assert_close(alignment_loss(-target, target, (3, 4)), torch.tensor(1.0))


def test_the_loss_is_a_mean_over_samples_unlike_the_reference() -> None:
    one, target = features(1, 4, 5), features(1, 4, 5, seed=1)
    many = one.expand(6, -1, -1), target.expand(6, -1, -1)
    torch.testing.assert_close(alignment_loss(*many, (2, 2)), alignment_loss(one, target, (2, 2)))
    reference = alignment_loss(*many, (2, 2), compatibility="reference")
    torch.testing.assert_close(reference * 6, alignment_loss(one, target, (2, 2)))


def test_feature_grids_are_resized_in_two_dimensions() -> None:
    """A ramp along the columns stays one: constant along rows, growing along columns."""
    ramp = torch.arange(6.0).expand(6, 6).reshape(1, 36, 1)
    small = resize_features(ramp, (2, 3)).reshape(2, 3)
    torch.testing.assert_close(small[0], small[1])
    assert bool((small[0].diff() > 1).all())
    same = resize_features(ramp, (6, 6))
    assert same is ramp


def test_unsquare_feature_counts_cannot_be_resized() -> None:
    with pytest.raises(ConfigError, match="12 encoder features are no square grid"):
        resize_features(features(1, 12, 2), (2, 2))


def test_the_projector_is_three_linear_layers() -> None:
    projector = AlignmentProjector.build(4, 6, 3, seed=0)
    x = features(2, 5, 4)
    hidden = functional.silu(projector.second(functional.silu(projector.first(x))))
    assert torch.equal(projector(x), projector.third(hidden))
    again = AlignmentProjector.build(4, 6, 3, seed=0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in projector.state_dict().items())


@pytest.fixture
def tower() -> VisionTower:
    return VisionTower(
        VisionConfig(image_size=32, patch_size=16, hidden_size=24, intermediate_size=32, num_layers=1, num_heads=2)
    )


def test_the_tower_encoder_owns_nothing_and_reads_unit_pixels(tower: VisionTower) -> None:
    encoder = TowerEncoder(tower)
    assert not list(encoder.parameters()) and not encoder.state_dict()
    image = torch.randint(0, 256, (2, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = encoder(image[:, None] / 255)
    assert not out.requires_grad
    torch.testing.assert_close(out, tower(normalise_pixels(image)).detach(), rtol=1e-4, atol=1e-5)


def test_other_sizes_are_resized_for_the_encoder(tower: VisionTower) -> None:
    assert TowerEncoder(tower)(torch.rand(1, 1, 48, 48)).shape == (1, 4, 24)


@pytest.mark.parametrize("scale", [(-1.0, 1.0), (0.0, 255.0)])
def test_wrongly_scaled_pixels_are_refused(tower: VisionTower, scale: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=r"wants pixels in \[0, 1\]"):
        TowerEncoder(tower)(torch.linspace(*scale, 32 * 32).reshape(1, 1, 32, 32))


def test_rad_dino_is_read_from_a_folder(tmp_path: Path) -> None:
    shape = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(shape).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json is missing"):
        RadDinoEncoder.load(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"crop_size": {"height": 28, "width": 28}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}'
    )
    encoder = RadDinoEncoder.load(tmp_path)
    pixels = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = encoder.model(pixel_values=((pixels - 0.5) / 0.25).expand(-1, 3, -1, -1)).last_hidden_state[:, 1:]
    torch.testing.assert_close(encoder(pixels), expected)
    assert encoder.width == 16 and not any(value.requires_grad for value in encoder.parameters())


def test_the_projector_takes_what_a_sharded_model_computes_in_bfloat16() -> None:
    projector = AlignmentProjector.build(8, 16, 4, seed=0)
    captured = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    projected = projector(captured.to(torch.bfloat16))
    assert projected.dtype == torch.float32
    torch.testing.assert_close(projected, projector(captured), atol=0.02, rtol=0.02)
