"""Predictions on disk: one row per sample, in parts that each appear whole, so that a killed run goes on.

A folder holds `run.json` (what the predictions depend on) and `parts/*.parquet` (the predictions as they were made).
From these every evaluation makes `predictions.parquet`: all samples of the split in its order, with references and
labels.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from pydantic import ValidationError

from unix.config import Config, describe
from unix.errors import EvaluationError
from unix.manifest import write_atomically
from unix.records import Labels, Split, Task
from unix.store import LABELS_TYPE

PREDICTIONS_FILE = "predictions.parquet"
RUN_FILE = "run.json"
PARTS_FOLDER = "parts"

SAMPLE = {"image_id": pl.String, "study_id": pl.String, "subject_id": pl.String, "source": pl.String}
MADE = {"prompt": pl.String, "seed": pl.Int64, "latency_ms": pl.Float64}
SCHEMAS: dict[Task, pl.Schema] = {
    Task.UNDERSTANDING: pl.Schema(
        {
            **SAMPLE,
            **MADE,
            "prediction": pl.String,
            "reference": pl.String,
            "reference_findings": pl.String,
            "reference_impression": pl.String,
            "report_sha256": pl.String,
        }
    ),
    Task.GENERATION: pl.Schema(
        {
            **SAMPLE,
            **MADE,
            "image_sha256": pl.String,
            "read_back": pl.String,
            "read_back_of_reconstruction": pl.String,
            "report_sha256": pl.String,
        }
    ),
}
"""Columns of a part. `latency_ms` is a batch's wall-clock time divided among its samples; drawings are files."""


class PredictionRun(Config):
    """What predictions depend on. Batch size and processes are not among it, since they change no prediction."""

    task: Task
    weights: str
    """Digest of the checkpoint's files."""
    data_set: str
    release: str
    split: Split
    limit: int | None
    seed: int
    settings: dict[str, float | int | str]
    """How texts are decoded, and for drawings how images are sampled."""


class PredictionFolder:
    """The predictions of one run below `path`.

    Raises:
        EvaluationError: the folder holds the predictions of another run; the message says what differs.
    """

    def __init__(self, path: str | Path, run: PredictionRun) -> None:
        self.path, self.run = Path(path), run
        held = self._held()
        if held is None:
            write_atomically(self.path / RUN_FILE, (run.model_dump_json(indent=1) + "\n").encode())
        elif held != run:
            raise EvaluationError(
                f"{path} holds other predictions: {_difference(held, run)}; give another --out, or remove that folder"
            )

    def done(self) -> set[str]:
        """Image ids of the samples that need no prediction any more."""
        return {key for file in self._parts() for key in read_rows(file, ["image_id"])["image_id"]}

    def write_part(self, name: str, rows: pl.DataFrame) -> None:
        """Add a part; it appears whole or not at all."""
        folder = self.path / PARTS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f".{name}.partial"
        rows.select(SCHEMAS[self.run.task].names()).cast(SCHEMAS[self.run.task]).write_parquet(aside)
        aside.replace(folder / f"{name}.parquet")

    def read(self, keys: Sequence[str]) -> pl.DataFrame:
        """The predictions of exactly the samples `keys`, in that order.

        Raises:
            EvaluationError: a sample has no prediction, or several, or one that is null; or a file is unreadable.
        """
        schema = SCHEMAS[self.run.task]
        parts = [read_rows(file, schema.names()) for file in self._parts()]
        return checked(pl.concat([schema.to_frame(), *parts]), keys, str(self.path / PARTS_FOLDER))

    def _parts(self) -> list[Path]:
        return sorted((self.path / PARTS_FOLDER).glob("[!.]*.parquet"))

    def _held(self) -> PredictionRun | None:
        file = self.path / RUN_FILE
        if not file.is_file():
            return None
        try:
            return PredictionRun.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise EvaluationError(f"{file} says not whose predictions these are: {describe(error)}") from error


def checked(rows: pl.DataFrame, keys: Sequence[str], origin: str) -> pl.DataFrame:
    """`rows` in the order of `keys`, one each.

    Raises:
        EvaluationError: a key has no row, or several; a row has no key; or what was predicted is null.
    """
    found = rows["image_id"].to_list()
    missing, unknown = set(keys) - set(found), set(found) - set(keys)
    twice = len(found) - len(set(found))
    if missing or unknown or twice:
        example = min(missing or unknown or {key for key in found if found.count(key) > 1})
        raise EvaluationError(
            f"{origin}: {len(missing)} of {len(keys)} samples have no prediction, {len(unknown)} predictions have no "
            f"sample, {twice} are there twice (such as {example}): nothing is scored; predict into another --out"
        )
    for name in ("prediction", "read_back", "image_sha256"):
        if name in rows.columns and rows[name].null_count():
            key = rows.filter(pl.col(name).is_null())["image_id"][0]
            raise EvaluationError(f"{origin}: the {name} of {key} is null, which is no text, not even an empty one")
    place = pl.DataFrame({"image_id": list(keys)}, schema={"image_id": pl.String})
    return place.join(rows, on="image_id", how="left", maintain_order="left")


def publish_rows(rows: pl.DataFrame, path: Path) -> None:
    """Write rows to Parquet at `path`, published by rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    rows.write_parquet(aside)
    aside.replace(path)


def label_column(name: str, labels: Sequence[Labels | None]) -> pl.Series:
    """Labels as a column of structs; None, where nothing was written, is null."""
    return pl.Series(name, labels, dtype=LABELS_TYPE)


def digest_of_files(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 over the content of those of the files that exist, in the order given."""
    total = hashlib.sha256()
    for name in names:
        path = folder / name
        if path.is_file():
            with path.open("rb") as file:
                total.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _difference(held: PredictionRun, run: PredictionRun) -> str:
    old, new = _flat(held), _flat(run)
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name)!s:.16} there, {new.get(name)!s:.16} asked" for name in names)


def _flat(run: PredictionRun) -> dict[str, object]:
    values = run.model_dump(mode="json")
    return {**values.pop("settings"), **values}


def read_rows(file: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """The rows of a Parquet file.

    Raises:
        EvaluationError: it is missing or unreadable.
    """
    try:
        return pl.read_parquet(file, columns=columns)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise EvaluationError(
            f"{file} is unreadable ({type(error).__name__}): remove it to predict it again"
        ) from error
