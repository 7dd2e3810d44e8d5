"""The job `ingest`: what it writes, what a second run does, and that counts balance whatever the folder holds."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from unix.data import ingest as module
from unix.data.ingest import IngestConfig, IngestSummary, ingest
from unix.data.sections import parse_sections
from unix.errors import ConfigError, SourceError
from unix.records import CHEXPERT_14, text_digest
from unix.store import Store

SUBJECT = "10000001"


def run(folder: Any, store: Store, source: str = "mimic-cxr") -> IngestSummary:
    root = folder if isinstance(folder, Path) else folder.write_tables()
    return ingest(IngestConfig(store=store.uri, source=source, root=str(root)))


def rows(store: Store, table: str) -> list[dict[str, Any]]:
    frame = store.read(table).drop("ingested_at", "created_at", strict=False)
    return frame.sort(frame.columns[:5]).to_dicts()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_studies_and_images_are_written_in_full(mimic_folder: Any, store: Store) -> None:
    report = " FINDINGS:  Lungs clear.\n\n IMPRESSION:  Größe normal.\n"
    mimic_folder.study(SUBJECT, "50000001", ["a"], report=report, split="test", labels={"Edema": "0.0"})
    summary = run(mimic_folder, store)
    assert (summary.new, summary.images_kept, summary.rejections) == (1, 1, {})
    (study,) = rows(store, "studies")
    assert json.loads(study.pop("sections")) == parse_sections(report).text
    assert len(study.pop("fingerprint")) == 32
    assert study == {
        "source": "mimic-cxr",
        "subject_id": SUBJECT,
        "study_id": "50000001",
        "report_raw": report,
        "report_sha256": text_digest(report),
        "findings_raw": "Lungs clear.",
        "impression_raw": "Größe normal.",
        "withdrawn": False,
    }
    assert rows(store, "images") == [
        {
            "source": "mimic-cxr",
            "subject_id": SUBJECT,
            "study_id": "50000001",
            "image_id": "a",
            "path": str(mimic_folder.folder(SUBJECT, "50000001") / "a.jpg"),
            "view_position": "PA",
            "rows": 20,
            "columns": 16,
            "labels": dict.fromkeys(CHEXPERT_14) | {"Edema": 0},
            "official_split": "test",
            "withdrawn": False,
        }
    ]


def test_the_size_is_what_the_file_states(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    mimic_folder.metadata[0] = ("a", SUBJECT, "50000001", "PA", "999", "999")
    run(mimic_folder, store)
    assert store.read("images", ["rows", "columns"]).row(0) == (20, 16)


def test_bad_reports_and_images_are_rejected_by_name_and_the_rest_is_kept(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["whole", "cut"])
    mimic_folder.study(SUBJECT, "50000002", ["b"], report="  \n")
    mimic_folder.study(SUBJECT, "50000003", ["c"], report=b"FINDINGS: \xe9")
    mimic_folder.study(SUBJECT, "50000004", ["d"])
    mimic_folder.study(SUBJECT, "50000005", ["e"], report="no section at all")
    mimic_folder.study(SUBJECT, "50000006", ["f"], view="LATERAL")
    cut = mimic_folder.folder(SUBJECT, "50000001") / "cut.jpg"
    cut.write_bytes(cut.read_bytes()[:-20])
    (mimic_folder.folder(SUBJECT, "50000004") / "d.jpg").write_bytes(b"<html>")
    summary = run(mimic_folder, store)
    assert sorted(store.read("studies")["study_id"]) == ["50000001", "50000005", "50000006"]
    assert sorted(store.read("images")["image_id"]) == ["e", "f", "whole"]
    assert summary.rejections == {
        "empty_report": 1,
        "image_of_refused_study": 2,
        "report_not_utf8": 1,
        "study_without_usable_image": 1,
        "truncated_image": 1,
        "unreadable_image": 1,
    }
    rejected = store.read("rejections", ["job", "source", "item", "reason"])
    assert set(rejected.select("item", "reason").iter_rows()) == {
        ("50000002", "empty_report"),
        ("b", "image_of_refused_study"),
        ("50000003", "report_not_utf8"),
        ("c", "image_of_refused_study"),
        ("50000004", "study_without_usable_image"),
        ("cut", "truncated_image"),
        ("d", "unreadable_image"),
    }
    assert set(rejected["job"]) == {"ingest"}


def test_repeated_rejections_are_a_row_each(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    mimic_folder.metadata *= 4
    summary = run(mimic_folder, store)
    assert summary.rejections == {"duplicate_image_id": 3}
    assert sorted(store.read("rejections")["item"]) == ["a", "a#2", "a#3"]


def test_an_unchanged_second_run_reads_and_commits_nothing(
    mimic_folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a", "b"])
    mimic_folder.study(SUBJECT, "50000002", ["c"], report="")
    first = run(mimic_folder, store)
    before = store.versions("studies", "images", "rejections")
    opened: list[str] = []
    original = module.read_study

    def read_study(root: Path, listed: Any, *rest: Any) -> Any:
        opened.append(listed.key.study_id)
        return original(root, listed, *rest)

    monkeypatch.setattr(module, "read_study", read_study)
    second = run(mimic_folder, store)
    assert opened == ["50000002"]  # a refused study has no row to tell that it is unchanged
    assert store.versions("studies", "images", "rejections") == before
    assert (second.new, second.changed, second.unchanged, second.withdrawn) == (0, 0, 1, 0)
    counts = ("studies_in", "studies_kept", "images_in", "images_kept", "rejections")
    assert [getattr(second, name) for name in counts] == [getattr(first, name) for name in counts]


def test_a_study_with_a_bad_image_is_unchanged_too(mimic_folder: Any, store: Store) -> None:
    (mimic_folder.study(SUBJECT, "50000001", ["a", "b"]) / "b.jpg").write_bytes(b"bad")
    run(mimic_folder, store)
    before = store.versions("studies", "images", "rejections")
    assert run(mimic_folder, store).unchanged == 1
    assert store.versions("studies", "images", "rejections") == before


def test_new_changed_and_vanished_studies_are_told_apart(mimic_folder: Any, store: Store) -> None:
    for number in range(1, 5):
        mimic_folder.study(SUBJECT, f"5000000{number}", [f"image{number}"])
    run(mimic_folder, store)
    mimic_folder.study("10000002", "50000009", ["image9"])
    mimic_folder.folder(SUBJECT, "50000002").with_suffix(".txt").write_text("IMPRESSION: Changed since.")
    mimic_folder.folder(SUBJECT, "50000003").with_suffix(".txt").unlink()
    mimic_folder.metadata = [row for row in mimic_folder.metadata if row[0] != "image3"]
    shutil.rmtree(mimic_folder.folder(SUBJECT, "50000003"))
    mimic_folder.folder(SUBJECT, "50000004").with_suffix(".txt").write_text("")
    summary = run(mimic_folder, store)
    assert (summary.new, summary.changed, summary.unchanged, summary.withdrawn) == (1, 1, 1, 2)
    studies = {row["study_id"]: row for row in rows(store, "studies")}
    assert {study for study, row in studies.items() if row["withdrawn"]} == {"50000003", "50000004"}
    assert studies["50000002"]["impression_raw"] == "Changed since."
    images = store.read("images", ["image_id", "withdrawn"])
    assert set(images.filter("withdrawn")["image_id"]) == {"image3", "image4"}


def test_a_withdrawn_study_may_come_back(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    path = mimic_folder.study(SUBJECT, "50000002", ["b"]).with_suffix(".txt")
    run(mimic_folder, store)
    moved = path.rename(path.with_suffix(".bak"))
    assert run(mimic_folder, store).withdrawn == 1
    assert run(mimic_folder, store).withdrawn == 0
    moved.rename(path)
    summary = run(mimic_folder, store)
    assert (summary.new, summary.changed, summary.withdrawn) == (0, 1, 0)
    assert not store.read("studies")["withdrawn"].any()
    assert not store.read("images")["withdrawn"].any()


def test_a_rejection_goes_when_its_cause_does(mimic_folder: Any, store: Store) -> None:
    path = mimic_folder.study(SUBJECT, "50000001", ["a"], report="").with_suffix(".txt")
    run(mimic_folder, store)
    path.write_text("FINDINGS: Clear.")
    assert run(mimic_folder, store).new == 1
    assert store.read("rejections").is_empty()


def test_an_image_that_a_study_lost_is_withdrawn(mimic_folder: Any, store: Store) -> None:
    folder = mimic_folder.study(SUBJECT, "50000001", ["a", "b"])
    run(mimic_folder, store)
    (folder / "b.jpg").unlink()
    summary = run(mimic_folder, store)
    assert (summary.changed, summary.withdrawn, summary.rejections) == (1, 0, {"missing_image_file": 1})
    assert store.read("images").filter("withdrawn")["image_id"].to_list() == ["b"]


def test_other_sources_are_left_alone_and_keep_their_image_ids(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    mimic_folder.study(SUBJECT, "50000002", ["b"])
    run(mimic_folder, store)
    before = rows(store, "studies")
    mimic_folder.study(SUBJECT, "50000003", ["c"])
    summary = run(mimic_folder, store, "phantom")
    assert summary.rejections == {"image_id_of_another_source": 2, "study_without_usable_image": 2}
    assert summary.new == 1
    assert [row for row in rows(store, "studies") if row["source"] == "mimic-cxr"] == before
    images = store.read("images")
    assert images["image_id"].is_unique().all()


def test_a_folder_that_lost_everything_does_not_withdraw_everything(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    run(mimic_folder, store)
    before = rows(store, "studies")
    shutil.rmtree(mimic_folder.root / "files")
    (mimic_folder.root / "files").mkdir()
    with pytest.raises(SourceError, match=r"1 of mimic-cxr.*mounted"):
        run(mimic_folder, store)
    assert rows(store, "studies") == before


def test_a_killed_run_is_continued(mimic_folder: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1, 6):
        mimic_folder.study(SUBJECT, f"5000000{number}", [f"image{number}"])
    monkeypatch.setattr(module, "_STUDIES_PER_COMMIT", 2)
    original, commits = Store.upsert, []

    def upsert(self: Store, table: str, frame: pl.DataFrame) -> None:
        commits.append(table)
        if len(commits) == 4:  # images of the second part are written, their studies are not
            raise KeyboardInterrupt
        original(self, table, frame)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "upsert", upsert)
        with pytest.raises(KeyboardInterrupt):
            run(mimic_folder, store)
    assert commits == ["images", "studies", "images", "studies"]
    summary = run(mimic_folder, store)
    assert (summary.new, summary.unchanged) == (3, 2)
    whole = Store(f"{store.uri}-whole")
    run(mimic_folder, whole)
    assert rows(store, "studies") == rows(whole, "studies")
    assert rows(store, "images") == rows(whole, "images")


def test_a_source_without_studies_leaves_empty_tables(mimic_folder: Any, store: Store) -> None:
    summary = run(mimic_folder, store)
    assert summary.studies_in == summary.images_in == 0
    assert store.versions("studies", "images", "rejections") == {"studies": 0, "images": 0, "rejections": 0}


@pytest.mark.parametrize(
    ("source", "error"), [("mimic", ConfigError), ("mimic-cxr", SourceError), ("iu-xray", SourceError)]
)
def test_wrong_names_and_folders_are_refused(tmp_path: Path, source: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        ingest(IngestConfig(store=str(tmp_path / "store"), source=source, root=str(tmp_path / "none")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_summary_that_does_not_balance_is_no_summary(mimic_folder: Any, store: Store) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    values = run(mimic_folder, store).model_dump()
    for name in ("studies_in", "images_kept", "new"):
        with pytest.raises(ValidationError, match="balance"):
            IngestSummary(**(values | {name: values[name] + 1}))


damage = st.sampled_from(
    ["", "no report", "empty", "latin", "no image", "cut", "html", "no row", "twice", "bad id", "link"]
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(damage, min_size=1, max_size=8))
def test_whatever_the_damage_every_item_is_kept_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, mimic_folder: Any, damages: list[str]
) -> None:
    folder = type(mimic_folder)(tmp_path_factory.mktemp("mimic") / "root")
    reports = {"no report": None, "empty": "", "latin": b"\xe9"}
    studies, images = len(damages), 2 * len(damages)
    for number, kind in enumerate(damages):
        study = f"5000{number:04d}"
        place = folder.study(SUBJECT, study, [f"{number}a", f"{number}b"], report=reports.get(kind, "FINDINGS: Clear."))
        first, last = place / f"{number}a.jpg", len(folder.metadata) - 1
        if kind in ("no image", "link"):
            first.unlink()
        if kind == "link":
            first.symlink_to("/etc/hostname")
        if kind == "cut":
            first.write_bytes(first.read_bytes()[:100])
        if kind == "html":
            first.write_bytes(b"<html>")
        if kind == "no row":
            del folder.metadata[last]
        if kind == "twice":
            folder.metadata.append(folder.metadata[last])
            images += 1
        if kind == "bad id":
            folder.metadata.append(("a b", SUBJECT, study, "PA", "20", "16"))
            images += 1
    store = Store(tmp_path_factory.mktemp("store"))
    summary = run(folder, store)
    assert (summary.studies_in, summary.images_in) == (studies, images)
    assert store.read("studies").height == summary.studies_kept
    assert store.read("images").height == summary.images_kept
    assert store.read("rejections").height == summary.studies_rejected + summary.images_rejected


def test_real_radiographs_are_all_accounted_for(shared_folder: Path, store: Store) -> None:
    summary = run(shared_folder / "real_cxr", store)
    assert (summary.studies_in, summary.images_in) == (194, 240)
    assert store.read("studies").height == summary.studies_kept
    assert store.read("images").height == summary.images_kept
    assert all(Path(path).is_file() for path in store.read("images")["path"])
