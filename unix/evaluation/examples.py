"""Examples for the page from an evaluation's predictions, picked not by quality but by finding and hash."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl
from PIL import Image

from unix.data.images import Pixels
from unix.data.stream import ShardReader
from unix.evaluation.page_inputs import GalleryRow, ReportPair
from unix.evaluation.results import EvaluationSummary
from unix.records import CHEXPERT_14, Labels


def spread_over_findings(keys: Sequence[str], labels: Sequence[Labels], count: int) -> list[int]:
    """Indices of `count` samples, in turn the first by hash of its key that has each class and was not yet taken."""
    order = sorted(range(len(keys)), key=lambda index: hashlib.blake2b(keys[index].encode(), digest_size=8).digest())
    taken: list[int] = []
    while len(taken) < min(count, len(keys)):
        before = len(taken)
        for name in CHEXPERT_14:
            found = next((index for index in order if index not in taken and labels[index][name] == 1), None)
            if found is not None and len(taken) < count:
                taken.append(found)
        if len(taken) == before:
            rest = [index for index in order if index not in taken]
            taken += rest[: count - len(taken)]
    return taken


def drawn_examples(evaluation: EvaluationSummary, shards: str, count: int) -> tuple[GalleryRow, ...]:
    """Real, reconstructed and generated images of an evaluation of generation, with prompts."""
    path = Path(evaluation.predictions)
    rows = pl.read_parquet(path)
    chosen = spread_over_findings(rows["image_id"].to_list(), rows["prompt_labels"].to_list(), count)
    reader, place = _reader(evaluation, shards)
    return tuple(
        GalleryRow(
            image_id=row["image_id"],
            prompt=row["prompt"],
            real=_png(reader.read(place[row["image_id"]]).image),
            reconstructed=(path.parent / "reconstructed" / f"{row['image_id']}.png").read_bytes(),
            generated=(path.parent / "generated" / f"{row['image_id']}.png").read_bytes(),
            prompt_labels=row["prompt_labels"],
            read_back=row["read_back_labels"],
        )
        for row in rows[chosen].iter_rows(named=True)
    )


def written_examples(evaluation: EvaluationSummary, shards: str, count: int) -> tuple[ReportPair, ...]:
    """Images, true and generated reports of an evaluation of understanding."""
    rows = pl.read_parquet(evaluation.predictions)
    chosen = spread_over_findings(rows["image_id"].to_list(), rows["reference_labels"].to_list(), count)
    reader, place = _reader(evaluation, shards)
    return tuple(
        ReportPair(
            image_id=row["image_id"],
            image=_png(reader.read(place[row["image_id"]]).image),
            true_report=row["reference"],
            generated_report=row["prediction"],
            true_labels=row["reference_labels"],
            generated_labels=row["predicted_labels"],
        )
        for row in rows[chosen].iter_rows(named=True)
    )


def _reader(evaluation: EvaluationSummary, shards: str) -> tuple[ShardReader, dict[str, int]]:
    root = Path(shards)
    folder = root / evaluation.data_set if (root / evaluation.data_set).is_dir() else root
    reader = ShardReader(folder, evaluation.split)
    return reader, {key: index for index, key in enumerate(reader.keys)}


def _png(image: Pixels) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()
