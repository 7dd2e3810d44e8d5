"""Runs as training leaves them, with bytes in place of weights, on a set of shards with releases."""

import json
from pathlib import Path
from typing import Any

import pytest

from unix.config import json_digest
from unix.manifest import Manifest, Parents, publish_manifest
from unix.records import Task
from unix.runs import Meta
from unix.store import Store


class Workshop:
    """Writes runs and releases below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = Store(root / "store")
        self.shards = root / "store" / "shards"

    def release(self, name: str = "understanding-32", splits_version: int = 0) -> Manifest:
        """A release of an empty set, made from this version of the splits."""
        return publish_manifest(
            self.shards / name,
            Manifest(
                set=name,
                task=Task(name.partition("-")[0]),
                size=32,
                members=("jpg", "json"),
                parents=Parents(
                    tables={"splits": splits_version, "studies": 1},
                    prompt_version="v2",
                    prompt_digests=("p" * 64,),
                    model="rules",
                    code_revision="c0de",
                    configuration_digest="d" * 64,
                ),
                parent_release=None,
                added_shards=(),
                superseded_samples=0,
                considered=0,
                excluded={},
                shards=(),
            ),
        )

    def run(self, name: str, stage: str, start: Path | None = None, weights: str = "", **meta: Any) -> Path:
        """A finished run of 3 steps on `understanding-32`; the run's folder."""
        manifest = self.release() if not (self.shards / "understanding-32").exists() else None
        step = self.root / "runs" / name / "step-3"
        step.mkdir(parents=True)
        (step / "model.safetensors").write_bytes((weights or name).encode())
        parents: tuple[str, ...] = ()
        if start is not None:
            parent = Meta.model_validate_json((start / "step-3" / "meta.json").read_bytes())
            parents = (*parent.parents, f"{parent.stage}:{parent.configuration_digest}:3")
        digest = manifest.digest() if manifest else self.digest()
        values = dict(
            stage=stage,
            step=3,
            steps=3,
            seed=0,
            loader=None,
            configuration_digest=json_digest(name),
            architecture_digest="a",
            shards_digest=digest,
            code_revision="c0de",
            parents=parents,
        )
        (step / "meta.json").write_text(Meta.model_validate({**values, **meta}).model_dump_json())
        configuration = {
            "shards": str(self.shards),
            "data_set": "understanding-32",
            "from_checkpoint": None if start is None else str(start),
        }
        (step / "configuration.json").write_text(json.dumps(configuration))
        return step.parent

    def digest(self) -> str:
        """Of the present release."""
        from unix.manifest import read_manifest

        return read_manifest(self.shards / "understanding-32").digest()


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)
