"""Loading onto shards: every rank gets its rows, and never holds the whole model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unix.errors import WeightsError
from unix.model.dual_branch import DualBranch, ModelConfig
from unix.model.latent import NoCodec, NoCodecConfig
from unix.model.weights.native import save_model
from unix.training.engine import Engine, EngineConfig, Place

_RANK = """
import json, re, sys, torch
from pathlib import Path
from safetensors import safe_open
from torch.distributed.tensor import DTensor
from unix.model.dual_branch import ModelConfig
from unix.training.engine import Engine, EngineConfig, Place
torch.set_num_threads(1)
def resident(field):  # of this program alone: ru_maxrss begins with what the parent had
    return int(re.search(field + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
folder, rank, ranks = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
config = ModelConfig.model_validate_json((folder / "model.json").read_bytes())
place = Place(rank, ranks, rank, (folder / "rendezvous").as_uri())
with Engine(place, EngineConfig(sharding="full")) as engine:
    engine.barrier()
    before = resident("VmRSS")
    model = engine.load(folder, config)
    grown = resident("VmHWM") - before
    wrong = []
    for name, value in model.state_dict().items():
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        with safe_open(folder / "model.safetensors", "pt") as file:
            if not torch.equal(whole, file.get_tensor(name)):
                wrong.append(name)
    ids = model.vision.siglip.embeddings.position_ids
    wrong += [] if ids.flatten().tolist() == list(range(ids.numel())) else ["position_ids"]
    sharded = sum(isinstance(value, DTensor) for value in model.parameters())
    print(json.dumps({"grown": grown, "wrong": wrong, "sharded": sharded}))
"""


_CODE = 32 * 2**20
"""Of the libraries, loaded when first used."""


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3], ids=["halves", "uneven thirds"])
def test_each_rank_holds_its_part_alone(ranks: int, tmp_path: Path, repository: Path) -> None:
    """A rank's memory grows by its part and its rows of one tensor; read whole and then spread it grew by it all."""
    config = ModelConfig.build(
        {
            "decoder": {
                "vocabulary_size": 40_000,
                "hidden_size": 512,
                "intermediate_size": 1408,
                "num_layers": 4,
                "num_heads": 8,
                "num_key_value_heads": 8,
            },
            "vision": {"image_size": 64, "hidden_size": 64, "intermediate_size": 128, "num_layers": 1, "num_heads": 2},
            "tokens": {"bos": 0, "eos": 1, "boi": 2, "eoi": 3},
        }
    )
    model = DualBranch.build(config, 0)
    save_model(tmp_path, model, NoCodec(NoCodecConfig()))
    size = sum(value.numel() * 4 for value in model.parameters())
    largest = max(value.numel() * 4 for value in model.parameters())
    commands = [[sys.executable, "-c", _RANK, str(tmp_path), str(rank), str(ranks)] for rank in range(ranks)]
    started = [subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True) for command in commands]
    for printed in [process.communicate(timeout=500)[0] for process in started]:
        found = json.loads(printed)
        assert found["wrong"] == []
        assert found["sharded"] == len(list(model.parameters()))
        assert size / ranks * 0.9 < found["grown"] < (size + largest) / ranks + _CODE


def test_what_does_not_fit_is_refused(warm, tmp_path) -> None:
    config = ModelConfig.model_validate_json((Path(warm.checkpoint) / "model.json").read_bytes())
    other = config.model_copy(update={"latent": config.latent.model_copy(update={"channels": 8})})
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "model.json").write_text(other.model_dump_json())
    (folder / "model.safetensors").write_bytes((Path(warm.checkpoint) / "model.safetensors").read_bytes())
    with (
        Engine(Place(), EngineConfig(sharding="full")) as engine,
        pytest.raises(WeightsError, match=r"latent_in\.weight"),
    ):
        engine.load(folder, other)
