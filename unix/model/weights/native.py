"""Models in this project's own layout: safetensors beside the JSON configurations that rebuild the modules.

`model.safetensors` + `model.json` hold the model, `vae.safetensors` + `vae.json` its image codec. Loading is strict.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from unix.config import Config, describe
from unix.errors import WeightsError
from unix.model.dual_branch import DualBranch, ModelConfig
from unix.model.latent import KLF16, FoldedVAE, FoldedVAEConfig, ImageCodec, KLF16Config, NoCodec, NoCodecConfig
from unix.model.weights.tensors import TensorSource

T = TypeVar("T")
CODEC_CONFIG: TypeAdapter[FoldedVAEConfig | KLF16Config | NoCodecConfig] = TypeAdapter(
    FoldedVAEConfig | KLF16Config | NoCodecConfig
)


def save_model(folder: Path, model: DualBranch, codec: ImageCodec) -> None:
    """Write model and codec into `folder`, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, module, config in (("model", model, model.config), ("vae", codec, codec.config)):
        save_module(folder / name, module, config)


def load_model(folder: Path) -> tuple[DualBranch, ImageCodec]:
    """Read what `save_model` wrote, on the CPU, a tensor at a time.

    Raises:
        WeightsError: a file is missing or damaged, or a tensor is missing, misshapen or unexpected.
    """
    config = read_config(folder / "model.json", TypeAdapter(ModelConfig))
    with torch.random.fork_rng(devices=[]):
        model = DualBranch(config)
    load_tensors(model, TensorSource.open(folder / "model.safetensors"), str(folder / "model.safetensors"))
    return model, load_codec(folder)


def load_codec(folder: Path) -> ImageCodec:
    """Read only the image codec of a model's folder."""
    codec_config = read_config(folder / "vae.json", CODEC_CONFIG)
    with torch.random.fork_rng(devices=[]):
        match codec_config:
            case FoldedVAEConfig():
                codec: ImageCodec = FoldedVAE(codec_config)
            case KLF16Config():
                codec = KLF16(codec_config)
            case NoCodecConfig():
                codec = NoCodec(codec_config)
    load_tensors(codec, read_tensors(folder / "vae.safetensors"), str(folder / "vae.safetensors"))
    return codec


def save_module(stem: Path, module: nn.Module, config: Config) -> None:
    """Write `<stem>.safetensors` and `<stem>.json`."""
    save_tensors(stem, module.state_dict(), config)


def save_tensors(stem: Path, tensors: Mapping[str, Tensor], config: Config) -> None:
    """Write a module's tensors and configuration as `save_module` does."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(whole, stem.with_suffix(".safetensors"))
    text = json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True)
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def read_config(path: Path, kind: TypeAdapter[T]) -> T:
    """Validate the JSON at `path`."""
    try:
        return kind.validate_json(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}; is this a checkpoint?") from error
    except ValidationError as error:
        raise WeightsError(f"{path}: {describe(error)}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the weights {path}: {error}") from error


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Copy `tensors` one at a time into `module`, which must name exactly the same ones in the same shapes.

    Raises:
        WeightsError: names the first few missing, unexpected or misshapen tensors; `origin` says where they came from.
            What fits may have been copied by then.
    """
    wanted = module.state_dict()
    faults = [f"{name} is missing" for name in wanted if name not in tensors]
    faults += [f"{name} is unexpected" for name in tensors if name not in wanted]
    with torch.no_grad():
        for name, place in wanted.items():
            value = tensors.get(name, place)
            if value.shape != place.shape:
                faults.append(f"{name} has shape {list(value.shape)}, not {list(place.shape)}")
            elif not faults:
                place.copy_(value)
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise WeightsError(f"{origin}: {'; '.join(faults[:5])}{more}")
