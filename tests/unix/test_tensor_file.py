"""Headers of safetensors files: what a whole one says, and that damage is named."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unix.errors import WeightsError
from unix.tensor_file import read_header


def test_a_whole_file_tells_its_size(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(5, np.float16)}, path, {"format": "np"})
    file = read_header(path)
    assert (file.num_tensors, file.num_parameters, file.num_bytes) == (2, 17, path.stat().st_size)
    first = file.digest
    save_file({"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.float16)}, path, {"format": "np"})
    assert read_header(path).digest == first
    save_file({"a": np.ones((4, 3), np.float32), "b": np.ones(5, np.float16)}, path, {"format": "np"})
    assert read_header(path).digest != first


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(WeightsError, match=r"cannot read .*m\.safetensors"):
        read_header(path)
    save_file({"a": np.zeros((3, 4), np.float32)}, path)
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(WeightsError, match="it was cut off"):
        read_header(path)
    deep = b"[" * 100_000
    headers = [b"[1]", b'{"a": 1}', b'{"a": {"data_offsets": []}}', json.dumps({"a": {"shape": []}}).encode(), deep]
    damaged = [content[:5], b"\xff" * 40, *(len(header).to_bytes(8, "little") + header for header in headers)]
    for bytes_ in damaged:
        path.write_bytes(bytes_)
        with pytest.raises(WeightsError, match=r"m\.safetensors is no safetensors file"):
            read_header(path)
