"""LLaVA-Rad's annotation tables, which CheXGenBench's generation split is made of: image, labels, prompt, split.

`LLAVARAD_ANNOTATIONS_TRAIN.csv` and `..._TEST.csv` name each image by a `path` that ends in `<image_id>.jpg` and hold
the CheXpert classes as the text of a Python dict.
"""

import ast
import re
from pathlib import Path
from typing import cast

import polars as pl

from unix.errors import SourceError
from unix.records import CHEXPERT_14, Labels, Split, no_labels
from unix.store import LABELS_TYPE

_FILES = {Split.TRAIN: "LLAVARAD_ANNOTATIONS_TRAIN.csv", Split.TEST: "LLAVARAD_ANNOTATIONS_TEST.csv"}
_NOT_A_NUMBER = re.compile(r"\bnan\b")
_COLUMNS = ("path", "annotated_prompt", "chexpert_labels")


def read_annotations(folder: str | Path) -> pl.DataFrame:
    """Both tables as one: image_id, split, annotated_prompt, labels (CheXpert-14, null where malformed); in file order.

    Raises:
        SourceError: a file or column is missing, or a file is not CSV.
    """
    tables: list[pl.DataFrame] = []
    for split, name in _FILES.items():
        path = Path(folder) / name
        if not path.is_file():
            raise SourceError(f"{path} is missing: LLaVA-Rad's annotations are the two files {list(_FILES.values())}")
        try:
            table = pl.read_csv(path, columns=list(_COLUMNS), schema_overrides=dict.fromkeys(_COLUMNS, pl.String))
        except pl.exceptions.PolarsError as error:
            raise SourceError(f"cannot read {path}: {str(error).splitlines()[0]:.200}") from error
        tables.append(
            table.select(
                image_id=pl.col("path").fill_null("").str.extract(r"([^/]*?)(?:\.[A-Za-z]+)?$"),
                split=pl.lit(split.value),
                annotated_prompt="annotated_prompt",
                labels=pl.Series([parse_labels(text) for text in table["chexpert_labels"]], dtype=LABELS_TYPE),
            )
        )
    return pl.concat(tables)


def parse_labels(text: str | None) -> Labels | None:
    """A dict literal such as `{'Edema': 1.0, 'Fracture': None}` as labels; None where it is not one."""
    try:
        value = ast.literal_eval(_NOT_A_NUMBER.sub("None", text or ""))  # pandas writes a missing label as nan
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    labels = no_labels()
    for name, label in cast(dict[object, object], value).items():
        if name not in CHEXPERT_14 or label not in (None, 1, 0, -1):
            return None
        labels[str(name)] = None if label is None else int(cast(float, label))
    return labels
