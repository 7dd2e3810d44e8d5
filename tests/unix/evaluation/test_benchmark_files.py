import csv
from pathlib import Path

import polars as pl
import pytest

from unix.errors import ConfigError, SourceError
from unix.evaluation.benchmark_files import (
    DrawnFile,
    ScoredReport,
    read_annotations,
    read_drawn,
    read_reports,
    write_benchmark_scores,
    write_class_scores,
    write_drawn,
    write_reports,
)
from unix.evaluation.protocols import BenchmarkScores
from unix.records import CHEXPERT_14

LABELS = str(dict.fromkeys(CHEXPERT_14) | {"Edema": 1.0, "Fracture": 0.0, "Pneumonia": -1.0})


def write(path: Path, header: list[str], *rows: list[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize("prompt", ["prompt", "annotated_prompt"])
@pytest.mark.parametrize("image", ["img_savename", "synthetic_filename"])
def test_either_name_of_a_column_is_read(tmp_path: Path, prompt: str, image: str) -> None:
    path = write(tmp_path / "p.csv", ["other", prompt, image], ["1", "edema, mild", "a.png"], ["2", "clear", "b.png"])
    assert read_drawn(path) == [DrawnFile("edema, mild", "a.png"), DrawnFile("clear", "b.png")]


def test_what_is_written_is_found_by_every_script_and_read_back(tmp_path: Path) -> None:
    rows = [DrawnFile('a "large"\neffusion', "SyntheticImg_1.png"), DrawnFile("clear", "SyntheticImg_2.png")]
    write_drawn(tmp_path / "p.csv", rows)
    assert read_drawn(tmp_path / "p.csv") == rows
    columns = {"prompt", "img_savename", "annotated_prompt", "synthetic_filename"}
    assert set(pl.read_csv(tmp_path / "p.csv").columns) == columns


def test_rows_without_prompt_or_with_an_image_twice_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ["prompt", "img_savename"], ["a", "1.png"], ["b", "1.png"], ["", "2.png"])
    with pytest.raises(SourceError, match="1 rows lack a prompt or an image, 1 name an image again"):
        read_drawn(path)
    with pytest.raises(SourceError, match="no column annotated_prompt or prompt; it has text"):
        read_drawn(write(tmp_path / "q.csv", ["text"], ["a"]))


def test_annotations_are_read_as_literals(tmp_path: Path) -> None:
    header = ["id", "path", "annotated_prompt", "patientID", "view", "chexpert_labels"]
    path = write(tmp_path / "a.csv", header, ["i1", "files/a.jpg", "edema", "p1", "AP", LABELS])
    (found,) = read_annotations(path)
    assert (found.image_id, found.patient, found.prompt) == ("i1", "p1", "edema")
    assert (found.labels["Edema"], found.labels["Fracture"], found.labels["Pneumonia"]) == (1, 0, -1)
    assert found.labels["Atelectasis"] is None


@pytest.mark.parametrize("cell", ["", "{}", "__import__('os').mkdir('x')", "[" * 1500, LABELS.replace("1.0", "7")])
def test_a_cell_that_is_no_dictionary_of_labels_is_refused(tmp_path: Path, cell: str) -> None:
    header = ["id", "path", "annotated_prompt", "patientID", "chexpert_labels"]
    path = write(tmp_path / "a.csv", header, ["1", "a", "t", "p", LABELS], ["2", "b", "t", "p", cell])
    with pytest.raises(SourceError, match="chexpert_labels of 1 of 2 rows"):
        read_annotations(path)


def test_reports_round_trip_with_the_failed_one_empty(tmp_path: Path) -> None:
    rows = [ScoredReport("a.jpg", "", "FINDINGS: edema"), ScoredReport("b.jpg", "nan", "FINDINGS: clear")]
    write_reports(tmp_path / "r.csv", rows)
    assert read_reports(tmp_path / "r.csv") == rows
    with pytest.raises(ConfigError, match="no column Ground Truth"):
        read_reports(write(tmp_path / "s.csv", ["Image Path", "Report Impression"], ["a", "b"]))


SCORES = BenchmarkScores(
    frechet_distance=54.02199,
    kernel_distance=0.0244,
    precision=0.7,
    recall=0.4,
    density=0.5,
    coverage=0.5,
    n_real=4000,
    n_drawn=4352,
    shards=4,
)


def test_scores_have_their_columns_and_n_beside_them(tmp_path: Path) -> None:
    for _ in range(2):
        write_benchmark_scores(tmp_path / "m.csv", SCORES, "ours", alignment=0.61234)
    (row,) = pl.read_csv(tmp_path / "m.csv").to_dicts()
    assert row["FID (RadDino)"] == 54.02199
    assert (row["FID"], row["Inception Score"], row["Alignment_score"]) == (None, None, 0.61234)
    assert (row["Extra Info"], row["N real"], row["N synthetic"], row["Shards"]) == ("ours", 4000, 4352, 4)
    write_benchmark_scores(tmp_path / "m.csv", SCORES, "ours")
    assert pl.read_csv(tmp_path / "m.csv")["Alignment_score"].to_list() == [None]


def test_a_class_has_a_row_that_names_it(tmp_path: Path) -> None:
    write_class_scores(tmp_path / "c.csv", {"Edema": SCORES, "Fracture": SCORES}, "ours")
    rows = pl.read_csv(tmp_path / "c.csv")
    assert rows["Pathology"].to_list() == ["Edema", "Fracture"]
    assert rows["FID (RadDino)"].to_list() == [54.02199] * 2
