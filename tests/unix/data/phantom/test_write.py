"""What is written is MIMIC-CXR-JPG's layout, the same bytes every time, and a larger phantom extends a smaller one."""

import gzip
import io
import zipfile
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from unix.data.phantom import PhantomConfig, write_phantom
from unix.data.phantom.truth import TRUTH_SCHEMA, read_truth
from unix.errors import ConfigError, SourceError
from unix.records import CHEXPERT_14

METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"


def config(out: Path, studies: int, **settings: object) -> PhantomConfig:
    return PhantomConfig.build({"studies": studies, "out": str(out), "image_size": 64, "workers": 1, **settings})


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def table(root: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(io.BytesIO(gzip.decompress((root / name).read_bytes())), infer_schema=False)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    write_phantom(config(root, 60))
    return root


def test_the_same_bytes_twice_and_over_processes(phantom: Path, tmp_path: Path) -> None:
    write_phantom(config(tmp_path, 60, workers=2))
    assert contents(tmp_path) == contents(phantom)


def test_a_rerun_touches_no_report_and_no_image(phantom: Path) -> None:
    files = [path for path in phantom.rglob("files/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    write_phantom(config(phantom, 60))
    assert before == {path: path.stat().st_mtime_ns for path in files}


def test_a_larger_phantom_extends_a_smaller_one(phantom: Path, tmp_path: Path) -> None:
    write_phantom(config(tmp_path, 20))
    small, large = contents(tmp_path), contents(phantom)
    files = [name for name in small if name.startswith("files/")]
    assert len(files) >= 40
    assert all(large[name] == small[name] for name in files)
    assert read_truth(phantom).head(20).equals(read_truth(tmp_path))


def test_later_studies_alone(phantom: Path, tmp_path: Path) -> None:
    summary = write_phantom(config(tmp_path, 15, first_study=45))
    assert summary.studies == 15
    assert read_truth(tmp_path).equals(read_truth(phantom).tail(15))


def test_the_csvs_describe_the_files(phantom: Path) -> None:
    metadata = table(phantom, METADATA)
    assert metadata.columns[:4] == ["dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription"]
    for row in metadata.iter_rows(named=True):
        subject, study = row["subject_id"], row["study_id"]
        folder = phantom / "files" / f"p{subject[:2]}" / f"p{subject}"
        with Image.open(folder / f"s{study}" / f"{row['dicom_id']}.jpg") as image:
            assert (image.mode, image.height, image.width) == ("L", int(row["Rows"]), int(row["Columns"]))
        assert (folder / f"s{study}.txt").read_text(encoding="utf-8").startswith(" ")
    images = len(list(phantom.rglob("*.jpg")))
    reports = len(list(phantom.rglob("*.txt")))
    assert metadata.height == table(phantom, "mimic-cxr-2.0.0-split.csv.gz").height == images
    assert table(phantom, "cxr-record-list.csv.gz").height == images
    assert table(phantom, "cxr-study-list.csv.gz").height == reports == 60


def test_the_chexpert_file_holds_the_true_labels(phantom: Path) -> None:
    rows = table(phantom, "mimic-cxr-2.0.0-chexpert.csv.gz")
    assert rows.columns == ["subject_id", "study_id", *CHEXPERT_14]
    truth = {study: labels for study, labels in read_truth(phantom).select("study_id", "labels").iter_rows()}
    for row in rows.iter_rows(named=True):
        marks = {name: None if row[name] is None else int(float(row[name])) for name in CHEXPERT_14}
        assert marks == truth[row["study_id"]]


def test_the_truth_is_complete(phantom: Path) -> None:
    truth = read_truth(phantom)
    assert truth.schema == TRUTH_SCHEMA
    assert truth.height == truth["study_id"].n_unique() == 60
    attributes = truth["attributes"].str.json_decode(
        pl.List(pl.Struct({"finding": pl.String, "side": pl.String, "zone": pl.String, "severity": pl.String}))
    )
    found = [[item["finding"] for item in row] for row in attributes.to_list()]
    for names, labels in zip(found, truth["labels"].to_list(), strict=True):
        assert all(labels[name] in (1, -1) for name in names)


def test_reports_without_images(phantom: Path, tmp_path: Path) -> None:
    summary = write_phantom(config(tmp_path, 60, images=False))
    assert summary.image_bytes == 0
    assert not list(tmp_path.rglob("*.jpg"))
    assert table(tmp_path, METADATA).equals(table(phantom, METADATA))


def test_reports_in_one_zip(phantom: Path, tmp_path: Path) -> None:
    write_phantom(config(tmp_path, 60, images=False, reports_zip=True))
    assert not list(tmp_path.rglob("*.txt"))
    with zipfile.ZipFile(tmp_path / "mimic-cxr-reports.zip") as archive:
        zipped = {name: archive.read(name) for name in archive.namelist()}
    assert zipped == {name: data for name, data in contents(phantom).items() if name.endswith(".txt")}


def test_a_pool_of_images_serves_many_studies(tmp_path: Path) -> None:
    summary = write_phantom(config(tmp_path, 30, image_pool=5))
    images = [path.read_bytes() for path in tmp_path.rglob("*.jpg")]
    assert len(images) == summary.images >= 30
    assert len(set(images)) <= 10
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["files", "truth"]


def test_shares_above_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.7.*0\.6"):
        write_phantom(config(tmp_path, 1, validate_share=0.7, test_share=0.6))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="taken"):
        write_phantom(config(tmp_path / "taken", 1))


def test_a_folder_without_truth_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="truth"):
        read_truth(tmp_path)
