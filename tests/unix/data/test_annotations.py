"""LLaVA-Rad's annotation tables."""

from pathlib import Path

import pytest

from unix.data.annotations import parse_labels, read_annotations
from unix.errors import SourceError
from unix.records import no_labels

HEADER = "id,path,generate_method,annotated_prompt,chexpert_labels\n"


def write(folder: Path, train: str, test: str = "") -> None:
    (folder / "LLAVARAD_ANNOTATIONS_TRAIN.csv").write_text(HEADER + train)
    (folder / "LLAVARAD_ANNOTATIONS_TEST.csv").write_text(HEADER + test)


def test_images_are_named_by_the_end_of_their_path(tmp_path: Path) -> None:
    write(
        tmp_path,
        "0,p10/p1/s2/ab-cd.jpg,rule,\"Edema,\nmild.\",\"{'Edema': 1.0, 'Fracture': None}\"\n",
        "1,plain,gpt4,Clear.,{}\n2,,gpt4,Clear.,oops\n",
    )
    table = read_annotations(tmp_path)
    assert table.select("image_id", "split", "annotated_prompt").rows() == [
        ("ab-cd", "train", "Edema,\nmild."),
        ("plain", "test", "Clear."),
        ("", "test", "Clear."),
    ]
    assert table["labels"].to_list() == [{**no_labels(), "Edema": 1}, no_labels(), None]


@pytest.mark.parametrize(
    "text", [None, "", "nan", "[1]", "{'Edema': 2}", "{'Aliens': 1}", "{'Edema': 'yes'}", "__import__('os')", "{[]: 1}"]
)
def test_what_is_no_dict_of_labels_is_refused(text: str | None) -> None:
    assert parse_labels(text) is None


def test_uncertain_and_negative_labels_survive() -> None:
    assert parse_labels("{'Edema': -1.0, 'Fracture': 0, 'Pneumonia': nan}") == {
        **no_labels(),
        "Edema": -1,
        "Fracture": 0,
    }


def test_a_missing_file_or_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"LLAVARAD_ANNOTATIONS_TRAIN\.csv is missing"):
        read_annotations(tmp_path)
    write(tmp_path, "")
    (tmp_path / "LLAVARAD_ANNOTATIONS_TEST.csv").write_text("id,path\n0,a.jpg\n")
    with pytest.raises(SourceError, match=r"TEST\.csv.*annotated_prompt"):
        read_annotations(tmp_path)
