"""Drops into a watched folder, to a decided model: the flows with their commands, the smallest training there is."""

import gzip
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines import curation, retraining
from unix.cli import run
from unix.data.cleaning.client import ChatClient, Reply
from unix.data.landing import WatchConfig, watch
from unix.data.stream import ShardReader
from unix.manifest import read_manifest, read_release
from unix.records import Split, Status
from unix.registry.models import list_models
from unix.registry.retraining import PlanConfig, plan_retraining
from unix.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("prefect_server", "in_this_process"),
    pytest.mark.filterwarnings("ignore:Initializing zero-element tensors"),
]

SETS = ["understanding-64", "generation-48", "generation-64"]
OLD, NEW = 100, 31
CHANGED, WITHDRAWN = 3, 2
WARM_START = ("warm_start.text.steps=4", "warm_start.tower.steps=4", "warm_start.autoencoder.steps=4", "steps=12")


def flow(called: Any) -> Any:
    """A flow's own result, which Prefect's types leave open."""
    return called


def phantom(folder: Path, studies: int, first: int) -> Path:
    words = ["--studies", str(studies), "--first-study", str(first), "--image-size", "96", "--seed", "7"]
    assert run(["phantom", "--out", str(folder), *words]) == 0
    return folder


def drop(later: Path, watched: Path) -> None:
    """Copy studies into the folder, over whatever is there, and enter them in its tables."""
    shutil.copytree(later / "files", watched / "files", dirs_exist_ok=True)
    here = {path.stem[1:] for path in watched.rglob("s*.txt")}
    for table in sorted(later.glob("*.csv.gz")):
        old, new = (gzip.decompress(path.read_bytes()).decode().splitlines() for path in (watched / table.name, table))
        rows = [row for row in dict.fromkeys([*old[1:], *new[1:]]) if here & set(row.split(","))]
        (watched / table.name).write_bytes(gzip.compress("\n".join([old[0], *rows, ""]).encode(), mtime=0))


def corrupt(folder: Path) -> str:
    """Cut the images of a folder's first study short; its id."""
    report = min(folder.rglob("s*.txt"))
    for image in report.with_suffix("").glob("*.jpg"):
        image.write_bytes(image.read_bytes()[:200])
    return report.stem[1:]


def change_and_withdraw(watched: Path) -> None:
    reports = sorted(watched.rglob("s*.txt"))
    for report in reports[5 : 5 + CHANGED]:
        report.write_text(f"{report.read_text().rstrip()}\n There is once more a small left pleural effusion.\n")
    for report in reports[10 : 10 + WITHDRAWN]:
        report.unlink()
        shutil.rmtree(report.with_suffix(""))


def tars(shards: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(shards.rglob("*.tar"))}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every report that an endpoint is asked about."""
    texts: list[str] = []
    answer = ChatClient.clean

    async def note(self: ChatClient, report: str, correction: Sequence[Any] = ()) -> Reply:
        texts.append(report)
        return await answer(self, report, correction)

    monkeypatch.setattr(ChatClient, "clean", note)
    return texts


def test_drops_become_releases_and_decided_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    watched = phantom(tmp_path / "watched", OLD, 0)
    later = phantom(tmp_path / "later", NEW, OLD)
    source: dict[str, Any] = {"source": "phantom", "root": str(watched), "store": store.uri}
    options: dict[str, Any] = {
        **{"store": store.uri, "runs": "runs/retrain", "settings": ["steps=4", "processes=1"]},
        **{"min_new_studies": 10, "test_limit": 12, "num_steps": 2},
    }

    asking: dict[str, Any] = {"store": store.uri, "runs": "runs/retrain", "preset": "tiny", "min_new_studies": 10}

    def curate() -> dict[str, Any]:
        return flow(curation.curate)(**source, sets=SETS).values

    def retrain() -> dict[str, Any]:
        return flow(retraining.retrain)("tiny", **options).values

    shards = Path(curate()["out"])
    settings = [word for each in (*WARM_START, "processes=1", "run_dir=runs/stage0") for word in ("--set", each)]
    assert run(["train", "stage0", "--preset", "tiny", "--store", store.uri, *settings]) == 0
    assert run(["models", "register", "runs/stage0", "--store", store.uri]) == 0
    champion = list_models(store).models[0].model_id
    assert run(["models", "promote", champion, "--store", store.uri]) == 0
    before, known = tars(shards), set(asked)

    # new, changed and withdrawn studies, one of the new ones unreadable
    unreadable = corrupt(later)
    drop(later, watched)
    change_and_withdraw(watched)
    told: list[tuple[int, int, int]] = []
    looks = WatchConfig(**source, interval=0.01, looks=3)
    watch(looks, lambda landing: told.append((landing.new, landing.changed, landing.withdrawn)))
    assert told == [(NEW, CHANGED, WITHDRAWN)]
    asked.clear()
    first = curate()
    assert known.isdisjoint(asked), "known texts are not paid for twice"
    assert 0 < len(set(asked)) <= NEW + CHANGED
    assert {path: digest for path, digest in tars(shards).items() if path in before} == before
    assert all(each["added_samples"] > 0 for each in first["sets"].values())
    rejected = store.read("rejections").filter(pl.col("job") == "ingest")
    assert any(unreadable in item for item in rejected["item"])
    no_leaks(store)
    assert Status.FAILED not in store.read("cleaned_reports")["status"].to_list()

    decision = retrain()
    assert decision["outcome"] in ("promoted", "refused", "awaiting approval")
    assert decision["reason"]
    assert decision["compared_with"] == champion
    models = list_models(store)
    assert len(models.models) == 2
    assert models.models[0].parents.start == champion
    assert models.champion is not None
    assert (models.champion.model_id == champion) == (decision["outcome"] != "promoted")

    # the same drop once more
    versions = store.versions("studies", "images", "splits", "cleaned_reports")
    asked.clear()
    drop(later, watched)
    assert not curate()["changed"]
    assert not asked
    assert store.versions(*versions) == versions
    assert not retrain()["due"]

    # two drops before anything ran, and a third one before the retraining of both
    for place in (0, 1):
        drop(phantom(tmp_path / f"at-once-{place}", 6, OLD + NEW + 6 * place), watched)
    both, again = curate(), curate()
    assert not again["changed"]
    drop(phantom(tmp_path / "third", 6, OLD + NEW + 12), watched)
    newest = curate()
    assert len(asked) == len(set(asked)) <= 18
    for name in SETS:
        manifest = read_manifest(shards / name)
        assert manifest.release == newest["sets"][name]["release"]
        assert manifest.parent_release == both["sets"][name]["release"]
        assert (
            read_release(shards / name, both["sets"][name]["release"]).parent_release == first["sets"][name]["release"]
        )
    no_leaks(store)
    reader = ShardReader(shards / SETS[0], Split.TRAIN)
    assert len(set(reader.keys)) == reader.samples
    # one retraining for both releases, on the newest; whoever asks again is led to the same one
    plans = [plan_retraining(PlanConfig(**asking, settings=tuple(options["settings"]))) for _ in range(2)]
    assert plans[0] == plans[1]
    assert plans[0].due
    assert 10 <= plans[0].new_studies <= 18
    assert plans[0].releases == {name: newest["sets"][name]["release"] for name in SETS}
    assert plans[0].champion == models.champion.model_id


def no_leaks(store: Store) -> None:
    subjects = store.read("splits").group_by("source", "subject_id").agg(pl.col("split").n_unique())
    assert subjects["split"].max() == 1
