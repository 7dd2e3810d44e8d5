"""The build of shard sets, from a store to published manifests."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from unix.data import shards as shards_module
from unix.data.images import squares
from unix.data.shards import ShardsConfig, build_shards, plan_shards, publish_shards, verify_shards
from unix.data.splits import SplitsConfig, build_splits
from unix.data.stream import ShardReader
from unix.errors import ConfigError, ShardError
from unix.manifest import read_manifest
from unix.records import Split

SETS = ("understanding-48", "generation-32", "generation-64")


def fill(curated: Any, studies: range = range(12), **changes: Any) -> str:
    for number in studies:
        split = ("train", "train", "train", "test")[number % 4]
        curated.complete_study(f"s{number}", official_split=split, **changes)
    uri = curated.commit()
    build_splits(SplitsConfig(store=uri))
    return uri


def config(uri: str, out: Path | None = None, **changes: Any) -> ShardsConfig:
    return ShardsConfig.build(
        {"store": uri, "sets": SETS, "samples_per_shard": 4, "workers": 1, "out": str(out) if out else None, **changes}
    )


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def keys(folder: Path, split: str = "train") -> set[str]:
    return set(ShardReader(folder, split).keys)


# webdataset leaves its files to the garbage collector
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_build_writes_what_the_contract_says(curated: Any) -> None:
    import webdataset  # not at the top: processes of the builds below would import it, and torch with it

    uri = fill(curated)
    summary = build_shards(config(uri))
    assert (summary.images_decoded, summary.changed) == (12, True)
    for name in SETS:
        folder = Path(summary.out) / name
        of_set = summary.sets[name]
        assert of_set.splits == {"train": 9, "validate": 0, "test": 3}
        assert (of_set.considered, of_set.samples, of_set.excluded) == (12, 12, {})
        manifest = read_manifest(folder)
        assert [shard.file for shard in manifest.shards] == [f"train-{n:06d}.tar" for n in range(3)] + [
            "test-000000.tar"
        ]
        assert manifest.parents.tables["splits"] == curated.store.version("splits")
        assert (manifest.parents.prompt_version, manifest.parents.model) == ("v1", "rules")
        samples = list(
            webdataset.WebDataset([str(p) for p in sorted(folder.glob("*.tar"))], shardshuffle=False).decode("l")
        )
        assert len(samples) == 12
        for sample in samples:
            size = int(name.rpartition("-")[2])
            assert sample["jpg"].shape == (size, size)
            record = sample["json"]
            assert record["image_id"] == sample["__key__"]
            expected = {"image_id", "study_id", "subject_id", "source", "split", "findings", "impression", "labels"}
            expected |= {"view_position", "prompt_version", "model", "report_sha256"}
            expected |= {"caption"} if name.startswith("generation") else set()
            assert set(record) == expected
            assert record["labels"]["Edema"] == 1
            assert record["report_sha256"] == f"sha-{record['study_id']}"
    assert not list(Path(summary.out).rglob("*.tmp"))
    assert not (Path(summary.out) / ".build").exists()


def test_one_partition_holds_the_same_images_at_every_size(curated: Any) -> None:
    out = Path(build_shards(config(fill(curated))).out)
    for path in sorted((out / "generation-32").glob("*.tar")):
        with tarfile.open(path) as small, tarfile.open(out / "generation-64" / path.name) as large:
            assert small.getnames() == large.getnames()


def test_pictures_can_be_kept_without_loss_and_a_change_of_format_is_a_release(curated: Any) -> None:
    uri = fill(curated)
    build_shards(config(uri, sets=("generation-32",)))
    summary = build_shards(config(uri, sets=("generation-32",), picture={"format": "png"}))
    assert (summary.sets["generation-32"].added_samples, summary.sets["generation-32"].superseded_samples) == (12, 12)
    folder = Path(summary.out, "generation-32")
    assert read_manifest(folder).members == ("png", "json")
    assert verify_shards(folder).problems == ()
    reader = ShardReader(folder, "train")
    for sample in reader.read_many(range(reader.samples)):
        source = (curated.root / "images" / f"{sample.image_id}.jpg").read_bytes()
        assert np.array_equal(sample.image, squares(source, [32])[32])


def test_the_caption_is_the_impression_or_else_the_findings(curated: Any) -> None:
    curated.complete_study("both", official_split="train")
    curated.complete_study("findings-only", official_split="train")
    curated.cleaned("findings-only", impression="")
    uri = curated.commit()
    build_splits(SplitsConfig(store=uri))
    out = Path(build_shards(config(uri)).out)
    reader = ShardReader(out / "generation-32", "train")
    captions = {sample.image_id: sample.caption for sample in reader.read_many(range(2))}
    assert captions == {"both-0": "Impression of both.", "findings-only-0": "Findings of findings-only."}
    assert ShardReader(out / "understanding-48", "train").read(0).caption == ""


def test_bytes_do_not_depend_on_the_number_of_processes(curated: Any, tmp_path: Path) -> None:
    uri = fill(curated)
    build_shards(config(uri, tmp_path / "one"))
    build_shards(config(uri, tmp_path / "two", workers=2))
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")


def test_an_unchanged_rerun_changes_no_byte_and_decodes_nothing(curated: Any) -> None:
    uri = fill(curated)
    out = Path(build_shards(config(uri)).out)
    before = files_below(out)
    again = build_shards(config(uri))
    assert (again.changed, again.images_decoded) == (False, 0)
    assert files_below(out) == before
    assert [s.samples for s in again.sets.values()] == [12, 12, 12]
    assert {(s.added_samples, s.superseded_samples) for s in again.sets.values()} == {(0, 0)}


def interrupted_after(monkeypatch: pytest.MonkeyPatch, name: str, calls: int) -> Callable[[], None]:
    """Make a function that the build calls fail after some calls; returns what undoes it."""
    original = getattr(shards_module, name)
    made = 0

    def wrapped(*arguments: Any) -> Any:
        nonlocal made
        if made == calls:
            raise KeyboardInterrupt
        made += 1
        return original(*arguments)

    monkeypatch.setattr(shards_module, name, wrapped)
    return lambda: monkeypatch.setattr(shards_module, name, original)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        ("write_partition", 0),
        ("write_partition", 2),
        ("publish_manifest", 0),
        ("publish_manifest", 1),
        ("drop_plan", 0),
    ],
)
def test_an_interrupted_build_ends_with_the_bytes_of_an_undisturbed_one(
    curated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    uri = fill(curated)
    build_shards(config(uri, tmp_path / "undisturbed"))
    restore = interrupted_after(monkeypatch, name, calls)
    with pytest.raises(KeyboardInterrupt):
        build_shards(config(uri, tmp_path / "disturbed"))
    restore()
    build_shards(config(uri, tmp_path / "disturbed"))
    assert files_below(tmp_path / "disturbed") == files_below(tmp_path / "undisturbed")


def test_finished_partitions_are_not_written_again(
    curated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = fill(curated)
    restore = interrupted_after(monkeypatch, "write_partition", 2)
    with pytest.raises(KeyboardInterrupt):
        build_shards(config(uri))
    restore()
    out = config(uri).out_folder
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.tar")}
    assert len(written) == 6
    build_shards(config(uri))
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_an_unfinished_build_of_other_inputs_is_dropped(
    curated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = fill(curated)
    restore = interrupted_after(monkeypatch, "write_partition", 3)
    with pytest.raises(KeyboardInterrupt):
        build_shards(config(uri))
    restore()
    curated.review("s1", "reject")
    curated.commit()
    build_splits(SplitsConfig(store=uri))
    build_shards(config(uri))
    build_shards(config(uri, tmp_path / "clean"))
    assert files_below(config(uri).out_folder) == files_below(tmp_path / "clean")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_build_killed_ten_times_ends_with_the_same_bytes(curated: Any, tmp_path: Path, workers: int) -> None:
    uri = fill(curated, range(120))
    build_shards(config(uri, tmp_path / "undisturbed"))
    disturbed = config(uri, tmp_path / "disturbed", workers=workers)
    script = tmp_path / "build.py"
    script.write_text(
        "import sys; from unix.data.shards import ShardsConfig, build_shards\n"
        "if __name__ == '__main__': build_shards(ShardsConfig.model_validate_json(sys.argv[1]))"
    )
    generator = np.random.default_rng(workers)
    # The build has 31 partitions; each kill comes at a random moment after so many of them are done.
    for num_done in sorted(generator.choice(24, 10, replace=False).tolist()):
        process = subprocess.Popen([sys.executable, script, disturbed.model_dump_json()], start_new_session=True)
        while num_results(disturbed.out_folder) < num_done:
            assert process.poll() is None, "the build ended before it was killed"
            time.sleep(0.002)
        time.sleep(float(generator.uniform(0, 0.05)))
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    build_shards(disturbed)
    assert shards_below(tmp_path / "disturbed") == shards_below(tmp_path / "undisturbed")
    assert verify_shards(disturbed.out_folder).problems == ()


def shards_below(out: Path) -> dict[str, bytes]:
    """Tars and indexes; manifests also name the code's revision, which may change while a long test runs."""
    return {name: content for name, content in files_below(out).items() if name.endswith((".tar", ".index.json"))}


def num_results(out: Path) -> int:
    """Finished partitions of an unfinished build."""
    return len(list((out / ".build").glob("*.result.json")))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_that_loses_a_node_writes_the_same_bytes(
    curated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    uri = fill(curated, range(120))
    build_shards(config(uri, tmp_path / "alone"))
    on_ray = config(uri, tmp_path / "ray", engine="ray", workers=None)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    lost: list[int] = []
    try:
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)

        def lose_a_node() -> None:
            while num_results(on_ray.out_folder) < 6:
                time.sleep(0.01)
            cluster.remove_node(second, allow_graceful=False)
            lost.append(num_results(on_ray.out_folder))

        thread = threading.Thread(target=lose_a_node)
        thread.start()
        build_shards(on_ray)
        thread.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost[0] < 31
    assert shards_below(tmp_path / "ray") == shards_below(tmp_path / "alone")
    assert verify_shards(on_ray.out_folder).problems == ()


def test_ray_that_is_not_installed_is_a_clear_error(curated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'unix-cxr\[ray\]'"):
        build_shards(config(fill(curated), engine="ray"))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_hugging_face_datasets_reads_the_shards(curated: Any, tmp_path: Path) -> None:
    from datasets import load_dataset

    summary = build_shards(config(fill(curated)))
    folder = Path(summary.out, "generation-32")
    files = {split: str(folder / f"{split}-*.tar") for split in ("train", "test")}
    loaded = load_dataset("webdataset", data_files=files, cache_dir=str(tmp_path / "cache"))
    for split in ("train", "test"):
        reader = ShardReader(folder, split)
        expected = {s.image_id: s for s in reader.read_many(range(reader.samples))}
        assert set(loaded[split]["__key__"]) == set(expected)
        for row in loaded[split]:
            sample = expected[row["__key__"]]
            assert (row["json"]["caption"], row["json"]["labels"]) == (sample.caption, sample.labels)
            assert np.array_equal(np.asarray(row["jpg"]), sample.image)


def test_bad_images_are_counted_by_reason_and_tried_again_next_time(curated: Any) -> None:
    uri = fill(curated)
    images = curated.root / "images"
    good = (images / "s0-0.jpg").read_bytes()
    (images / "s0-0.jpg").write_bytes(good[:1000])
    (images / "s1-0.jpg").write_bytes(b"no picture")
    (images / "s2-0.jpg").unlink()
    summary = build_shards(config(uri))
    reasons = {"truncated_image": 1, "unreadable_image": 1, "missing_image_file": 1}
    for name, of_set in summary.sets.items():
        assert of_set.excluded == reasons
        assert of_set.considered == of_set.samples + sum(of_set.excluded.values()) == 12
        assert read_manifest(Path(summary.out) / name).excluded == reasons
    rejected = curated.store.read("rejections").filter(pl.col("job") == "shards-generation-32")
    assert Counter(rejected["reason"]) == reasons
    again = build_shards(config(uri))
    assert (again.changed, again.sets["generation-32"].excluded) == (False, reasons)
    (images / "s0-0.jpg").write_bytes(good)
    healed = build_shards(config(uri)).sets["generation-32"]
    assert (healed.samples, healed.added_samples) == (10, 1)
    left = curated.store.read("rejections").filter(pl.col("job") == "shards-generation-32")
    assert set(left["item"]) == {"s1-0", "s2-0"}


def test_text_that_is_no_longer_approved_is_an_exclusion(curated: Any) -> None:
    uri = fill(curated)
    curated.review("s1", "reject")
    curated.study("s2", withdrawn=True)
    curated.commit()
    of_set = build_shards(config(uri)).sets["understanding-48"]
    assert of_set.excluded == {"review_rejected": 1, "withdrawn": 1}
    assert (of_set.considered, of_set.samples) == (12, 10)


def test_30_new_3_changed_and_2_withdrawn_studies_make_a_release_beside_untouched_tars(curated: Any) -> None:
    uri = fill(curated, range(40))
    first = build_shards(config(uri))
    out = Path(first.out)
    before = {name: content for name, content in files_below(out).items() if "/releases/" in name or ".tar" in name}
    curated.review("s1", "edit", findings="Edited.", impression="Edited too.")
    curated.review("s9", "edit", findings="Edited as well.", impression="")
    (curated.root / "images" / "s4-0.jpg").write_bytes((curated.root / "images" / "s5-0.jpg").read_bytes() + b"..")
    curated.study("s2", withdrawn=True)
    curated.study("s6", withdrawn=True)
    fill(curated, range(40, 70))
    second = build_shards(config(uri))
    assert second.images_decoded == 33
    live = {f"s{n}-0" for n in range(70) if n % 4 != 3} - {"s2-0", "s6-0"}
    for name in SETS:
        folder = out / name
        of_set = second.sets[name]
        assert (of_set.added_samples, of_set.superseded_samples, of_set.samples) == (33, 5, 68)
        assert of_set.parent_release == read_manifest(folder).parent_release == first.sets[name].release
        reader = ShardReader(folder, "train")
        samples = reader.read_many(range(reader.samples))
        assert Counter(s.image_id for s in samples) == Counter(live)
        assert {s.findings for s in samples if s.image_id in {"s1-0", "s9-0"}} == {"Edited.", "Edited as well."}
    after = files_below(out)
    assert {name: after[name] for name in before} == before
    assert verify_shards(out).problems == ()
    assert not build_shards(config(uri)).changed


def test_a_set_added_later_is_built_alone(curated: Any) -> None:
    uri = fill(curated)
    build_shards(config(uri, sets=("generation-32",)))
    summary = build_shards(config(uri))
    assert summary.sets["generation-32"].added_samples == 0
    assert summary.sets["generation-64"].added_samples == 12
    assert verify_shards(summary.out).problems == ()


def test_the_three_steps_can_run_apart(curated: Any, tmp_path: Path) -> None:
    from unix.data.partition import write_partition

    uri = fill(curated)
    apart = config(uri, tmp_path / "apart")
    plan = plan_shards(apart)
    with pytest.raises(ShardError, match=r"partition train-000000 .* not finished"):
        publish_shards(apart, plan)
    for partition in reversed(plan.partitions):
        write_partition(apart.out_folder / ".build", apart.out_folder, partition, plan.specs, apart.picture)
    publish_shards(apart, plan)
    build_shards(config(uri, tmp_path / "together"))
    apart_files = files_below(tmp_path / "apart")
    assert apart_files == {k: v for k, v in files_below(tmp_path / "together").items() if k != ".lock"}


def test_subjects_of_a_store_stay_in_their_split(curated: Any) -> None:
    for number in range(10):
        curated.complete_study(f"s{number}", f"subject{number % 3}", images=2)
    uri = curated.commit()
    build_splits(SplitsConfig(store=uri, test_share=0.4, validate_share=0.2))
    out = Path(build_shards(config(uri)).out)
    seen: dict[str, set[str]] = {}
    for name in SETS:
        for split in Split:
            reader = ShardReader(out / name, split)
            for sample in reader.read_many(range(reader.samples)):
                assert sample.meta.split == split
                seen.setdefault(sample.meta.subject_id, set()).add(split)
    assert {len(splits) for splits in seen.values()} == {1}
    assert len(seen) == 3


def test_labels_that_the_source_does_not_give_stay_unknown(curated: Any) -> None:
    uri = fill(curated, labels=None)
    out = Path(build_shards(config(uri)).out)
    assert ShardReader(out / "generation-32", "train").read(0).labels is None


def test_an_image_id_of_two_sources_is_refused(curated: Any) -> None:
    uri = fill(curated)
    curated.study("s0", source="iu-xray")
    curated.cleaned("s0", source="iu-xray")
    curated.image("s0-0", "s0", source="iu-xray")
    curated.commit()
    build_splits(SplitsConfig(store=uri))
    with pytest.raises(ShardError, match=r"s0-0 .*iu-xray"):
        build_shards(config(uri))


def test_two_builds_of_one_folder_do_not_mix(curated: Any) -> None:
    uri = fill(curated)
    out = config(uri).out_folder
    with shards_module._only_builder(out), pytest.raises(ShardError, match="another build"):  # pyright: ignore[reportPrivateUsage]
        build_shards(config(uri))


def test_a_dead_worker_is_one_clear_error(curated: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = fill(curated)
    monkeypatch.setattr(shards_module, "write_partition", _die)
    with pytest.raises(ShardError, match="died"):
        build_shards(config(uri, workers=2))


def _die(*_: object) -> int:
    os._exit(1)


@pytest.mark.parametrize(
    "name", ["generation", "generation-4", "generation-99999", "drawing-64", "generation-64-latents"]
)
def test_an_unknown_set_is_named(curated: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        build_shards(config(fill(curated), sets=(name,)))


def test_what_is_missing_is_said(curated: Any) -> None:
    uri = curated.commit()
    with pytest.raises(ConfigError, match="unix splits"):
        build_shards(config(uri))
    with pytest.raises(ConfigError, match="local folders"):
        build_shards(config(uri, out=None).model_copy(update={"out": "s3://bucket/shards"}))
    with pytest.raises(ConfigError, match="at least one set"):
        build_shards(config(fill(curated), sets=()))


def test_the_store_can_be_read_without_this_package(curated: Any) -> None:
    out = Path(build_shards(config(fill(curated))).out)
    manifest = json.loads((out / "generation-32" / "manifest.json").read_text())
    index = json.loads((out / "generation-32" / "train-000000.index.json").read_text())
    assert index["samples"] == manifest["shards"][0]["samples"] == len(index["keys"])
