"""The page of one evaluation: every number with N, interval and floor, the classes, the best and the worst cases."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from unix.evaluation import clinical
from unix.evaluation.bootstrap import Metric
from unix.evaluation.charts import Interval, interval_chart
from unix.evaluation.diff import Run, word_diff
from unix.evaluation.metric_names import described, grouped
from unix.evaluation.page import label_chips, publish_page, render_template
from unix.evaluation.predict_split import GENERATED, RECONSTRUCTED, PredictedSplit
from unix.evaluation.report_scores import labels_of
from unix.evaluation.results import EvaluationSummary
from unix.evaluation.text_metrics import rouge_l
from unix.manifest import write_atomically
from unix.records import CHEXPERT_14, Labels, Task, no_labels

PAGE_FILE, EVALUATION_FILE = "report.html", "evaluation.json"
_CASES = 5
"""Best cases shown, and as many of the worst."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of results."""

    name: str
    title: str
    metric: Metric
    baselines: tuple[tuple[str, float], ...]
    """Names and values of what the metric has to be seen against."""


@dataclass(frozen=True, slots=True)
class Case:
    """One sample: its pictures as PNG by caption, what was true and what was said, word by word."""

    image_id: str
    score: float
    pictures: dict[str, bytes]
    runs: tuple[Run, ...]
    said: str
    chips: tuple[Any, ...]


def publish_evaluation(summary: EvaluationSummary, rows: pl.DataFrame, split: PredictedSplit) -> EvaluationSummary:
    """Write the page at `summary.report_html`, then `evaluation.json` beside it; `rows` as in `predictions.parquet`."""
    publish_page(render(summary, rows, split), summary.report_html)
    content = (summary.model_dump_json(indent=1) + "\n").encode()
    write_atomically(Path(summary.report_html).with_name(EVALUATION_FILE), content)
    return summary


def render(summary: EvaluationSummary, rows: pl.DataFrame, split: PredictedSplit) -> str:
    """The page as HTML; the same inputs give the same text."""
    reading = summary.task is Task.UNDERSTANDING
    predicted = labels_of(rows, "predicted_labels" if reading else "read_back_labels")
    reference = labels_of(rows, "reference_labels" if reading else "prompt_labels")
    scores = _scores(rows, predicted, reference, reading)
    order = np.argsort(-scores, kind="stable")
    worst, best = order[::-1][:_CASES], order[:_CASES]
    return render_template(
        "evaluation.html.j2",
        title="Reports written for images" if reading else "Images drawn for prompts",
        lead=_lead(summary, rows),
        synthetic=set(rows["source"]) == {"phantom"},
        command=f"unix evaluate {summary.task}",
        labeler=f"the labeler “{summary.labeler}”",
        summary=summary,
        groups=grouped([_row(summary, name) for name in summary.metrics]),
        bars=interval_chart(
            "F1 per class",
            [
                Interval(
                    name,
                    score.f1,
                    score.f1 if score.low is None else score.low,
                    score.f1 if score.high is None else score.high,
                    note=f"({score.support})",
                )
                for name, score in summary.per_class.items()
            ],
        ),
        classes=summary.per_class,
        confusion=_confusion(predicted, reference),
        names=CHEXPERT_14,
        distances=summary.images_per_class,
        benchmark=summary.benchmark,
        encoder=summary.encoder,
        cases={
            "Worst": [_case(rows, split, int(place), scores, reading) for place in worst],
            "Best": [_case(rows, split, int(place), scores, reading) for place in best],
        },
        facts=_facts(summary, rows),
        reading=reading,
    )


def _lead(summary: EvaluationSummary, rows: pl.DataFrame) -> str:
    what = "images" if summary.task is Task.UNDERSTANDING else "prompts"
    return (
        f"{summary.n:,} {what} of {rows['subject_id'].n_unique():,} patients, the {summary.split} split of "
        f"{summary.data_set}; {summary.failures:,} without a text, which count as wrong. Protocol: {summary.protocol}."
    )


def _row(summary: EvaluationSummary, name: str) -> Row:
    """A metric with its baselines: those whose name ends in its own."""
    baselines = tuple(
        (key.removesuffix(f"_{name}").replace("_", " "), value)
        for key, value in summary.baselines.items()
        if key.endswith(f"_{name}")
    )
    return Row(name, described(name), summary.metrics[name], baselines)


def _scores(
    rows: pl.DataFrame, predicted: Sequence[Labels | None], reference: Sequence[Labels | None], reading: bool
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What ranks the cases: F1 of the report's labels, then the overlap of the words."""
    said, true = clinical.positives(predicted), clinical.positives(reference)
    hits, wrong = (said & true).sum(axis=1), (said ^ true).sum(axis=1)
    f1 = np.where(hits + wrong == 0, 1.0, 2 * hits / np.maximum(2 * hits + wrong, 1))
    columns = ("prediction", "reference") if reading else ("read_back", "prompt")
    overlap = [rouge_l(one, other) for one, other in rows.select(columns).iter_rows()]
    return f1 + np.array(overlap) / 10


def _confusion(predicted: Sequence[Labels | None], reference: Sequence[Labels | None]) -> list[list[int]]:
    """[14][14]: in how many reports the row's class was true and missed while the column's was said and untrue; on
    the diagonal, how often the class was found."""
    said, true = clinical.positives(predicted).astype(int), clinical.positives(reference).astype(int)
    counts = (true * (1 - said)).T @ (said * (1 - true))
    np.fill_diagonal(counts, (said * true).sum(axis=0))
    return counts.tolist()


def _case(
    rows: pl.DataFrame, split: PredictedSplit, place: int, scores: np.ndarray[Any, np.dtype[np.float64]], reading: bool
) -> Case:
    row: Mapping[str, Any] = rows.row(place, named=True)
    key = str(row["image_id"])
    pictures = {"real": _png(split.reader.read(split.indices[place]).image)}
    if not reading:
        for caption, folder in (("reconstructed", RECONSTRUCTED), ("drawn", GENERATED)):
            pictures[caption] = (Path(split.folder) / folder / f"{key}.png").read_bytes()
    true, said = (row["reference"], row["prediction"]) if reading else (row["prompt"], row["read_back"])
    labels = ("reference_labels", "predicted_labels") if reading else ("prompt_labels", "read_back_labels")
    wanted, given = (row[name] or no_labels() for name in labels)
    return Case(
        key, float(scores[place]), pictures, tuple(word_diff(true, said)), said, tuple(label_chips(wanted, given))
    )


def _facts(summary: EvaluationSummary, rows: pl.DataFrame) -> list[tuple[str, str]]:
    facts = [
        ("checkpoint", summary.checkpoint),
        ("references", summary.references),
        ("protocol", f"{summary.protocol}: {summary.protocol_told}" if summary.protocol_told else summary.protocol),
        ("labeler", summary.labeler),
        ("shard set", f"{summary.data_set}, release {summary.release}, {summary.split} split"),
        ("resolution", f"{summary.resolution} pixels"),
        ("seed", str(summary.seed)),
        ("latency", f"median {rows['latency_ms'].median():.0f} ms a sample, in one worker"),
        ("predictions", summary.predictions),
    ]
    if summary.encoder:
        facts.append(("images compared by", summary.encoder))
    if (nearest := summary.memorisation) is not None:
        ratio, close = nearest.ratio, nearest.close_share
        facts += [
            (
                "nearest training image",
                f"median distance of drawings over that of unseen real images: {ratio.value:.2f} "
                f"[{ratio.low:.2f}, {ratio.high:.2f}], among {nearest.n_training:,} training images",
            ),
            ("closer than usual", f"{close.value:.3f} [{close.low:.3f}, {close.high:.3f}]; 0.05 of real images are"),
        ]
    return facts


def _png(image: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "PNG")
    return content.getvalue()
