"""What an examination finds: each fault once, none where there is none."""

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from unix.cli import run
from unix.data.phantom import PhantomConfig, write_phantom
from unix.doctor import Check, DoctorConfig, examine
from unix.doctor.data import check_sets
from unix.doctor.disk import check_disk
from unix.doctor.machine import check_packages
from unix.doctor.weights import check_weights
from unix.errors import ConfigError
from unix.manifest import Manifest, Parents, ShardEntry, publish_manifest
from unix.records import Split, Task
from unix.store import Store
from unix.training.stages import TrainConfig, load_stage

KEY = "sk-this-must-never-be-shown"


def states(checks: object) -> dict[str, str]:
    return {check.name: check.state for check in checks}  # pyright: ignore[reportGeneralTypeIssues]: any iterable


def found(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paper(stage: str, **places: str) -> TrainConfig:
    given = {"shards": "shards", "run_dir": "runs", "from_checkpoint": "none"} | places
    return load_stage(stage, preset="paper", overrides=[f"{name}={value}" for name, value in given.items()])


def test_an_empty_folder_lacks_nothing_until_something_is_asked_of_it(here: Path) -> None:
    summary = examine(DoctorConfig())
    assert summary.missing == 0
    assert found(summary.checks, "store").state == "warning"
    assert list(here.iterdir()) == []


def test_the_paper_needs_gpus_weights_and_shards(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(["doctor", "--preset", "paper", "--json", str(here / "found.json")]) == 1
    written = json.loads((here / "found.json").read_text())
    missing = {check["name"] for check in written["checks"] if check["state"] == "missing"}
    assert missing >= {"GPU", "autoencoder", "alignment encoder", "set understanding-384", "set generation-256-latents"}
    assert all(check["remedy"] for check in written["checks"] if check["state"] != "ok")
    assert f"{written['missing']} missing" in capsys.readouterr().err


def test_packages_that_are_absent_or_of_another_version_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert states(check_packages())["packages"] in ("ok", "warning")
    monkeypatch.setattr(
        "unix.doctor.machine.requires", lambda _: ["no-such-package>=1", "numpy>=2", "ray; extra == 'ray'"]
    )
    monkeypatch.setattr("unix.doctor.machine._tested_versions", lambda: {"numpy": "0.1"})
    _, absent, other = check_packages()
    assert (absent.state, absent.found) == ("missing", "not installed: no-such-package")
    assert other.state == "warning"
    assert "numpy" in other.found
    assert "0.1" in other.found


def test_a_damaged_table_is_missing(here: Path) -> None:
    store = Store(here / "store")
    store.create("studies", "images")
    for log in (here / "store" / "tables" / "images" / "_delta_log").iterdir():
        log.write_text("{not json")
    checks = examine(DoctorConfig(store=str(here / "store"))).checks
    assert found(checks, "table images").state == "missing"
    assert "studies v0" in found(checks, "store").found


def test_a_source_folder_is_held_against_its_manifest(here: Path) -> None:
    root = here / "phantom"
    write_phantom(PhantomConfig(studies=6, out=str(root), image_size=48))
    config = DoctorConfig(source="phantom", root=str(root))
    checks = examine(config).checks
    assert {check.state for check in checks if check.name.startswith("source")} == {"ok"}

    table = next(root.glob("*-split.csv.gz"))
    table.write_bytes(gzip.compress(b"dicom_id,study_id\na,b\n"))
    for image in root.glob("files/**/*.jpg"):
        image.unlink()
    checks = examine(config).checks
    assert found(checks, "source split").state == "missing"
    assert "subject_id" in found(checks, "source split").found
    assert found(checks, "source images").state == "missing"

    assert found(examine(DoctorConfig(source="phantom", root="absent")).checks, "source").state == "missing"


def test_half_a_question_is_refused() -> None:
    with pytest.raises(ConfigError, match="together"):
        examine(DoctorConfig(source="phantom"))
    with pytest.raises(ConfigError, match="paper, tiny"):
        examine(DoctorConfig(preset="huge"))


def test_weights_are_missing_cut_off_or_whole(here: Path) -> None:
    folder = here / "vae"
    stage = paper("stage2", **{"generation.autoencoder": str(folder)})
    config = DoctorConfig(start=str(here / "none"))
    assert states(check_weights(config, [stage]))["autoencoder"] == "missing"

    folder.mkdir()
    (folder / "vae.json").write_text("{}")
    save_file({"a": np.zeros((4, 4), np.float32)}, folder / "vae.safetensors")
    (whole,) = (check for check in check_weights(config, [stage]) if check.name == "autoencoder")
    assert whole.state == "ok"
    assert "1 tensors" in whole.found

    content = (folder / "vae.safetensors").read_bytes()
    for damaged in (content[:-8], content[:5], b"\xff" * 40):
        (folder / "vae.safetensors").write_bytes(damaged)
        assert states(check_weights(config, [stage]))["autoencoder"] == "missing"


def test_room_is_reckoned_for_checkpoints_on_one_disk(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [paper("stage1"), paper("stage2")]
    checks = list(check_disk(DoctorConfig(), stages))
    runs = next(check for check in checks if check.name == "disk for runs")
    # stage 1 keeps 5 of 28.5 GB and writes a sixth, stage 2 keeps 7 of 22.7 GB and writes an eighth
    assert "about 328 to come" in runs.found
    free = type("Usage", (), {"free": 10 * 2**30})
    monkeypatch.setattr("unix.doctor.disk.shutil.disk_usage", lambda _: free)
    assert states(check_disk(DoctorConfig(), stages))["disk for runs"] == "missing"


class Models(BaseHTTPRequestHandler):
    """Lists one model for the right key."""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {KEY}" and self.path == "/v1/models"
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "served"}], "echo": KEY}).encode())

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Models) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}/v1"
        served.shutdown()


def endpoints(folder: Path, base_url: str, model: str = "served") -> None:
    lines = f"ours: {{base_url: '{base_url}', model: {model}, api_key_env: OUR_KEY}}\n"
    (folder / "endpoints.yaml").write_text(lines)


@pytest.mark.parametrize(
    ("key", "model", "state", "says"),
    [
        (KEY, "served", "ok", "serves served"),
        (KEY, "other", "warning", "does not list other"),
        ("sk-wrong", "served", "missing", "refuses the key"),
    ],
)
def test_an_endpoint_is_asked_for_its_models(
    key: str, model: str, state: str, says: str, here: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoints(here, server, model)
    monkeypatch.setenv("OUR_KEY", key)
    summary = examine(DoctorConfig(endpoint="ours"))
    check = found(summary.checks, "endpoint ours")
    assert check.state == state
    assert says in check.found
    assert "sk-" not in summary.model_dump_json()


def test_an_endpoint_without_key_or_server_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints(here, "http://127.0.0.1:9")
    monkeypatch.delenv("OUR_KEY", raising=False)
    assert found(examine(DoctorConfig(endpoint="ours")).checks, "endpoint ours key").state == "missing"
    monkeypatch.setenv("OUR_KEY", KEY)
    check = found(examine(DoctorConfig(endpoint="ours")).checks, "endpoint ours")
    assert check.state == "missing"
    assert "ConnectError" in check.found


def test_a_public_host_is_not_contacted_for_credentialed_reports(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoints(here, "http://192.0.2.1/v1")
    monkeypatch.setenv("OUR_KEY", KEY)
    monkeypatch.setattr("httpx.get", lambda *_, **__: pytest.fail("contacted"))
    checks = examine(DoctorConfig(endpoint="ours")).checks
    assert found(checks, "endpoint ours policy").state == "missing"
    assert "endpoint ours" not in states(checks)


def test_sets_in_an_object_store_are_not_taken_for_missing(here: Path) -> None:
    checks = list(check_sets(DoctorConfig(shards="s3://bucket/shards"), [paper("stage1")]))
    assert states(checks) == {"sets": "warning"}


def test_a_set_with_a_shard_cut_off_is_missing(here: Path) -> None:
    folder = here / "shards" / "understanding-384"
    folder.mkdir(parents=True)
    (folder / "train-000000.tar").write_bytes(b"x" * 10)
    entry = ShardEntry(
        file="train-000000.tar", split=Split.TRAIN, samples=3, bytes=10, sha256="", index_sha256="", superseded=()
    )
    manifest = Manifest(
        set="understanding-384",
        task=Task.UNDERSTANDING,
        size=384,
        members=("jpg", "json"),
        parents=Parents(code_revision="", configuration_digest=""),
        parent_release=None,
        added_shards=("train-000000.tar",),
        superseded_samples=0,
        considered=3,
        excluded={},
        shards=(entry,),
    )
    publish_manifest(folder, manifest)
    config = DoctorConfig(shards=str(here / "shards"))
    assert states(check_sets(config, [paper("stage1")])) == {"set understanding-384": "ok"}
    (folder / "train-000000.tar").write_bytes(b"x" * 9)
    assert states(check_sets(config, [paper("stage1")])) == {"set understanding-384": "missing"}
