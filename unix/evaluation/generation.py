"""How well the generation branch draws: what the understanding branch reads in its images, what a ruler measures."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image

from unix.data.images import Pixels
from unix.data.labels import label_report
from unix.data.phantom.geometry import Geometry, measure
from unix.data.stream import Sample
from unix.evaluation import clinical
from unix.evaluation.bootstrap import Metric, auc_metric, share_metric
from unix.evaluation.results import (
    EvaluateConfig,
    EvaluationSummary,
    chosen_samples,
    open_set,
    predicted_labels,
    write_predictions,
)
from unix.evaluation.settings import sample_seed
from unix.evaluation.sides import ONE_SIDED, stated_side
from unix.evaluation.workers import PredictorPool
from unix.records import Labels, Task
from unix.store import LABELS_TYPE

REFERENCES = (
    "labels that the rule labeler gives the prompt; images are read back by the same model's understanding branch"
)
PHANTOM = "phantom"


@dataclass(frozen=True)
class Drawn:
    """Everything predicted for N samples, in their order."""

    generated: list[Pixels]
    reconstructed: list[Pixels]
    read_from_generated: list[str]
    read_from_reconstructed: list[str]


def evaluate_generation(config: EvaluateConfig) -> EvaluationSummary:
    """Draw an image for every prompt of the split, read it back and, on phantoms, measure it.

    The images go to `generated/` and `reconstructed/` in the evaluation's folder, the rest to Parquet.
    """
    started = time.monotonic()
    folder = config.folder(Task.GENERATION)
    with PredictorPool(config, config.processes) as pool:
        facts = pool.facts()
        reader = open_set(config, Task.GENERATION, facts.data_set)
        samples = [reader.read(index) for index in chosen_samples(reader.keys, config.limit, config.seed)]
        drawn = _draw(pool, samples, config.seed, reader.manifest.size)
    prompts = [sample.caption for sample in samples]
    patients = [sample.meta.subject_id for sample in samples]
    reference = [label_report(prompt) for prompt in prompts]
    read, ceiling = (
        [predicted_labels(text) for text in texts]
        for texts in (drawn.read_from_generated, drawn.read_from_reconstructed)
    )
    agreement = clinical.agreement(read, reference, patients, config.seed, config.resamples)
    metrics = {f"readback_{name}": metric for name, metric in agreement.metrics.items()}
    read_NK, reference_NK, ceiling_NK = map(clinical.positives, (read, reference, ceiling))
    baselines = {
        "shuffled_readback_micro_f1_14": clinical.shuffled_micro_f1(read_NK, reference_NK, config.seed),
        "reconstruction_readback_micro_f1_14": clinical.micro_f1(ceiling_NK, reference_NK),
        "reconstruction_readback_macro_f1_14": clinical.macro_f1(ceiling_NK, reference_NK),
    }
    if {sample.meta.source for sample in samples} == {PHANTOM}:
        metrics |= measured(drawn.generated, prompts, reference, patients, config)
        for name, images in (("real", [sample.image for sample in samples]), ("reconstruction", drawn.reconstructed)):
            found = measured(images, prompts, reference, patients, config)
            baselines |= {f"{name}_{metric}": result.value for metric, result in found.items()}
    _write_images(folder, samples, drawn)
    path = write_predictions(_rows(config, samples, drawn, read, reference), folder / "predictions.parquet")
    return EvaluationSummary(
        task=Task.GENERATION,
        checkpoint=facts.folder,
        references=REFERENCES,
        data_set=reader.manifest.set,
        release=reader.manifest.release,
        split=config.split,
        resolution=reader.manifest.size,
        seed=config.seed,
        n=len(samples),
        failures=sum(labels is None for labels in read),
        metrics=metrics,
        per_class=agreement.per_class,
        baselines=baselines,
        seconds=time.monotonic() - started,
        predictions=str(path),
    )


def measured(
    images: Sequence[Pixels],
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


def _draw(pool: PredictorPool, samples: Sequence[Sample], seed: int, resolution: int) -> Drawn:
    seeds = [sample_seed(seed, sample.image_id) for sample in samples]
    generated = pool.draw([sample.caption for sample in samples], seeds, resolution)
    reconstructed = pool.reconstruct([sample.image for sample in samples])
    read = pool.describe([*generated, *reconstructed], "read back")
    return Drawn(generated, reconstructed, read[: len(samples)], read[len(samples) :])


def _write_images(folder: Path, samples: Sequence[Sample], drawn: Drawn) -> None:
    for name, images in (("generated", drawn.generated), ("reconstructed", drawn.reconstructed)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for sample, image in zip(samples, images, strict=True):
            Image.fromarray(image).save(folder / name / f"{sample.image_id}.png")


def _rows(
    config: EvaluateConfig,
    samples: Sequence[Sample],
    drawn: Drawn,
    read: Sequence[Labels | None],
    reference: Sequence[Labels],
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image_id": [sample.image_id for sample in samples],
            "study_id": [sample.meta.study_id for sample in samples],
            "subject_id": [sample.meta.subject_id for sample in samples],
            "prompt": [sample.caption for sample in samples],
            "seed": [sample_seed(config.seed, sample.image_id) for sample in samples],
            "read_back": drawn.read_from_generated,
            "read_back_of_reconstruction": drawn.read_from_reconstructed,
            "read_back_labels": read,
            "prompt_labels": reference,
        },
        schema_overrides={"read_back_labels": LABELS_TYPE, "prompt_labels": LABELS_TYPE},
    )
