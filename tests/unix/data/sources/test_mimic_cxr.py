"""MIMIC's layout: what is listed, what is refused and for what, and that nothing is lost in between."""

import gzip
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from unix.data.sources.base import ImageFault, Listing, StudyFault
from unix.data.sources.mimic_cxr import MimicCxr
from unix.errors import SourceError
from unix.records import CHEXPERT_14

SUBJECT, STUDY = "10000001", "50000001"


def list_studies(folder: Any, complete: bool = False) -> Listing:
    return MimicCxr().list_studies(folder.write_tables().resolve(), complete)


def faults(listing: Listing) -> Counter[str]:
    return Counter(refusal.fault.value for refusal in listing.refusals)


def test_a_study_is_listed_with_its_report_images_labels_and_split(mimic_folder: Any) -> None:
    mimic_folder.study(
        SUBJECT, STUDY, ["a-1", "b_2"], view="ap", split="test", labels={"Edema": "-1.0", "Fracture": "1.0"}
    )
    listing = list_studies(mimic_folder)
    assert listing.refusals == []
    (study,) = listing.records(listing.studies)
    assert (study.key.source, study.key.subject_id, study.key.study_id) == ("mimic-cxr", SUBJECT, STUDY)
    assert study.report.path == f"files/p10/p{SUBJECT}/s{STUDY}.txt"
    assert [image.image_id for image in study.images] == ["a-1", "b_2"]
    image = study.images[0]
    assert image.path == f"files/p10/p{SUBJECT}/s{STUDY}/a-1.jpg"
    assert (image.view_position, image.rows, image.columns, image.official_split) == ("AP", 20, 16, "test")
    assert image.labels == dict.fromkeys(CHEXPERT_14) | {"Edema": -1, "Fracture": 1}


def test_a_study_without_label_row_has_no_labels(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a"])
    mimic_folder.labels.clear()
    listing = list_studies(mimic_folder)
    assert next(listing.records(listing.studies)).images[0].labels is None


def test_an_image_without_split_row_has_no_split(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a"])
    mimic_folder.split.clear()
    listing = list_studies(mimic_folder)
    assert next(listing.records(listing.studies)).images[0].official_split is None


def test_every_misfit_is_refused_under_its_own_name(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["whole"])
    mimic_folder.study(SUBJECT, "50000002", ["reportless"], report=None)
    mimic_folder.study(SUBJECT, "50000003", [])
    (mimic_folder.study(SUBJECT, "50000004", ["gone"]) / "gone.jpg").unlink()
    (mimic_folder.folder(SUBJECT, "50000001") / "unnamed.jpg").write_bytes(b"x")
    (mimic_folder.folder(SUBJECT, "50000001") / "stray.txt").write_text("x")
    mimic_folder.metadata += [
        ("whole", SUBJECT, "50000001", "PA", "20", "16"),
        ("a.b", SUBJECT, "50000001", "PA", "20", "16"),
        ("../../x", SUBJECT, "50000001", "PA", "20", "16"),
        ("c", "p1", "50000009", "PA", "20", "16"),
        ("d", "../../etc", "50000009", "PA", "20", "16"),
        ("", SUBJECT, "50000001", "PA", "20", "16"),
    ]
    listing = list_studies(mimic_folder)
    assert listing.studies["study_id"].to_list() == ["50000001"]
    assert listing.images["image_id"].to_list() == ["whole"]
    assert {(refusal.item, refusal.fault) for refusal in listing.refusals} == {
        ("50000002", StudyFault.WITHOUT_REPORT),
        ("reportless", ImageFault.OF_REFUSED_STUDY),
        ("50000003", StudyFault.WITHOUT_IMAGES),
        ("50000004", StudyFault.WITHOUT_USABLE_IMAGE),
        ("gone", ImageFault.MISSING),
        (f"files/p10/p{SUBJECT}/s50000001/unnamed.jpg", ImageFault.WITHOUT_METADATA),
        (f"files/p10/p{SUBJECT}/s50000001/stray.txt", StudyFault.MALFORMED_ID),
        ("whole", ImageFault.DUPLICATE),
        ("a.b", ImageFault.MALFORMED_ID),
        ("", ImageFault.MALFORMED_ID),
        ("../../x", ImageFault.OUTSIDE_ROOT),
        ("c", ImageFault.OF_REFUSED_STUDY),
        ("p1/50000009", StudyFault.MALFORMED_ID),
        ("d", ImageFault.OUTSIDE_ROOT),
        ("../../etc/50000009", StudyFault.MALFORMED_ID),
    }
    assert len(listing.refusals) == 15


def test_a_size_that_is_no_size_is_refused(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a", "b", "c"])
    mimic_folder.metadata = [
        (*row[:4], size, "16") for row, size in zip(mimic_folder.metadata, ["0", "x", "20"], strict=True)
    ]
    listing = list_studies(mimic_folder)
    assert listing.images["image_id"].to_list() == ["c"]
    assert faults(listing) == {"malformed_image_size": 2}


def test_of_two_whole_studies_with_one_id_the_first_is_taken(mimic_folder: Any) -> None:
    mimic_folder.study("10000001", STUDY, ["a"], report=None)
    mimic_folder.study("10000002", STUDY, ["b"])
    mimic_folder.study("10000003", STUDY, ["c"])
    mimic_folder.labels = mimic_folder.labels[:1]
    mimic_folder.labels[0] = ("10000002", *mimic_folder.labels[0][1:])
    listing = list_studies(mimic_folder)
    assert listing.studies["subject_id"].to_list() == ["10000002"]
    assert faults(listing) == {"study_without_report": 1, "duplicate_study_id": 1, "image_of_refused_study": 2}


def test_an_image_id_in_two_studies_is_taken_once(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"])
    mimic_folder.study(SUBJECT, "50000002", ["a", "b"])
    mimic_folder.split = mimic_folder.split[1:]
    listing = list_studies(mimic_folder)
    assert sorted(listing.images["image_id"]) == ["a", "b"]
    assert faults(listing) == {"duplicate_image_id": 1}


def test_links_that_leave_the_root_are_not_followed(mimic_folder: Any, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret.txt").write_text("private")
    folder = mimic_folder.study(SUBJECT, "50000001", ["a", "b"])
    (folder / "b.jpg").unlink()
    (folder / "b.jpg").symlink_to(elsewhere / "secret.txt")
    (folder / "stray.jpg").symlink_to(elsewhere / "secret.txt")
    linked = mimic_folder.study(SUBJECT, "50000002", ["c"], report=None)
    linked.with_suffix(".txt").symlink_to(elsewhere / "secret.txt")
    moved = mimic_folder.study("10000009", "50000003", ["d"])
    shutil.move(moved.parent, elsewhere / "subject")
    moved.parent.symlink_to(elsewhere / "subject")
    listing = list_studies(mimic_folder)
    assert listing.images["image_id"].to_list() == ["a"]
    assert {(refusal.item, refusal.fault) for refusal in listing.refusals} == {
        ("b", ImageFault.OUTSIDE_ROOT),
        (f"files/p10/p{SUBJECT}/s50000001/stray.jpg", ImageFault.OUTSIDE_ROOT),
        ("50000002", StudyFault.OUTSIDE_ROOT),
        ("c", ImageFault.OF_REFUSED_STUDY),
        ("50000003", StudyFault.OUTSIDE_ROOT),
        ("d", ImageFault.OUTSIDE_ROOT),
    }


def test_links_within_the_root_are_followed(mimic_folder: Any) -> None:
    folder = mimic_folder.study(SUBJECT, STUDY, ["a"])
    target = mimic_folder.root / "pool.bin"
    shutil.move(folder / "a.jpg", target)
    (folder / "a.jpg").symlink_to(target)
    assert list_studies(mimic_folder).images.height == 1


def test_an_archive_of_reports_is_listed_in_place(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, "50000001", ["a"], report=None)
    mimic_folder.study(SUBJECT, "50000002", ["b"])
    with zipfile.ZipFile(mimic_folder.root / "mimic-cxr-reports.zip", "w") as archive:
        archive.writestr(f"mimic-cxr-reports/files/p10/p{SUBJECT}/s50000001.txt", "FINDINGS: a")
        archive.writestr(f"files/p10/p{SUBJECT}/s50000002.txt", "FINDINGS: not this one")
        archive.writestr(f"../files/p10/p{SUBJECT}/s50000001.txt", "x")
        archive.writestr("/etc/passwd.txt", "x")
        archive.writestr("files\\evil.txt", "x")
        archive.writestr(f"files/p11/p{SUBJECT}/s50000001.txt", "x")
        archive.writestr(f"files/p10/p{SUBJECT}/s50000001.txt", "x")
        archive.writestr("files/index.html", "x")
    listing = list_studies(mimic_folder)
    first, second = listing.records(listing.studies)
    assert first.report.archive == "mimic-cxr-reports.zip"
    assert second.report.archive is None
    assert faults(listing) == {"report_outside_root": 3, "malformed_study_id": 1, "duplicate_study_id": 1}


def test_dicom_files_stand_in_for_missing_jpegs(mimic_folder: Any) -> None:
    folder = mimic_folder.study(SUBJECT, STUDY, ["a", "b"])
    shutil.move(folder / "a.jpg", folder / "a.dcm")
    (folder / "b.dcm").write_bytes(b"also")
    listing = list_studies(mimic_folder)
    assert [Path(path).name for path in listing.images["path"]] == ["a.dcm", "b.jpg"]
    assert listing.refusals == []


def test_the_fingerprint_changes_with_anything_behind_the_study(mimic_folder: Any) -> None:
    folder = mimic_folder.study(SUBJECT, STUDY, ["a"])
    seen = [list_studies(mimic_folder).studies["fingerprint"][0]]

    def assert_new() -> None:
        fingerprint = list_studies(mimic_folder).studies["fingerprint"][0]
        assert fingerprint not in seen
        seen.append(fingerprint)

    assert list_studies(mimic_folder).studies["fingerprint"][0] == seen[0]
    folder.with_suffix(".txt").write_text("IMPRESSION: longer than it was before")
    assert_new()
    (folder / "a.jpg").write_bytes(b"other")
    assert_new()
    mimic_folder.metadata[0] = ("a", SUBJECT, STUDY, "AP", "20", "16")
    assert_new()
    mimic_folder.split[0] = ("a", STUDY, SUBJECT, "validate")
    assert_new()
    mimic_folder.labels[0] = (SUBJECT, STUDY, *["1.0"] * 14)
    assert_new()
    shutil.move(mimic_folder.root, moved := mimic_folder.root.with_name("moved"))
    assert MimicCxr().list_studies(moved).studies["fingerprint"][0] not in seen


@pytest.mark.parametrize("name", ["metadata", "split", "chexpert"])
def test_damaged_tables_stop_the_job_by_name(mimic_folder: Any, name: str) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a"])
    root = mimic_folder.write_tables()
    path = root / f"mimic-cxr-2.0.0-{name}.csv.gz"
    whole = path.read_bytes()
    text = gzip.decompress(whole)
    header, _, rows = text.partition(b"\n")
    damaged = {
        "truncated gzip": whole[:-12],
        "missing columns": gzip.compress(header.replace(b"study_id", b"study") + b"\n" + rows),
        "unknown columns": gzip.compress(header + b",Comment\n" + rows.replace(b"\n", b",x\n")),
        "is empty": gzip.compress(b""),
        "cannot read": b"no gzip at all",
        "not a readable CSV": gzip.compress(header + b"\n\xff\xfe" + rows),
    }
    for message, content in damaged.items():
        path.write_bytes(content)
        with pytest.raises(SourceError, match=message) as caught:
            MimicCxr().list_studies(root)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(SourceError, match="missing table"):
        MimicCxr().list_studies(root)
    path.with_suffix("").write_bytes(text)
    assert MimicCxr().list_studies(root).studies.height == 1


def test_values_that_a_table_may_not_hold_stop_the_job(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a"], labels={"Edema": "2.0"})
    with pytest.raises(SourceError, match=r"'Edema' holds '2\.0' in 1 rows"):
        list_studies(mimic_folder)
    mimic_folder.labels.clear()
    mimic_folder.split[0] = ("a", STUDY, SUBJECT, "dev")
    with pytest.raises(SourceError, match="'dev'"):
        list_studies(mimic_folder)


def test_rows_that_contradict_each_other_stop_the_job(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a"])
    mimic_folder.labels *= 2
    assert list_studies(mimic_folder).images.height == 1
    mimic_folder.labels.append((SUBJECT, STUDY, *["1.0"] * 14))
    with pytest.raises(SourceError, match=f"study_id '{STUDY}' stands in rows that contradict"):
        list_studies(mimic_folder)


def test_missing_and_linked_folders_stop_the_job(mimic_folder: Any, tmp_path: Path) -> None:
    root = mimic_folder.write_tables()
    shutil.move(root / "files", tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="missing folder"):
        MimicCxr().list_studies(root)
    (root / "files").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="leaves"):
        MimicCxr().list_studies(root)


def test_a_folder_that_claims_to_be_complete_must_count_right(mimic_folder: Any) -> None:
    mimic_folder.study(SUBJECT, STUDY, ["a"])
    with pytest.raises(SourceError, match="has 1 rows, a complete copy has 377110"):
        list_studies(mimic_folder, complete=True)
