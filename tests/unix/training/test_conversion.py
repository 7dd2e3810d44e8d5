"""Foreign weights in and out: exact round trips, what is new or wrong is said by name, memory stays small."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unix.errors import ConfigError, WeightsError
from unix.model.weights.native import load_codec, load_model
from unix.training.conversion import ConvertConfig, ConvertSummary, Layout, convert


def run(start: Layout, end: Layout, source: Path, target: Path) -> ConvertSummary:
    return convert(ConvertConfig(source_layout=start, target_layout=end, source=str(source), target=str(target)))


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        value.dtype == right[name].dtype and torch.equal(value, right[name]) for name, value in left.items()
    )


@pytest.fixture
def released(shared_folder: Path, tmp_path: Path) -> Path:
    """The recorded model in the released layout: half precision, in two parts, published connector names, a VAE."""
    source = tmp_path / "released"
    (source / "vae").mkdir(parents=True)
    tensors = load_file(shared_folder / "parity" / "A" / "state_dict.safetensors")
    published = {"connector.fc1": "connector.layers.0", "connector.fc2": "connector.layers.2"}
    for name in list(tensors):
        stem, _, kind = name.rpartition(".")
        tensors[f"{published.get(stem, stem)}.{kind}"] = tensors.pop(name).bfloat16()
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        save_file({name: tensors[name] for name in held}, source / file)
    index = {"weight_map": {name: file for file, held in parts.items() for name in held}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copyfile(shared_folder / "parity" / "A" / "config.json", source / "config.json")
    for name in ("state_dict.safetensors", "config.json"):
        shutil.copyfile(shared_folder / "parity" / "vae" / name, source / "vae" / name)
    return source


def test_the_released_layout_makes_the_round_trip(released: Path, tmp_path: Path) -> None:
    summary = run(Layout.REFERENCE, Layout.NATIVE, released, tmp_path / "ours")
    assert summary.new == () and any("attn_pool" in name for name in summary.unused)
    model, codec = load_model(tmp_path / "ours")
    assert model.config.decoder.num_layers == 4 and codec.config.kind == "kl-f16"
    run(Layout.NATIVE, Layout.REFERENCE, tmp_path / "ours", tmp_path / "back")
    theirs = {k: v for part in released.glob("model-*") for k, v in load_file(part).items()}
    assert equal(load_file(tmp_path / "back" / "model.safetensors"), theirs)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == json.loads(
        (released / "config.json").read_text()
    )
    vae = load_file(released / "vae" / "state_dict.safetensors")
    assert equal(load_file(tmp_path / "back" / "vae" / "model.safetensors"), vae)


def test_a_model_of_ours_is_exported_without_extras(released: Path, tmp_path: Path) -> None:
    run(Layout.REFERENCE, Layout.NATIVE, released, tmp_path / "ours")
    for file in (tmp_path / "ours").glob("reference_extras.*"):
        file.unlink()
    summary = run(Layout.NATIVE, Layout.REFERENCE, tmp_path / "ours", tmp_path / "back")
    assert any("pooling head" in note for note in summary.notes)
    run(Layout.REFERENCE, Layout.NATIVE, tmp_path / "back", tmp_path / "again")
    assert equal(
        load_file(tmp_path / "again" / "model.safetensors"), load_file(tmp_path / "ours" / "model.safetensors")
    )
    assert (tmp_path / "again" / "model.json").read_text() == (tmp_path / "ours" / "model.json").read_text()


def test_the_autoencoder_converts_from_a_legacy_file(shared_folder: Path, tmp_path: Path) -> None:
    tensors = load_file(shared_folder / "parity" / "vae" / "state_dict.safetensors")
    source = tmp_path / "kl"
    source.mkdir()
    torch.save({"state_dict": tensors | {"loss.logvar": torch.zeros(1)}}, source / "last.ckpt")
    shutil.copyfile(shared_folder / "parity" / "vae" / "config.json", source / "config.json")
    assert run(Layout.KL_F16, Layout.NATIVE, source, tmp_path / "ours").unused == ("loss.logvar",)
    assert load_codec(tmp_path / "ours").config.kind == "kl-f16"
    run(Layout.NATIVE, Layout.KL_F16, tmp_path / "ours", tmp_path / "back")
    assert equal(load_file(tmp_path / "back" / "model.safetensors"), tensors)


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_legacy_files_run_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Trap()}, tmp_path / "last.ckpt")
    with pytest.raises(WeightsError, match="without running code"):
        run(Layout.KL_F16, Layout.NATIVE, tmp_path, tmp_path / "ours")
    assert "code ran" not in capsys.readouterr().out
    assert not (tmp_path / "ours").exists() and not list(tmp_path.glob(".*"))


def janus(
    deepseek: bool, width: int = 64, inner: int = 96, vocabulary: int = 24, num_layers: int = 1
) -> dict[str, Tensor]:
    """Random weights; half as many key-value channels as query channels, a tower of one layer, 128 wide."""
    generator = torch.Generator().manual_seed(0)
    decoder = "language_model.model." if deepseek else "model.language_model."
    tower = "vision_model.vision_tower." if deepseek else "model.vision_model."
    shapes: dict[str, tuple[int, ...]] = {
        f"{decoder}embed_tokens.weight": (vocabulary, width),
        f"{decoder}norm.weight": (width,),
        "language_model.lm_head.weight" if deepseek else "lm_head.weight": (vocabulary, width),
        "gen_head.weight" if deepseek else "model.generation_head.proj_out.weight": (3, 3),
    }
    for index in range(num_layers):
        layer = f"{decoder}layers.{index}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (width, width),
            f"{layer}self_attn.k_proj.weight": (width // 2, width),
            f"{layer}self_attn.v_proj.weight": (width // 2, width),
            f"{layer}self_attn.o_proj.weight": (width, width),
            f"{layer}mlp.gate_proj.weight": (inner, width),
            f"{layer}mlp.up_proj.weight": (inner, width),
            f"{layer}mlp.down_proj.weight": (width, inner),
            f"{layer}input_layernorm.weight": (width,),
            f"{layer}post_attention_layernorm.weight": (width,),
        }

    def linear(name: str, rows: int, *columns: int) -> None:
        shapes.update({f"{name}.weight": (rows, *columns), f"{name}.bias": (rows,)})

    linear("aligner.layers.0" if deepseek else "model.aligner.fc1", width, 128)
    linear("aligner.layers.2" if deepseek else "model.aligner.hidden_layers.0", width, width)
    block = f"{tower}blocks.0." if deepseek else f"{tower}encoder.layers.0."
    if deepseek:
        shapes[f"{tower}pos_embed"] = (1, 4, 128)
        shapes[f"{tower}attn_pool.latent"] = (1, 1, 128)
        linear(f"{block}attn.qkv", 384, 128)
    else:
        shapes[f"{tower}embeddings.position_embedding.weight"] = (4, 128)
        for name in ("q_proj", "k_proj", "v_proj"):
            linear(f"{block}self_attn.{name}", 128, 128)
    linear(f"{tower}patch_embed.proj" if deepseek else f"{tower}embeddings.patch_embedding", 128, 3, 16, 16)
    linear(f"{tower}norm" if deepseek else f"{tower}post_layernorm", 128)
    linear(f"{block}attn.proj" if deepseek else f"{block}self_attn.projection_layer", 128, 128)
    linear(f"{block}norm1" if deepseek else f"{block}layer_norm1", 128)
    linear(f"{block}norm2" if deepseek else f"{block}layer_norm2", 128)
    linear(f"{block}mlp.fc1", 512, 128)
    linear(f"{block}mlp.fc2", 128, 512)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_janus(folder: Path, deepseek: bool, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    if deepseek:
        torch.save(tensors, folder / "pytorch_model.bin")
        tower = {"params": {"model_name": "siglip_large_patch16_384", "image_size": 384}}
        values = {"language_config": {"num_attention_heads": 2}, "vision_config": tower}
    else:
        save_file(tensors, folder / "model.safetensors")
        values = {"text_config": {"num_attention_heads": 2}, "vision_config": {"num_attention_heads": 16}}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture
def small_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Janus-Pro's special ids, within 24."""
    from unix.model.dual_branch import SpecialTokens

    ids = SpecialTokens(bos=0, eos=1, boi=2, eoi=3)
    monkeypatch.setattr("unix.training.conversion._special_tokens", lambda _: ids)


@pytest.mark.usefixtures("small_ids")
@pytest.mark.parametrize("deepseek", [True, False], ids=["deepseek-ai", "transformers"])
def test_janus_starts_both_branches(deepseek: bool, tmp_path: Path) -> None:
    tensors = janus(deepseek)
    summary = run(Layout.JANUS, Layout.NATIVE, write_janus(tmp_path / "janus", deepseek, tensors), tmp_path / "ours")
    model, _ = load_model(tmp_path / "ours")
    decoder, layer = model.config.decoder, model.layers[0]
    assert (decoder.num_heads, decoder.num_key_value_heads, decoder.num_layers) == (2, 1, 1)
    assert (model.config.vision.image_size, model.config.vision.num_heads) == (32, 16)
    prefix = "language_model.model." if deepseek else "model.language_model."
    for branch in (layer.understanding, layer.generation):
        assert torch.equal(branch.key.weight, tensors[f"{prefix}layers.0.self_attn.k_proj.weight"])
        assert torch.equal(branch.query_norm.weight, torch.ones(32)) and not branch.value.bias.any()
    tower = model.vision.siglip.encoder.layers[0].self_attn
    if deepseek:
        assert torch.equal(tower.k_proj.weight, tensors["vision_model.vision_tower.blocks.0.attn.qkv.weight"][128:256])
    else:
        name = "model.vision_model.encoder.layers.0.self_attn.projection_layer.weight"
        assert torch.equal(tower.out_proj.weight, tensors[name])
    assert not model.latent_out.weight.any() and model.latent_in.weight.any()
    assert {"layers.*.understanding.query_norm.weight", "layers.*.understanding.value.bias"} <= set(summary.new)
    assert {"latent_in.weight", "generation_norm.weight"} <= set(summary.new)
    assert not any("q_proj" in name or name.startswith("connector") for name in summary.new)
    assert len(summary.unused) == (2 if deepseek else 1)


@pytest.mark.usefixtures("small_ids")
def test_faulty_weights_stop_with_the_tensors_name(tmp_path: Path) -> None:
    whole = janus(True)
    gone = {name: value for name, value in whole.items() if name != "aligner.layers.2.bias"}
    misshapen = whole | {"language_model.model.layers.0.mlp.down_proj.weight": torch.zeros(64, 95)}
    extra = whole | {"mystery": torch.zeros(1)}
    cases = ((gone, r"missing aligner\.layers\.2\.bias"), (misshapen, r"down_proj.*\[64, 95\]"), (extra, "mystery"))
    for number, (tensors, said) in enumerate(cases):
        source = write_janus(tmp_path / str(number), True, tensors)
        with pytest.raises(WeightsError, match=said):
            run(Layout.JANUS, Layout.NATIVE, source, tmp_path / "ours")
        assert not (tmp_path / "ours").exists()


def test_mistaken_calls_are_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot convert janus to reference"):
        run(Layout.JANUS, Layout.REFERENCE, released, tmp_path / "ours")
    with pytest.raises(ConfigError, match="holds something"):
        run(Layout.REFERENCE, Layout.NATIVE, released, released)
    (released / "model-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-2\.safetensors is missing"):
        run(Layout.REFERENCE, Layout.NATIVE, released, tmp_path / "ours")
    with pytest.raises(WeightsError, match="does not exist"):
        run(Layout.REFERENCE, Layout.NATIVE, tmp_path / "absent", tmp_path / "ours")


PEAK = """
import sys
from pathlib import Path
from unix.training.conversion import ConvertConfig, convert

def resident(field):
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith(field))

before = resident("VmRSS")
start, end, source, target = sys.argv[1:]
convert(ConvertConfig(source_layout=start, target_layout=end, source=source, target=target))
print(max(0, resident("VmHWM") - before) * 1024)
"""


def measured(start: str, end: str, source: Path, target: Path) -> tuple[int, int]:
    """The most memory that a conversion in a process of its own took, and the bytes of model that it wrote."""
    command = [sys.executable, "-c", PEAK, start, end, str(source), str(target)]
    peak = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    return peak, (target / "model.safetensors").stat().st_size


@pytest.mark.slow
def test_conversion_holds_less_than_the_model(tmp_path: Path) -> None:
    """200 MB of weights whose largest tensor is 32 MB."""
    from unix.model.dual_branch import DecoderConfig, DualBranch, ModelConfig, SpecialTokens
    from unix.model.latent import NoCodec, NoCodecConfig
    from unix.model.vision import VisionConfig
    from unix.model.weights.native import save_model

    model = DualBranch(
        ModelConfig(
            decoder=DecoderConfig(
                vocabulary_size=16384,
                hidden_size=512,
                intermediate_size=1408,
                num_layers=5,
                num_heads=8,
                num_key_value_heads=8,
            ),
            vision=VisionConfig(image_size=32, hidden_size=64, intermediate_size=64, num_layers=1, num_heads=1),
            tokens=SpecialTokens(bos=0, eos=1, boi=2, eoi=3),
        )
    )
    save_model(tmp_path / "native", model, NoCodec(NoCodecConfig()))
    (tmp_path / "native" / "meta.json").write_text("{}")
    for start, end, source, target in (
        ("native", "reference", "native", "out"),
        ("reference", "native", "out", "back"),
    ):
        peak, written = measured(start, end, tmp_path / source, tmp_path / target)
        assert peak < 1.2 * written, (start, peak / written)


@pytest.mark.slow
@pytest.mark.parametrize("deepseek", [True, False], ids=["deepseek-ai", "transformers"])
def test_janus_is_converted_in_less_memory_than_its_model(deepseek: bool, tmp_path: Path) -> None:
    """350 MB written, whose largest tensors are the two of 105 MB that 102,400 words need."""
    tensors = janus(deepseek, width=256, inner=704, vocabulary=102_400, num_layers=24)
    write_janus(tmp_path / "janus", deepseek, tensors)
    peak, written = measured("janus", "native", tmp_path / "janus", tmp_path / "ours")
    assert peak < 1.2 * written, peak / written
