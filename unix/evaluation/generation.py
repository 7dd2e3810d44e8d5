"""How well the generation branch draws: what the understanding branch reads in its images, what a ruler measures."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unix.data.images import Pixels
from unix.data.labels import label_report
from unix.data.phantom.geometry import Geometry, measure
from unix.evaluation import clinical
from unix.evaluation.bootstrap import Metric, auc_metric, share_metric
from unix.evaluation.drawn_scores import FEATURES_FOLDER, TOWER, chosen_encoder, drawn_and_real, training_images
from unix.evaluation.evaluation_page import PAGE_FILE, publish_evaluation
from unix.evaluation.feature_distances import NEIGHBOURS
from unix.evaluation.features import FeatureCache
from unix.evaluation.image_metrics import ImageScores, image_metrics, scores_per_class
from unix.evaluation.predict_split import PredictedSplit, generated_images, predict_split, reconstructed_images
from unix.evaluation.predictions import PREDICTIONS_FILE, label_column, publish_rows
from unix.evaluation.privacy import Memorisation, memorisation
from unix.evaluation.results import EvaluateConfig, EvaluationSummary, predicted_labels
from unix.evaluation.sides import ONE_SIDED, stated_side
from unix.records import Labels, Split, Task

REFERENCES = (
    "labels that the rule labeler gives the prompt; images are read back by the same model's understanding branch"
)
PHANTOM = "phantom"


def evaluate_generation(config: EvaluateConfig) -> EvaluationSummary:
    """Draw an image for every prompt of the split, read it back and, on phantoms, measure it.

    The images go to `generated/` and `reconstructed/` in the evaluation's folder, the rest to Parquet.

    Raises:
        EvaluationError: predictions are missing or unreadable, or the folder holds those of another run.
    """
    started = time.monotonic()
    split = predict_split(config, Task.GENERATION)
    rows = split.rows
    prompts, patients = rows["prompt"].to_list(), rows["subject_id"].to_list()
    reference = [label_report(prompt) for prompt in prompts]
    read, ceiling = (
        [predicted_labels(text) for text in rows[name]] for name in ("read_back", "read_back_of_reconstruction")
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
    images = _ImageResults() if config.encoder is None else _compared(config, split, reference_NK)
    path = split.folder / PREDICTIONS_FILE
    rows = rows.with_columns(label_column("read_back_labels", read), label_column("prompt_labels", reference))
    publish_rows(rows, path)
    summary = EvaluationSummary(
        task=Task.GENERATION,
        checkpoint=str(split.checkpoint),
        references=REFERENCES,
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
        memorisation=images.memorisation,
        seconds=time.monotonic() - started,
        predictions=str(path),
        report_html=str(split.folder / PAGE_FILE),
    )
    return publish_evaluation(summary, rows, split)


@dataclass(frozen=True, slots=True)
class _ImageResults:
    encoder: str | None = None
    metrics: dict[str, Metric] = field(default_factory=dict[str, Metric])
    per_class: dict[str, ImageScores] = field(default_factory=dict[str, ImageScores])
    memorisation: Memorisation | None = None


def _compared(config: EvaluateConfig, split: PredictedSplit, reference_NK: NDArray[np.bool_]) -> _ImageResults:
    """Drawings against real images, over all and per class, and against training images."""
    encoder = chosen_encoder(config.encoder or TOWER, split.checkpoint)
    cache = FeatureCache(split.folder / FEATURES_FOLDER)
    drawn, real = drawn_and_real(split, encoder, cache)
    few = len(drawn) <= NEIGHBOURS or len(set(drawn.patients)) < 2
    nearest = None
    if config.training_images and split.reader.split is not Split.TRAIN:
        training = training_images(split, encoder, cache, config.training_images, config.seed)
        nearest = memorisation(drawn, training.images, real, config.seed, config.resamples)
    return _ImageResults(
        encoder.name,
        {} if few else image_metrics(real, drawn, config.seed, config.resamples),
        scores_per_class(real, drawn, reference_NK, reference_NK, config.seed),
        nearest,
    )


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
