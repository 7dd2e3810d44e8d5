"""Twenty steps of every stage, loss by loss. `make golden` rewrites them; a changed curve is a changed training."""

import json
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from unix.training.metrics import read_metrics
from unix.training.run import train

STEPS = 20


@pytest.fixture(scope="module")
def curves(configure, tmp_path_factory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("golden")
    found: dict[str, list[float]] = {}
    start = None
    for stage in ("stage0", "stage1", "stage2", "stage3"):
        config = configure(stage, folder / stage, from_checkpoint=start, steps=6 if stage == "stage0" else STEPS)
        if stage == "stage0":
            parts = {name: {"steps": STEPS, "learning_rate": 1e-3} for name in ("text", "tower", "autoencoder")}
            warm = config.warm_start.model_dump() | parts
            config = configure(stage, folder / stage, steps=3 * STEPS, warm_start=warm)
        start = train(config).checkpoint
        for row in read_metrics(folder / stage):
            found.setdefault(f"{stage}/{row['part']}" if "part" in row else stage, []).append(row["loss"])
    return found


def test_golden_losses(curves: dict[str, list[float]], request: pytest.FixtureRequest) -> None:
    path = Path(REPOSITORY, "tests", "golden", "losses.json")
    if request.config.getoption("--rewrite-golden"):
        path.write_text(json.dumps({name: [float(f"{x:.6g}") for x in xs] for name, xs in curves.items()}, indent=0))
        return
    expected = json.loads(path.read_text())
    assert curves.keys() == expected.keys()
    for name, losses in expected.items():
        assert len(losses) == STEPS, name
        assert curves[name] == pytest.approx(losses, rel=2e-3), name  # processors round differently
