"""`unix convert`: weights of other projects into a checkpoint of ours and back, streaming tensor by tensor."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from unix.config import Config, read_yaml
from unix.data.pack import UnderstandingPacking
from unix.data.tokenizer import FILE_NAME as TOKENIZER_FILE
from unix.data.tokenizer import Tokenizer
from unix.data.user_prompts import load_user_prompts
from unix.errors import ConfigError, WeightsError
from unix.model.dual_branch import DualBranch, ModelConfig, SpecialTokens
from unix.model.latent import KLF16, KLF16Config
from unix.model.layers import position_table
from unix.model.weights import janus, kl_f16, reference
from unix.model.weights.mapping import check_shapes
from unix.model.weights.native import CODEC_CONFIG, load_tensors, read_config
from unix.model.weights.tensors import TensorSource, write_tensors
from unix.progress import Progress
from unix.runs import newest_step
from unix.training.checkpoint import META_FILE, Meta

EXTRAS_FILE = "reference_extras.safetensors"
"""What a reference checkpoint holds and we have no use for, so that converting back gives it again."""
EXTRAS_CONFIG_FILE = "reference_extras.json"
AUTOENCODER_FOLDER = "vae"
"""Where the released layout keeps its image autoencoder."""


class Layout(StrEnum):
    """Whose names and files."""

    NATIVE = "native"
    REFERENCE = "reference"
    JANUS = "janus"
    KL_F16 = "kl-f16"


class ConvertConfig(Config):
    """Convert weights from one layout to another."""

    source_layout: Layout
    target_layout: Layout
    source: str
    """A folder with weights and configuration, or the weights file with its configuration beside it."""
    target: str
    """Folder to be written; it must not exist, or be empty."""
    seed: int = 0
    """Of what the source does not have and must be drawn."""


class ConvertSummary(Config):
    """What was written, and what did not fit one to one."""

    target: str
    tensors: int
    bytes: int
    new: tuple[str, ...]
    """Our tensors that the source does not have, as patterns with their counts."""
    unused: tuple[str, ...]
    """The source's tensors that have no use here, likewise."""
    notes: tuple[str, ...]


@dataclass
class _Written:
    tensors: int = 0
    size: int = 0

    def add(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        with Progress(path.name, len(tensors)) as progress:
            self.size += write_tensors(path, tensors, progress.advance)
        self.tensors += len(tensors)


def convert(config: ConvertConfig) -> ConvertSummary:
    """Convert; the target folder appears whole.

    Raises:
        ConfigError: no such pair of layouts, or the target holds something.
        WeightsError: the source is missing or damaged, or a tensor is missing, misshapen or unknown.
    """
    pair = (config.source_layout, config.target_layout)
    if pair not in _CONVERSIONS:
        known = ", ".join(f"{start} to {end}" for start, end in _CONVERSIONS)
        raise ConfigError(f"cannot convert {pair[0]} to {pair[1]}; there are {known}")
    source, target = Path(config.source), Path(config.target)
    if not source.exists():
        raise WeightsError(f"{source} does not exist")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} holds something already; give a folder that does not exist yet")
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        summary = _CONVERSIONS[pair](source, aside, config)
        if target.exists():
            target.rmdir()
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return summary


def _reference_to_native(source: Path, target: Path, config: ConvertConfig) -> ConvertSummary:
    tensors = TensorSource.open(source)
    values = _configuration(source)
    model = reference.model_config(values)
    ours, extras = reference.import_reference(model, tensors, tensors.origin)
    check_shapes(list(reference.rules(model, extras.connector_layers)), _shapes(model), tensors.shapes, tensors.origin)
    written = _Written()
    _write_model(target, model, ours, written)
    written.add(target / EXTRAS_FILE, extras.tensors)
    _write_json(target / EXTRAS_CONFIG_FILE, {"connector_layers": extras.connector_layers, "config": values})
    notes = [_write_autoencoder(source, target, written), *_write_surroundings(source, target, model, config)]
    return _summary(config, written, (), extras.tensors, notes)


def _native_to_reference(source: Path, target: Path, config: ConvertConfig) -> ConvertSummary:
    folder = newest_step(source)
    model = read_config(folder / "model.json", TypeAdapter(ModelConfig))
    notes: list[str] = []
    kept: Mapping[str, Tensor]
    if (folder / EXTRAS_FILE).is_file():
        kept = TensorSource.open(folder / EXTRAS_FILE)
        saved = json.loads((folder / EXTRAS_CONFIG_FILE).read_text(encoding="utf-8"))
        values, layers = saved["config"], saved["connector_layers"]
        if reference.model_config(values) != model:
            raise WeightsError(f"{folder / EXTRAS_CONFIG_FILE} describes another model than model.json")
    else:
        values, layers = reference.reference_config(model), True
        width, grid = model.decoder.hidden_size, model.vision.image_size // model.vision.patch_size
        kept = {
            reference.LATENT_TABLE: position_table(model.latent.max_side, model.latent.max_side, width),
            "vit_pos_embed.pos_embed": position_table(grid, grid, width),
        }
        notes.append("without the tower's pooling head, which the reference builds and never uses")
    tensors = TensorSource.open(folder / "model.safetensors")
    for name, shape in _shapes(model).items():
        if tensors.shapes.get(name) != shape:
            raise WeightsError(f"{tensors.origin}: {name} has shape {tensors.shapes.get(name)}, not {shape}")
    theirs = reference.to_reference(model, tensors, layers)
    written = _Written()
    written.add(target / "model.safetensors", _Together(theirs, kept))
    _write_json(target / "config.json", values)
    codec = read_config(folder / "vae.json", CODEC_CONFIG)
    if isinstance(codec, KLF16Config):
        (target / AUTOENCODER_FOLDER).mkdir()
        _export_autoencoder(folder, target / AUTOENCODER_FOLDER, codec, written)
    else:
        notes.append(f"without an image autoencoder: this one is {codec.kind}, which the reference does not know")
    if (folder / TOKENIZER_FILE).is_file():
        shutil.copyfile(folder / TOKENIZER_FILE, target / TOKENIZER_FILE)
    return _summary(config, written, (), (), notes)


def _janus_to_native(source: Path, target: Path, config: ConvertConfig) -> ConvertSummary:
    tensors = TensorSource.open(source)
    values = _configuration(source)
    model = janus.model_config(values, tensors, _special_tokens(source))
    tied = janus.is_tied(values, tensors.shapes)
    ours, new = janus.import_janus(model, tensors, config.seed, tied)
    rules = list(janus.rules(model, janus.is_deepseek(tensors.shapes), tied))
    check_shapes(rules, _shapes(model), tensors.shapes, tensors.origin)
    written = _Written()
    _write_model(target, model, ours, written)
    unused = [name for name in tensors if name.startswith(janus.UNUSED)]
    notes = [
        "Janus has no QK-norm: with weights of one it still normalises, so logits differ from Janus' own",
        _write_autoencoder(source, target, written),
        *_write_surroundings(source, target, model, config),
    ]
    return _summary(config, written, new, unused, notes)


def _kl_f16_to_native(source: Path, target: Path, config: ConvertConfig) -> ConvertSummary:
    written = _Written()
    unused = _import_autoencoder(source, target, written)
    return _summary(config, written, (), unused, ())


def _native_to_kl_f16(source: Path, target: Path, config: ConvertConfig) -> ConvertSummary:
    folder = source if (source / "vae.json").is_file() else newest_step(source)
    codec = read_config(folder / "vae.json", CODEC_CONFIG)
    if not isinstance(codec, KLF16Config):
        raise WeightsError(f"{folder / 'vae.json'} is of kind {codec.kind}, which has no kl-f16 layout")
    written = _Written()
    _export_autoencoder(folder, target, codec, written)
    return _summary(config, written, (), (), ())


_CONVERSIONS = {
    (Layout.REFERENCE, Layout.NATIVE): _reference_to_native,
    (Layout.NATIVE, Layout.REFERENCE): _native_to_reference,
    (Layout.JANUS, Layout.NATIVE): _janus_to_native,
    (Layout.KL_F16, Layout.NATIVE): _kl_f16_to_native,
    (Layout.NATIVE, Layout.KL_F16): _native_to_kl_f16,
}


class _Together(Mapping[str, Tensor]):
    """Two mappings as one, neither of them copied."""

    def __init__(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
        self._first, self._second = first, second

    def __getitem__(self, name: str) -> Tensor:
        return self._first[name] if name in self._first else self._second[name]

    def __iter__(self) -> Any:
        yield from self._first
        yield from self._second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)


def _write_model(target: Path, model: ModelConfig, tensors: Mapping[str, Tensor], written: _Written) -> None:
    written.add(target / "model.safetensors", tensors)
    _write_json(target / "model.json", model.model_dump(mode="json"))


def _shapes(model: ModelConfig) -> dict[str, list[int]]:
    """Of the model that the configuration describes, without its memory."""
    with torch.device("meta"):
        return {name: list(value.shape) for name, value in DualBranch(model).state_dict().items()}


def _write_autoencoder(source: Path, target: Path, written: _Written) -> str:
    """The autoencoder that came along, or a placeholder that says there is none; returns a note."""
    beside = (source if source.is_dir() else source.parent) / AUTOENCODER_FOLDER
    if beside.is_dir():
        _import_autoencoder(beside, target, written)
        return f"image autoencoder from {beside}"
    _write_json(target / "vae.json", {"kind": "none"})
    write_tensors(target / "vae.safetensors", {})
    return "no image autoencoder: convert kl-f16 and name its folder as generation.autoencoder"


def _import_autoencoder(source: Path, target: Path, written: _Written) -> list[str]:
    tensors = TensorSource.open(source)
    values = _configuration(source, optional=True)
    shape = values.get("model", {}).get("params", values) if isinstance(values.get("model"), dict) else values
    codec = KLF16(kl_f16.codec_config(shape) if shape else KLF16Config())
    kl_f16.load_kl_f16(codec, tensors, tensors.origin)
    written.add(target / "vae.safetensors", codec.state_dict())
    _write_json(target / "vae.json", codec.config.model_dump(mode="json"))
    return [name for name in tensors if name.startswith(kl_f16.IGNORED_PREFIX)]


def _export_autoencoder(folder: Path, target: Path, config: KLF16Config, written: _Written) -> None:
    codec = KLF16(config)
    load_tensors(codec, TensorSource.open(folder / "vae.safetensors"), str(folder / "vae.safetensors"))
    written.add(target / "model.safetensors", kl_f16.export_kl_f16(codec))
    _write_json(target / "config.json", kl_f16.foreign_config(config))


def _write_surroundings(source: Path, target: Path, model: ModelConfig, config: ConvertConfig) -> Iterable[str]:
    """What else a checkpoint holds: tokenizer, preprocessing, and last `meta.json`."""
    folder = source if source.is_dir() else source.parent
    note = f"no {TOKENIZER_FILE} beside the weights: put the one they came with into the target folder"
    if (folder / TOKENIZER_FILE).is_file():
        tokenizer = Tokenizer.load(folder)
        ids = (tokenizer.bos, tokenizer.eos, tokenizer.boi, tokenizer.eoi)
        wanted = (model.tokens.bos, model.tokens.eos, model.tokens.boi, model.tokens.eoi)
        if ids != wanted:
            raise WeightsError(f"{folder / TOKENIZER_FILE}: bos, eos, boi, eoi are {ids}, the model's are {wanted}")
        shutil.copyfile(folder / TOKENIZER_FILE, target / TOKENIZER_FILE)
        note = f"{TOKENIZER_FILE} copied"
    wordings = load_user_prompts()
    packing = UnderstandingPacking(prompts=wordings.findings_and_impression, findings_prompts=wordings.findings)
    _write_json(target / "preprocessing.json", packing.model_dump(mode="json"))
    meta = Meta(
        stage=config.source_layout,
        step=0,
        steps=1,
        seed=config.seed,
        loader=None,
        configuration_digest=config.model_copy(update={"source": "", "target": ""}).digest(),
        architecture_digest=model.digest(),
        shards_digest="",
        notes=(f"converted from {config.source_layout}",),
    )
    _write_json(target / META_FILE, meta.model_dump(mode="json"))
    return (note,)


def _special_tokens(source: Path) -> SpecialTokens:
    """The ids of the tokenizer beside the weights; Janus-Pro's own where there is none."""
    folder = source if source.is_dir() else source.parent
    if not (folder / TOKENIZER_FILE).is_file():
        return SpecialTokens()
    tokenizer = Tokenizer.load(folder)
    return SpecialTokens(bos=tokenizer.bos, eos=tokenizer.eos, boi=tokenizer.boi, eoi=tokenizer.eoi)


def _configuration(source: Path, optional: bool = False) -> dict[str, Any]:
    """The JSON or YAML configuration beside the weights."""
    folder = source if source.is_dir() else source.parent
    found = [path for path in (folder / "config.json", *sorted(folder.glob("*.yaml"))) if path.is_file()]
    if not found and not optional:
        raise WeightsError(f"{folder} has no config.json beside the weights; it says what shape the model has")
    if not found:
        return {}
    if found[0].suffix == ".yaml":
        return read_yaml(found[0])
    # not as YAML, which takes 1e-06 for a string
    try:
        return dict(json.loads(found[0].read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{found[0]} is no JSON object: {error}") from error


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def _summary(
    config: ConvertConfig, written: _Written, new: Iterable[str], unused: Iterable[str], notes: Iterable[str]
) -> ConvertSummary:
    return ConvertSummary(
        target=config.target,
        tensors=written.tensors,
        bytes=written.size,
        new=_patterns(new),
        unused=_patterns(unused),
        notes=tuple(notes),
    )


def _patterns(names: Iterable[str]) -> tuple[str, ...]:
    """Names with their numbers left out, and how many are alike: `layers.*.understanding.query.bias (24)`."""
    counts = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return tuple(f"{pattern} ({count})" if count > 1 else pattern for pattern, count in counts.items())
