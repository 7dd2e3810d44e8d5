"""CSV files of CheXGenBench and of the paper's scorer, in and out: so that their scripts read ours and ours theirs.

Cells are read as text and an empty cell as an empty text, never as NaN. Their scripts disagree about column names, so
both names are accepted, and written.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from unix.data.text_table import read_table, write_table
from unix.errors import SourceError
from unix.evaluation.protocols import BenchmarkScores
from unix.records import CHEXPERT_14, Labels, no_labels

PROMPT_COLUMNS = ("annotated_prompt", "prompt")
IMAGE_COLUMNS = ("synthetic_filename", "img_savename")
_MAX_LABELS_CELL = 2000
_LABEL_VALUES = {None: None, 1: 1, 0: 0, -1: -1}


@dataclass(frozen=True, slots=True)
class DrawnFile:
    """A drawn image and what it was drawn for."""

    prompt: str
    image: str
    """File name."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """A real image of the benchmark's test set."""

    image_id: str
    path: str
    prompt: str
    patient: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class ScoredReport:
    """A written report beside its reference, of one image."""

    image: str
    prediction: str
    reference: str


def read_drawn(path: Path) -> list[DrawnFile]:
    """`prompt_INFO.csv` or `generations_with_metadata.csv`.

    Raises:
        SourceError: a column is missing, a cell is empty, or an image is named twice.
    """
    table = _read(path)
    columns = (_either(table, path, names) for names in (PROMPT_COLUMNS, IMAGE_COLUMNS))
    rows = [DrawnFile(*row) for row in zip(*columns, strict=True)]
    empty = sum(not (row.prompt.strip() and row.image.strip()) for row in rows)
    repeated = len(rows) - len({row.image for row in rows})
    if empty or repeated:
        raise SourceError(f"{path}: {empty} rows lack a prompt or an image, {repeated} name an image again; mend it")
    return rows


def write_drawn(path: Path, rows: Sequence[DrawnFile]) -> None:
    """Prompts and images under both names of each column."""
    prompts, images = [row.prompt for row in rows], [row.image for row in rows]
    columns = dict.fromkeys(PROMPT_COLUMNS, prompts) | dict.fromkeys(IMAGE_COLUMNS, images)
    write_table(pl.DataFrame(columns), str(path))


def read_annotations(path: Path) -> list[AnnotatedImage]:
    """`LLAVARAD_ANNOTATIONS_TEST.csv`; labels are a Python dictionary in a cell, read as a literal, never run.

    Raises:
        ConfigError: the file cannot be read or lacks a column.
        SourceError: a cell is no dictionary of labels; says how many rows.
    """
    names = ("id", "path", "annotated_prompt", "patientID", "chexpert_labels")
    table = _read(path, names).select(names)
    rows: list[AnnotatedImage] = []
    faults = 0
    for image_id, image, prompt, patient, cell in table.iter_rows():
        labels = _labels(cell)
        if labels is None:
            faults += 1
        else:
            rows.append(AnnotatedImage(image_id, image, prompt, patient, labels))
    if faults:
        raise SourceError(
            f"{path}: chexpert_labels of {faults} of {table.height} rows is no dictionary of CheXpert labels"
        )
    return rows


def read_reports(path: Path) -> list[ScoredReport]:
    """`understanding_results.csv`. A report that failed is an empty cell and comes back as an empty text."""
    names = ("Image Path", "Report Impression", "Ground Truth")
    return [ScoredReport(*row) for row in _read(path, names).select(names).iter_rows()]


def write_reports(path: Path, rows: Sequence[ScoredReport]) -> None:
    """As `read_reports` reads them; it holds report text: keep it where the data is kept."""
    table = pl.DataFrame(
        {
            "Image Path": [row.image for row in rows],
            "Report Impression": [row.prediction for row in rows],
            "Ground Truth": [row.reference for row in rows],
        }
    )
    write_table(table, str(path))


def write_benchmark_scores(path: Path, scores: BenchmarkScores, model: str, alignment: float | None = None) -> None:
    """A file of one row in the columns of `image_generation_metrics.csv`, unrounded, with N and shards beside them.

    What needs Inception's weights (FID, KID, Inception Score) is an empty cell. The file is written anew, not appended
    to: a row of an earlier run beside this one would tell neither apart.
    """
    write_table(pl.DataFrame([_scores_row(scores, model, alignment)], infer_schema_length=None), str(path))


def write_class_scores(path: Path, scores: Mapping[str, BenchmarkScores], model: str) -> None:
    """A row per class in the columns of `conditional_image_generation_metrics.csv`, as `write_benchmark_scores`."""
    rows = [{**_scores_row(one, model, None), "Pathology": name} for name, one in scores.items()]
    write_table(pl.DataFrame(rows, infer_schema_length=None), str(path))


def _scores_row(scores: BenchmarkScores, model: str, alignment: float | None) -> dict[str, str | float | None]:
    return {
        "FID": None,
        "FID (RadDino)": scores.frechet_distance,
        "Inception Score": None,
        "KID": None,
        "KID (RadDino)": scores.kernel_distance,
        "Precision": scores.precision,
        "Recall": scores.recall,
        "Density": scores.density,
        "Coverage": scores.coverage,
        "Alignment_score": alignment,
        "Extra Info": model,
        "Caption Type": PROMPT_COLUMNS[0],
        "N real": scores.n_real,
        "N synthetic": scores.n_drawn,
        "Shards": scores.shards,
    }


def _read(path: Path, columns: Sequence[str] = ()) -> pl.DataFrame:
    return read_table(str(path), columns).with_columns(pl.all().fill_null(""))


def _either(table: pl.DataFrame, path: Path, names: Sequence[str]) -> list[str]:
    for name in names:
        if name in table.columns:
            return table[name].to_list()
    raise SourceError(f"{path} has no column {' or '.join(names)}; it has {', '.join(table.columns)}")


def _labels(cell: str) -> Labels | None:
    if len(cell) > _MAX_LABELS_CELL:
        return None
    try:
        values = ast.literal_eval(cell)
        if set(values) != set(CHEXPERT_14):
            return None
        return no_labels() | {str(name): _LABEL_VALUES[value] for name, value in values.items()}
    except (ValueError, SyntaxError, TypeError, AttributeError, KeyError, MemoryError, RecursionError):
        return None
