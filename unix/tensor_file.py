"""What a safetensors file says of itself in its header, read without torch and without its tensors."""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from unix.errors import WeightsError


@dataclass(frozen=True)
class TensorFile:
    """A whole safetensors file, by its header."""

    num_bytes: int
    num_tensors: int
    num_parameters: int
    """Numbers in all of its tensors."""
    digest: str
    """16 hexadecimal digits of names, types, shapes and places."""


def read_header(path: Path) -> TensorFile:
    """Read the header of `path`.

    Raises:
        WeightsError: the file is missing, no safetensors file, or not as long as its header says.
    """
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > num_bytes:
                raise ValueError("its header is longer than the file")
            header = cast(dict[str, Any], json.loads(file.read(length)))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors), default=0)
        num_parameters = sum(math.prod(map(int, entry["shape"])) for entry in tensors)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    except (struct.error, ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise WeightsError(f"{path} is no safetensors file: {error}") from error
    if num_bytes != whole:
        raise WeightsError(f"{path} has {num_bytes} bytes instead of {whole}: it was cut off")
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]
    return TensorFile(num_bytes, len(tensors), num_parameters, digest)
