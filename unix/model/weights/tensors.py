"""Tensors in files, one at a time: reading foreign checkpoints of any layout, writing safetensors as a stream.

A large checkpoint never has to be in memory as a whole: a `TensorSource` reads a tensor when it is asked for, and
`write_tensors` lets go of each before it asks for the next.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from unix.errors import WeightsError

WEIGHT_FILES = ("model.safetensors", "state_dict.safetensors", "pytorch_model.bin")
"""What a folder of weights may hold, the first that is there; else its only file with one of `_SUFFIXES`."""

_WRAPPINGS = ("state_dict", "model_state_dict")
"""Under what name a training script's checkpoint holds the model's tensors."""
_SUFFIXES = (".safetensors", ".bin", ".ckpt", ".pt", ".pth")
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class TensorSource(Mapping[str, Tensor]):
    """Tensors by name, each read when it is asked for."""

    def __init__(self, origin: str, readers: Mapping[str, Callable[[], Tensor]], shapes: Mapping[str, list[int]]):
        self.origin = origin
        self._readers, self.shapes = readers, shapes

    def __getitem__(self, name: str) -> Tensor:
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._readers)

    def __len__(self) -> int:
        return len(self._readers)

    @classmethod
    def open(cls, path: Path) -> "TensorSource":
        """A weights file, or a folder that holds one, whole or in parts with an index.

        safetensors, or torch's own format read without running code (`weights_only`).

        Raises:
            WeightsError: there is none, it is damaged, or a part of it is missing.
        """
        files = _files(path)
        readers: dict[str, Callable[[], Tensor]] = {}
        shapes: dict[str, list[int]] = {}
        for file in files:
            found, sizes = _safetensors(file) if file.suffix == ".safetensors" else _pickled(file)
            readers |= found
            shapes |= sizes
        return cls(str(path if len(files) > 1 else files[0]), readers, shapes)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], advance: Callable[[int], None] | None = None) -> int:
    """Write `tensors` as one safetensors file, asking for one at a time; `advance` is told of each. Returns bytes.

    The file appears whole: it is written beside its place and renamed.
    """
    # the header comes first but is known last: room for it is reserved, and what is left is filled with spaces
    room = -(-sum(len(json.dumps(name)) + 160 for name in tensors) // 8) * 8 + 64
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    aside, offset = path.with_name(f".{path.name}.partial"), 0
    with aside.open("wb") as file:
        file.seek(8 + room)
        for name in tensors:
            value = tensors[name].detach().cpu().contiguous()
            if value.dtype not in _DTYPES:
                raise WeightsError(f"{name} is of type {value.dtype}, which safetensors files do not hold")
            size = value.numel() * value.element_size()
            shape = list(value.shape)
            header[name] = {"dtype": _DTYPES[value.dtype], "shape": shape, "data_offsets": [offset, offset + size]}
            # numpy knows no bfloat16: bytes are bytes
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)
            offset += size
            del value  # gone before the next is read
            if advance is not None:
                advance(1)
        text = json.dumps(header).encode()
        file.seek(0)
        file.write(room.to_bytes(8, "little") + text.ljust(room))
    aside.replace(path)
    return 8 + room + offset


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of names, types, shapes and values, whatever file they came from."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    for index in sorted(path.glob("*.index.json")) if path.is_dir() else ():
        try:
            parts = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{index} is no index of weights: {error}") from error
        missing = [part for part in parts if not (path / part).is_file()]
        if missing:
            raise WeightsError(f"{path / missing[0]} is missing, which {index.name} names; complete the download")
        return [path / part for part in parts]
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return [path / name]
    others = sorted(file for file in path.glob("*") if file.suffix in _SUFFIXES) if path.is_dir() else []
    if len(others) == 1:
        return others
    told = f"it holds {', '.join(file.name for file in others)}; name one" if others else "no weights there"
    raise WeightsError(f"{path}: {told}; expected a file, or a folder with {' or '.join(WEIGHT_FILES)}")


def _safetensors(path: Path) -> tuple[dict[str, Callable[[], Tensor]], dict[str, list[int]]]:
    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            # opened anew and copied, so that no page of the file stays mapped in
            with safe_open(path, "pt") as file:
                return file.get_tensor(name).clone()

        return read

    try:
        with safe_open(path, "pt") as file:
            shapes = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"cannot read the weights {path}: {error}") from error
    return {name: reader(name) for name in shapes}, shapes


def _pickled(path: Path) -> tuple[dict[str, Callable[[], Tensor]], dict[str, list[int]]]:
    file = _PickledFile(path)
    return {name: partial(file.read, name) for name in file.tensors}, {
        name: list(value.shape) for name, value in file.tensors.items()
    }


_MOST_MAPPED = 64 << 20
"""Bytes that may be read through one mapping of a file before it is mapped anew: pages once read stay resident."""


class _PickledFile:
    """Tensors in torch's own format, mapped into memory and read without running code."""

    def __init__(self, path: Path) -> None:
        self._path, self._num_read = path, 0
        self.tensors = self._map()

    def read(self, name: str) -> Tensor:
        """A copy of one tensor."""
        value = self.tensors[name].detach().clone()
        self._num_read += value.nbytes
        if self._num_read > _MOST_MAPPED:
            self.tensors.clear()  # unmaps the file
            self._num_read, self.tensors = 0, self._map()
        return value

    def _map(self) -> dict[str, Tensor]:
        path = self._path
        try:
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WeightsError(f"cannot read the weights {path} without running code from it: {reason}") from error
        for wrapping in _WRAPPINGS:
            if isinstance(values, dict) and isinstance(values.get(wrapping), dict):
                values = values[wrapping]
        if not isinstance(values, dict):
            raise WeightsError(f"{path} holds a {type(values).__name__}, not tensors by name")
        return {str(name): value for name, value in values.items() if isinstance(value, Tensor)}
