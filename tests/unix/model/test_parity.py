"""Agreement with recorded activations, and that the comparison notices what it should."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unix.errors import WeightsError
from unix.model.parity import ACTIVATION_TOLERANCE, compare, measure


@pytest.mark.parametrize("name", ["A", "vae"])
def test_recorded_quantities_are_met(shared_folder: Path, name: str) -> None:
    quantities = compare(shared_folder / "parity" / name)
    assert len(quantities) > (800 if name == "A" else 4)
    assert [quantity for quantity in quantities if not quantity.within] == []
    assert len({quantity.name for quantity in quantities}) == len(quantities)


@pytest.mark.parametrize(
    ("tensor", "seen_by"),
    [
        ("language_model.model.layers.1.self_attn.k_norm.weight", "infer_und: logits"),
        ("language_model.model.layers.2.mlp_moe_gen.up_proj.weight", "infer_gen: main.final"),
        ("language_model.model.layers.0.self_attn.v_proj.bias", "stage2: velocity"),
        ("vit_model.vision_tower.norm.bias", "stage1: grad connector.fc1.weight"),
    ],
)
def test_a_changed_weight_is_noticed(shared_folder: Path, tmp_path: Path, tensor: str, seen_by: str) -> None:
    for path in (shared_folder / "parity" / "A").iterdir():
        shutil.copyfile(path, tmp_path / path.name)
    tensors = load_file(tmp_path / "state_dict.safetensors")
    tensors[tensor] = tensors[tensor] * 1.01 + 0.01
    save_file(tensors, tmp_path / "state_dict.safetensors")
    failed = {quantity.name for quantity in compare(tmp_path) if not quantity.within}
    assert seen_by in failed


def test_measure_is_elementwise() -> None:
    recorded = torch.tensor([1.0, 1000.0, 0.0])
    assert measure("x", recorded + torch.tensor([1e-4, 0.1, 1e-5]), recorded, ACTIVATION_TOLERANCE).within
    for wrong in ([2e-4, 0, 0], [0, 0.2, 0], [0, 0, 2e-5], [torch.nan, 0, 0]):
        assert not measure("x", recorded + torch.tensor(wrong), recorded, ACTIVATION_TOLERANCE).within
    found = measure("x", recorded + torch.tensor([0, 0.1, 0]), recorded, ACTIVATION_TOLERANCE)
    assert found.max_abs == pytest.approx(0.1, rel=1e-3) and found.max_rel == pytest.approx(1e-4, rel=1e-3)
    assert not measure("x", torch.zeros(2), torch.zeros(3), ACTIVATION_TOLERANCE).within


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json"):
        compare(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    save_file({"a": torch.zeros(1)}, tmp_path / "state_dict.safetensors")
    with pytest.raises(WeightsError, match="model_type is 'other'"):
        compare(tmp_path)
