"""How well the generation branch draws: what the understanding branch reads in its images, what a ruler measures."""

import time
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from unix.data.images import Pixels
from unix.data.phantom.geometry import Geometry, measure
from unix.evaluation import clinical
from unix.evaluation.alignment import METRIC as ALIGNMENT
from unix.evaluation.alignment import open_alignment, similarities
from unix.evaluation.bootstrap import Draws, Metric, Patients, auc_metric, metrics_of, share_metric
from unix.evaluation.clinical import agreement_draws
from unix.evaluation.drawn_against_real import (
    ImageResults,
    chosen_protocol,
    compared_images,
    write_benchmark_files,
    write_drawn_file,
)
from unix.evaluation.evaluation_page import PAGE_FILE, publish_evaluation
from unix.evaluation.labelers import label_reports, open_labeler
from unix.evaluation.predict_split import GENERATED, generated_images, predict_split, reconstructed_images
from unix.evaluation.predictions import PREDICTIONS_FILE, label_column, publish_rows
from unix.evaluation.protocols import CHEXGENBENCH
from unix.evaluation.report_scores import labels_of, reference_labels
from unix.evaluation.results import EvaluateConfig, EvaluationSummary
from unix.evaluation.sides import ONE_SIDED, stated_side
from unix.records import Labels, Task, no_labels

PHANTOM = "phantom"


class EvaluateGenerationConfig(EvaluateConfig):
    """Measure the images that a checkpoint draws."""

    average_shards: int = Field(default=1, ge=1)
    """In the benchmark's own table, both sides are cut into so many runs whose scores are averaged, as its
    memory-saving script has them; only under its protocol."""
    alignment: str | None = None
    """Image-text model, `biovil-t:FOLDER`; None: how well images fit their texts is told by what is read back alone."""


def evaluate_generation(config: EvaluateGenerationConfig) -> EvaluationSummary:
    """Draw an image for every prompt of the split, read it back and, on phantoms, measure it.

    The images go to `generated/` and `reconstructed/` in the evaluation's folder, the rest to Parquet; under the
    benchmark's protocol its CSV files come beside them.

    Raises:
        ConfigError: there is no such protocol or labeler, settings exclude each other, or an optional model is missing.
        EvaluationError: predictions are missing or unreadable, or the folder holds those of another run.
    """
    started = time.monotonic()
    protocol, labeler = (
        chosen_protocol(config.protocol, config.encoder, config.average_shards),
        open_labeler(config.labeler),
    )
    aligned_by = open_alignment(config.alignment) if config.alignment else None
    split = predict_split(config, Task.GENERATION)
    rows = split.rows
    prompts, patients = rows["prompt"].to_list(), rows["subject_id"].to_list()
    # a blank prompt asks for no class
    reference = [labels or no_labels() for labels in label_reports(labeler, prompts).labels]
    read, ceiling = (
        label_reports(labeler, rows[name].to_list()).labels for name in ("read_back", "read_back_of_reconstruction")
    )
    agreement = clinical.agreement(read, reference, patients, config.seed, config.resamples)
    metrics = {f"readback_{name}": metric for name, metric in agreement.metrics.items()}
    read_NK, reference_NK, ceiling_NK = map(clinical.positives, (read, reference, ceiling))
    baselines = {
        "shuffled_readback_micro_f1_14": clinical.shuffled_micro_f1(read_NK, reference_NK, config.seed),
        "reconstruction_readback_micro_f1_14": clinical.micro_f1(ceiling_NK, reference_NK),
        "reconstruction_readback_macro_f1_14": clinical.macro_f1(ceiling_NK, reference_NK),
    }
    if set(rows["source"]) == {PHANTOM}:
        for kind, images in (
            ("", generated_images(split)),
            ("real_", (split.reader.read(index).image for index in split.indices)),
            ("reconstruction_", reconstructed_images(split)),
        ):
            found = measured(images, prompts, reference, patients, config)
            if kind:
                baselines |= {f"{kind}{name}": metric.value for name, metric in found.items()}
            else:
                metrics |= found
    if aligned_by is not None:
        drawings = [split.folder / GENERATED / f"{key}.png" for key in rows["image_id"]]
        rows = rows.with_columns(pl.Series(ALIGNMENT, similarities(aligned_by, drawings, prompts)))
    metrics |= metrics_of(alignment_draws(rows, Patients(patients, config.seed, config.resamples)))
    images = ImageResults()
    if config.encoder is not None:
        images = compared_images(config, protocol, split, reference, config.average_shards)
    if protocol is CHEXGENBENCH:
        write_drawn_file(split)
        aligned = metrics[ALIGNMENT].value if ALIGNMENT in metrics else None
        write_benchmark_files(split.folder, images, str(split.checkpoint), aligned)
    path = split.folder / PREDICTIONS_FILE
    rows = rows.with_columns(label_column("read_back_labels", read), label_column("prompt_labels", reference))
    publish_rows(rows, path)
    summary = EvaluationSummary(
        task=Task.GENERATION,
        checkpoint=str(split.checkpoint),
        protocol=protocol.name,
        protocol_told=protocol.told,
        references=f"labels that the labeler “{labeler.name}” gives the prompt; images are read back by the same "
        "model's understanding branch",
        labeler=labeler.name,
        data_set=split.reader.manifest.set,
        release=split.reader.manifest.release,
        split=config.split,
        resolution=split.reader.manifest.size,
        seed=config.seed,
        n=rows.height,
        failures=sum(labels is None for labels in read),
        metrics=metrics | images.metrics,
        per_class=agreement.per_class,
        baselines=baselines,
        encoder=images.encoder,
        images_per_class=images.per_class,
        benchmark=images.benchmark,
        memorisation=images.memorisation,
        seconds=time.monotonic() - started,
        predictions=str(path),
        report_html=str(split.folder / PAGE_FILE),
    )
    return publish_evaluation(summary, rows, split)


def readback_draws(rows: pl.DataFrame, seed: int, resamples: int) -> dict[str, Draws]:
    """What is read back from N drawings, and how well an outside model thinks them to fit, resampled over patients."""
    resampled = Patients(rows["subject_id"].to_list(), seed, resamples)
    found = agreement_draws(labels_of(rows, "read_back_labels"), reference_labels(rows, "prompt_labels"), resampled)
    return {f"readback_{name}": draws for name, draws in found.items()} | alignment_draws(rows, resampled)


def alignment_draws(rows: pl.DataFrame, resampled: Patients) -> dict[str, Draws]:
    """The mean of the column of similarities, where there is one."""
    return {ALIGNMENT: resampled.mean(rows[ALIGNMENT].to_numpy())} if ALIGNMENT in rows.columns else {}


def measured(
    images: Iterable[Pixels],
    prompts: Sequence[str],
    reference: Sequence[Labels],
    patients: Sequence[str],
    config: EvaluateConfig,
) -> dict[str, Metric]:
    """What a ruler finds on phantom images: AUC between prompts with and without a finding, and the drawn side.

    `side_accuracy` asks, of prompts that put an effusion or pneumothorax on one side, whether that side measures
    higher. A metric that no prompt bears on is left out.
    """
    geometry = [measure(image) for image in images]
    found: dict[str, Metric | None] = {}
    for name, finding, values in (
        ("cardiomegaly_auc", "Cardiomegaly", [one.heart_width_ratio for one in geometry]),
        ("effusion_auc", "Pleural Effusion", [one.base_brightness for one in geometry]),
        ("pneumothorax_auc", "Pneumothorax", [one.rim_darkness for one in geometry]),
    ):
        present = np.array([labels[finding] == 1 for labels in reference])
        found[name] = auc_metric(np.array(values), present, patients, config.seed, config.resamples)
    hits, owners = _sides(geometry, prompts, patients)
    found["side_accuracy"] = share_metric(hits, owners, config.seed, config.resamples)
    return {name: metric for name, metric in found.items() if metric is not None}


def _sides(
    geometry: Sequence[Geometry], prompts: Sequence[str], patients: Sequence[str]
) -> tuple[NDArray[np.bool_], list[str]]:
    hits: list[bool] = []
    owners: list[str] = []
    for finding in ONE_SIDED:
        for one, prompt, patient in zip(geometry, prompts, patients, strict=True):
            side = stated_side(prompt, finding)
            if side is not None:
                hits.append(_leftness(one, finding) > 0 if side == "left" else _leftness(one, finding) < 0)
                owners.append(patient)
    return np.array(hits, dtype=bool), owners


def _leftness(geometry: Geometry, finding: str) -> float:
    """How much more the patient's left side shows the finding than the right."""
    if finding == "Pneumothorax":
        return geometry.rim_darkness_left - geometry.rim_darkness_right
    return geometry.base_brightness_left - geometry.base_brightness_right
