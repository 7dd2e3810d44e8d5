import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Dinov2Config, Dinov2Model
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from unix.data.images import Pixels
from unix.errors import ConfigError, WeightsError
from unix.evaluation.encoders import RadDino, RandomConvolutions, Tower, open_encoder, short_side_crop
from unix.evaluation.features import Encoder
from unix.model.vision import VisionConfig, VisionTower

SIDE = 28
PREPROCESSING = {
    "crop_size": {"height": SIDE, "width": SIDE},
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "image_mean": [0.5307] * 3,
    "image_std": [0.2583] * 3,
}


def picture(rows: int, columns: int, seed: int = 0) -> Pixels:
    small = np.random.default_rng(seed).integers(0, 256, size=(rows // 4 + 1, columns // 4 + 1))
    return np.kron(small, np.ones((4, 4), dtype=int))[:rows, :columns].astype(np.uint8)


@pytest.fixture(scope="module")
def rad_dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny, random model in RAD-DINO's layout."""
    folder = tmp_path_factory.mktemp("rad-dino")
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=14, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING), encoding="utf-8")
    return folder


def tower(seed: int = 0) -> Tower:
    torch.manual_seed(seed)
    return Tower(
        VisionTower(
            VisionConfig(image_size=16, patch_size=8, hidden_size=16, intermediate_size=32, num_layers=1, num_heads=2)
        )
    )


@pytest.mark.parametrize("size", [(56, 40), (40, 57), (28, 28), (20, 33)])
def test_rad_dino_sees_what_transformers_processor_gives(rad_dino: Path, size: tuple[int, int]) -> None:
    image = picture(*size)
    processor = BitImageProcessorPil.from_pretrained(rad_dino)
    wanted = processor(np.repeat(image[..., None], 3, axis=2), return_tensors="pt")["pixel_values"]
    ours = (short_side_crop(image, SIDE) / 255 - 0.5307) / 0.2583
    np.testing.assert_allclose(np.broadcast_to(ours, (3, SIDE, SIDE)), wanted[0], atol=1e-6)
    expected = Dinov2Model.from_pretrained(rad_dino).eval()(pixel_values=wanted).pooler_output
    found = RadDino.load(rad_dino).encode([image])
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_rad_dino_needs_its_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config.json is missing"):
        open_encoder("rad-dino", tmp_path)


@pytest.mark.parametrize("kind", ["rad-dino", "tower", "random"])
def test_a_row_depends_on_its_own_picture_only(kind: str, rad_dino: Path) -> None:
    encoders: dict[str, Encoder] = {
        "rad-dino": RadDino.load(rad_dino),
        "tower": tower(),
        "random": RandomConvolutions(),
    }
    encoder = encoders[kind]
    images = [picture(32, 32, seed) for seed in range(5)]
    together = encoder.encode(images)
    assert together.shape == (5, encoder.width)
    assert together.dtype == np.float32
    alone = np.vstack([encoder.encode([image]) for image in images])
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(together[0] - together[1]) > 1e-3


def test_digests_follow_weights_and_preprocessing(rad_dino: Path, tmp_path: Path) -> None:
    assert RandomConvolutions().digest == RandomConvolutions().digest != RandomConvolutions(seed=1).digest
    assert RandomConvolutions().digest != RandomConvolutions(side=32).digest
    assert tower().digest == tower().digest != tower(seed=1).digest
    changed = tmp_path / "changed"
    changed.mkdir()
    for path in rad_dino.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    assert RadDino.load(changed).digest == RadDino.load(rad_dino).digest
    other = {**PREPROCESSING, "image_mean": [0.4] * 3}
    (changed / "preprocessor_config.json").write_text(json.dumps(other), encoding="utf-8")
    assert RadDino.load(changed).digest != RadDino.load(rad_dino).digest


def test_the_tower_refuses_pictures_unlike_those_it_was_trained_on() -> None:
    with pytest.raises(ConfigError, match="square pictures, not 32 x 40"):
        tower().encode([picture(32, 40)])


def test_what_cannot_be_opened_is_told() -> None:
    with pytest.raises(ConfigError, match="no encoder 'inception'"):
        open_encoder("inception")
    with pytest.raises(ConfigError, match="needs a folder"):
        open_encoder("tower")
    assert open_encoder("random").name == "random"
