"""The rule labeler on hand-written sentences, its aggregation over sentences, and the job over files."""

import re
from pathlib import Path

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from unix.data.label_file import LabelFileConfig, label_file
from unix.data.labels import find_mentions, label_report
from unix.errors import ConfigError
from unix.records import CHEXPERT_14, Labels, no_labels

CODES = dict(zip(re.findall("..", "ATCMCOEDECFXLLLONFPEPOPNPXSD"), CHEXPERT_14, strict=True))
VALUES = {"+": 1, "-": 0, "?": -1}


def sentences() -> list[tuple[str, Labels]]:
    """The data file's sentences with all 14 expected labels."""
    cases: list[tuple[str, Labels]] = []
    for line in (Path(__file__).parent / "label_sentences.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            sentence, codes = line.rsplit("|", 1)
            labels = no_labels()
            for code, sign in re.findall(r"([A-Z]{2})([+?-])", codes):
                labels[CODES[code]] = VALUES[sign]
            cases.append((sentence.strip(), labels))
    return cases


def test_there_are_enough_sentences_of_every_class() -> None:
    cases = sentences()
    assert len(cases) >= 200
    assert all(any(labels[name] == 1 for _, labels in cases) for name in CHEXPERT_14)


@pytest.mark.parametrize(("sentence", "expected"), sentences())
def test_sentence(sentence: str, expected: Labels) -> None:
    assert label_report(sentence) == expected


PATTERNS = yaml.safe_load((Path(__file__).parent / "label_patterns.yaml").read_text(encoding="utf-8"))
NAMED = [
    (name, set(classes.split(", ")))
    for group in ("names", "two_classes")
    for classes, names in PATTERNS[group].items()
    for name in names
]


@pytest.mark.parametrize(("name", "classes"), NAMED)
def test_every_name_of_the_reference_is_read(name: str, classes: set[str]) -> None:
    for sentence, value in ((f"Left {name}.", 1), (f"No {name}.", 0), (f"Possible {name}.", -1)):
        labels = label_report(sentence)
        counted = {key for key, got in labels.items() if got == value and key != "No Finding"}
        if name in ("heart failure", "CHF"):  # makes cardiomegaly uncertain
            counted -= {"Cardiomegaly"}
        assert counted == classes


@pytest.mark.parametrize("name", PATTERNS["others"]["any"])
def test_a_finding_of_no_class_speaks_against_no_finding_unless_denied(name: str) -> None:
    assert label_report(f"Mild {name}.") == no_labels()
    assert label_report(f"No {name}.") == no_labels() | {"No Finding": 1}


@pytest.mark.parametrize(
    ("part", "name"), [(part, name) for name, parts in PATTERNS["parts"].items() for part in parts]
)
def test_a_part_named_without_a_state_counts_and_normal_denies_it(part: str, name: str) -> None:
    for said, value in (
        ("is enlarged", 1),
        ("is shifted to the right", 1),
        ("is normal", 0),
        ("appears unremarkable", 0),
        ("is within normal limits", 0),
        ("is at the upper limits of normal", 0),
        ("is not enlarged", 0),
        ("is unchanged", -1),
        ("is stable", -1),
        ("is borderline", -1),
    ):
        assert label_report(f"The {part} {said}.")[name] == value, said
    assert label_report(f"Normal appearance of the {part}.")[name] == 0
    assert label_report(f"Stable appearance of the {part}.")[name] == -1


@pytest.mark.parametrize(
    ("pattern", "value"), [(pattern, value) for value, patterns in PATTERNS["patterns"].items() for pattern in patterns]
)
def test_every_pattern_of_certainty_is_read(pattern: str, value: int) -> None:
    for phrase, name in (
        ("consolidation", "Consolidation"),
        ("pleural effusion", "Pleural Effusion"),
        ("right basilar pneumonia", "Pneumonia"),
        ("apical pneumothorax", "Pneumothorax"),
    ):
        assert label_report(pattern.format(phrase))[name] == value


def test_affirmed_anywhere_beats_uncertain_beats_denied() -> None:
    assert label_report("No effusion. Possible effusion.")["Pleural Effusion"] == -1
    assert label_report("No effusion. Possible effusion. Small effusion.")["Pleural Effusion"] == 1


def test_line_wraps_do_not_end_a_sentence_but_paragraphs_and_bullets_do() -> None:
    assert label_report("No focal consolidation,\n pleural effusion or\n pneumothorax.")["Pneumothorax"] == 0
    assert label_report("No effusion\n \n Cardiomegaly")["Cardiomegaly"] == 1
    assert label_report(" - No effusion\n - Cardiomegaly")["Cardiomegaly"] == 1


def test_an_empty_text_has_no_finding() -> None:
    assert label_report("") == no_labels() | {"No Finding": 1}


def test_mentions_say_where_they_stand() -> None:
    (mention,) = find_mentions("Small LEFT effusion.")
    assert (mention.phrase, mention.classes, mention.value) == ("effusion", ("Pleural Effusion",), 1)
    assert "small left effusion."[mention.start : mention.end] == "effusion"


@given(st.lists(st.sampled_from([sentence for sentence, _ in sentences()]), min_size=1, max_size=6))
def test_labels_of_a_report_do_not_depend_on_the_order_of_its_sentences(parts: list[str]) -> None:
    assert label_report(" ".join(parts)) == label_report(" ".join(reversed(parts)))


@given(st.text(alphabet="no effusion.,;:?-/()\n1 heart", max_size=200))
def test_any_text_gets_fourteen_labels(text: str) -> None:
    labels = label_report(text)
    assert list(labels) == list(CHEXPERT_14)
    assert set(labels.values()) <= {None, 0, 1, -1}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_file_gets_the_fourteen_columns(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "texts.csv"
    pl.DataFrame({"id": ["a", "b", "c"], "report": ["Small effusion.", None, "No effusion."]}).write_csv(source)
    out = tmp_path / f"labels.{suffix}"
    summary = label_file(LabelFileConfig(file=str(source), text_column="report", out=str(out)))
    assert (summary.rows, summary.empty, summary.positive["Pleural Effusion"]) == (3, 1, 1)
    labelled = pl.read_csv(out) if suffix == "csv" else pl.read_parquet(out)
    assert labelled["Pleural Effusion"].to_list() == [1, None, 0]
    assert labelled["No Finding"].to_list() == [None, None, 1]


def test_a_missing_column_is_refused_by_name(tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text("id,text\n1,x\n")
    with pytest.raises(ConfigError, match="no column report"):
        label_file(LabelFileConfig(file=str(source), text_column="report", out=str(tmp_path / "out.csv")))
