"""Round trips of our own layout, and what a damaged folder says."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unix.errors import WeightsError
from unix.model.dual_branch import DecoderConfig, DualBranch, ModelConfig, SpecialTokens
from unix.model.latent import KLF16, FoldedVAE, FoldedVAEConfig, ImageCodec, KLF16Config
from unix.model.vision import VisionConfig
from unix.model.weights.native import load_codec, load_model, save_model
from unix.runs import newest_step

CODECS: list[ImageCodec] = [
    FoldedVAE.build(FoldedVAEConfig(fine_channels=8, coarse_channels=8, num_blocks=1), 0),
    KLF16(KLF16Config(base_channels=8, norm_groups=4, num_blocks=1, scale=0.5)),
]


def build() -> DualBranch:
    return DualBranch.build(
        ModelConfig(
            decoder=DecoderConfig(
                vocabulary_size=12,
                hidden_size=16,
                intermediate_size=16,
                num_layers=1,
                num_heads=2,
                num_key_value_heads=1,
            ),
            vision=VisionConfig(
                image_size=16,
                patch_size=8,
                hidden_size=8,
                intermediate_size=8,
                num_layers=1,
                num_heads=1,
                stem_channels=(4,),
            ),
            tokens=SpecialTokens(bos=0, eos=1, boi=2, eoi=3),
        ),
        seed=0,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "saved", build(), CODECS[0])
    return tmp_path / "saved"


@pytest.mark.parametrize("codec", CODECS, ids=["folded", "kl-f16"])
def test_a_round_trip_is_exact(codec: ImageCodec, tmp_path: Path) -> None:
    if isinstance(codec, FoldedVAE):
        codec.set_statistics(torch.full((16,), 0.3), torch.full((16,), 2.0))
    model = build()
    save_model(tmp_path, model, codec)
    state = torch.random.get_rng_state()
    loaded, loaded_codec = load_model(tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert loaded.config == model.config and loaded_codec.config == codec.config
    for before, after in ((model, loaded), (codec, loaded_codec), (codec, load_codec(tmp_path))):
        values = after.state_dict()
        assert values.keys() == before.state_dict().keys()
        assert all(torch.equal(value, values[name]) for name, value in before.state_dict().items())
    z = torch.ones(1, 16, 1, 1)
    assert torch.equal(codec.scaled(z), loaded_codec.scaled(z))


def test_saving_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "again", build(), CODECS[0])
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_faulty_tensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["mystery"] = torch.zeros(1)
    tensors["head.weight"] = torch.zeros(3, 4)
    del tensors["layers.0.generation.query.bias"]
    save_file(tensors, path)
    with pytest.raises(WeightsError) as error:
        load_model(folder)
    said = str(error.value)
    assert "layers.0.generation.query.bias is missing" in said
    assert "mystery is unexpected" in said
    assert "head.weight has shape [3, 4], not [12, 16]" in said


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "vae.json", "vae.safetensors"])
def test_missing_and_damaged_files_are_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:20])
    with pytest.raises(WeightsError, match=name):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=name):
        load_model(folder)


def test_the_newest_whole_step_of_a_run_is_meant(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint"):
        newest_step(tmp_path / "absent")
    for step in (9, 10, 200):
        (tmp_path / f"step-{step}").mkdir()
    (tmp_path / "step-3.partial").mkdir()
    with pytest.raises(WeightsError, match="no checkpoint"):
        newest_step(tmp_path)
    for step in (9, 10):
        (tmp_path / f"step-{step}" / "meta.json").write_text("{}")
    assert newest_step(tmp_path) == tmp_path / "step-10"
    assert newest_step(tmp_path / "step-9") == tmp_path / "step-9"
    shutil.rmtree(tmp_path / "step-10")
    assert newest_step(tmp_path) == tmp_path / "step-9"
