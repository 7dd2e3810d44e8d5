"""An invented page, a model that learned nothing, and shards with a handful of studies."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unix.data.images import encode_jpeg
from unix.data.shard_writer import ShardWriter
from unix.evaluation import page_inputs as inputs
from unix.evaluation.bootstrap import Metric
from unix.evaluation.charts import Series
from unix.evaluation.clinical import ClassScore
from unix.manifest import Manifest, Parents, ShardEntry, publish_manifest
from unix.records import CHEXPERT_14, Labels, RemovedSpan, Split, Task, join_report, no_labels

RAW = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___-year-old with cough.

 COMPARISON:  Radiograph from ___.

 FINDINGS:  The cardiac silhouette is mildly enlarged.  There is a small left
 pleural effusion.  Dr. ___ was told at 9:15 a.m. by telephone.  No pneumothorax.

 IMPRESSION:  Small left effusion, unchanged since the prior study.
"""
CLEANED = (
    "FINDINGS: The cardiac silhouette is mildly enlarged. There is a small left pleural effusion. "
    "No pneumothorax. IMPRESSION: Small left effusion again."
)
REMOVED = (
    RemovedSpan("FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)", "technique"),
    RemovedSpan("INDICATION:  ___-year-old with cough.", "indication"),
    RemovedSpan("COMPARISON:  Radiograph from ___.", "comparison"),
    RemovedSpan("Dr. ___ was told at 9:15 a.m. by telephone.", "notification"),
    RemovedSpan(", unchanged since the prior study", "comparison"),
)


def labels(*present: str) -> Labels:
    return {**no_labels(), **dict.fromkeys(present, 1)}


@pytest.fixture(scope="session")
def invented_page() -> inputs.PageInputs:
    """A full page without a trained model behind it."""
    generator = np.random.default_rng(0)
    gallery = tuple(_gallery_row(index, generator) for index in range(6))
    return inputs.PageInputs(
        title="One model that reads and draws chest radiographs",
        summary="4,000 phantom studies were cleaned, split and sharded; a tiny model was trained on them in four "
        "stages and then asked to write reports for images and to draw images for reports it had not seen.",
        synthetic=True,
        metrics=_metrics(),
        class_tables=(_class_table("Reports, per class", generator), _class_table("Read back, per class", generator)),
        funnel=(
            inputs.FunnelStep("ingest", "studies", 4012, 4000, {"empty report": 7, "truncated image": 5}),
            inputs.FunnelStep("clean", "reports", 4000, 3961, {"rejected: finding_flipped": 12, "flagged": 27}),
            inputs.FunnelStep("splits", "understanding images", 5120, 4811, {"lateral view": 270, "no clean text": 39}),
            inputs.FunnelStep("shards", "understanding-64", 4811, 4811, {}, "train 4,211 · validate 300 · test 300"),
        ),
        cleaning=(
            inputs.CleaningExample("50000001", RAW, CLEANED, REMOVED, "accepted"),
            inputs.CleaningExample("50000002", RAW, CLEANED, REMOVED[:3], "flagged", ("prior_reference",)),
        ),
        curves=tuple(
            inputs.StageCurves(stage, (_series("loss", generator), _series("repa", generator)))
            for stage in ("stage1", "stage2", "stage3")
        ),
        gallery=gallery,
        reports=tuple(
            inputs.ReportPair(row.image_id, row.real, CLEANED, said, row.prompt_labels, row.read_back)
            for row, said in zip(gallery[:3], (CLEANED, "FINDINGS: The lungs are clear.", ""), strict=True)
        ),
        facts=(inputs.Fact("Seconds in all", "812"), inputs.Fact("Seed", "0"), inputs.Fact("Parameters", "2,113,040")),
        provenance=(inputs.Fact("shards understanding-64", "5f2c" * 16), inputs.Fact("code", "48e9411")),
    )


@pytest.fixture(scope="session")
def hostile_page(invented_page: inputs.PageInputs) -> inputs.PageInputs:
    """The invented page with markup wherever a text may stand."""
    page, markup = invented_page, "<script>alert(1)</script>"
    return replace(
        page,
        cleaning=(
            inputs.CleaningExample(markup, RAW + markup, markup, (RemovedSpan("x", markup),), markup, (markup,)),
        ),
        gallery=(replace(page.gallery[0], prompt=markup, image_id=f'"{markup}'),),
        reports=(replace(page.reports[0], true_report=markup, generated_report=markup),),
        funnel=(inputs.FunnelStep(markup, markup, 1, 0, {markup: 1}, markup),),
        facts=(inputs.Fact(markup, markup),),
    )


def _metrics() -> tuple[inputs.MetricRow, ...]:
    def metric(value: float, n: int = 300) -> Metric:
        return Metric(value=value, low=value - 0.04, high=value + 0.04, n=n)

    return (
        inputs.MetricRow(
            "Reports written for images",
            "micro-F1, 14 classes",
            metric(0.62),
            (inputs.Baseline("best constant set", 0.30), inputs.Baseline("shuffled", 0.17)),
            (inputs.Requirement("≥ 0.43", True), inputs.Requirement("≥ best constant + 0.10", True)),
        ),
        inputs.MetricRow("Reports written for images", "macro-F1, 14 classes", metric(0.40)),
        inputs.MetricRow(
            "Images drawn for prompts",
            "read-back micro-F1",
            metric(0.51),
            (inputs.Baseline("shuffled", 0.13), inputs.Baseline("reconstruction", 0.6, ceiling=True)),
            (inputs.Requirement("≥ 0.40", True),),
        ),
        inputs.MetricRow(
            "Images drawn for prompts",
            "side of one-sided findings",
            metric(0.52, 71),
            (inputs.Baseline("chance", 0.5),),
            (inputs.Requirement("≥ 0.60", False),),
            "measured on the pixels",
        ),
    )


def _class_table(title: str, generator: np.random.Generator) -> inputs.ClassTable:
    def score() -> ClassScore:
        tp, fp, fn = (int(count) for count in generator.integers(0, 60, 3))
        return ClassScore(tp=tp, fp=fp, fn=fn, support=tp + fn, f1=2 * tp / max(2 * tp + fp + fn, 1))

    return inputs.ClassTable(title, {name: score() for name in CHEXPERT_14})


def _series(name: str, generator: np.random.Generator) -> Series:
    steps = np.arange(1, 401)
    return Series(name, steps.tolist(), (4 / (1 + steps / 30) + generator.normal(0.5, 0.1, 400)).tolist())


def _gallery_row(index: int, generator: np.random.Generator) -> inputs.GalleryRow:
    side = 64
    yy, xx = np.mgrid[:side, :side] / side
    lungs = np.exp(-(((xx - 0.3) / 0.13) ** 2 + ((yy - 0.45) / 0.3) ** 2)) + np.exp(
        -(((xx - 0.7) / 0.13) ** 2 + ((yy - 0.45) / 0.3) ** 2)
    )
    pixels = np.clip(200 - 150 * lungs + generator.normal(0, 6, (side, side)), 0, 255).astype(np.uint8)
    real = Image.fromarray(pixels)
    return inputs.GalleryRow(
        image_id=f"phantom-{index}",
        prompt="Small left pleural effusion. Mild cardiomegaly.",
        real=_png(real),
        reconstructed=_png(real.filter(ImageFilter.GaussianBlur(1))),
        generated=_png(real.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        prompt_labels=labels("Pleural Effusion", "Cardiomegaly"),
        read_back=labels("Pleural Effusion", "Edema") if index % 2 else labels("Pleural Effusion", "Cardiomegaly"),
    )


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


IMPRESSIONS = ("Small left pleural effusion.", "Moderate cardiomegaly.", "No acute process.", "Right pneumothorax.")


@pytest.fixture(scope="session")
def shard_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sets `understanding-32` and `generation-32`: 12 training and 8 test images of noise with invented reports."""
    root = tmp_path_factory.mktemp("shards")
    for task in Task:
        _set(root / f"{task}-32", task, IMPRESSIONS, train=12, test=8)
    return root


PROMPTS = (*(f"Left pleural effusion of {size} cm." for size in range(2, 9)), "Possible edema.", *IMPRESSIONS)
"""Of drawings: twelve, of which eight name an effusion and one is not certain."""


@pytest.fixture(scope="session")
def prompted_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set `generation-32` with 20 test images of `PROMPTS`, the first eight of them twice."""
    folder = tmp_path_factory.mktemp("prompted") / "generation-32"
    _set(folder, Task.GENERATION, PROMPTS, train=12, test=20)
    return folder


def _set(folder: Path, task: Task, impressions: Sequence[str], train: int, test: int) -> None:
    entries = tuple(
        _shard(folder, task, split, count, impressions) for split, count in ((Split.TRAIN, train), (Split.TEST, test))
    )
    manifest = Manifest(
        set=folder.name,
        task=task,
        size=32,
        members=("jpg", "json"),
        parents=Parents(code_revision="none", configuration_digest="none"),
        parent_release=None,
        added_shards=tuple(entry.file for entry in entries),
        superseded_samples=0,
        considered=train + test,
        excluded={},
        shards=entries,
    )
    publish_manifest(folder, manifest)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with one step: the architecture at its smallest, seeded and untrained."""
    from unix.data.pack import UnderstandingPacking
    from unix.data.tokenizer import Tokenizer
    from unix.model.dual_branch import DecoderConfig, DualBranch, LatentConfig, ModelConfig, SpecialTokens
    from unix.model.latent import FoldedVAE, FoldedVAEConfig
    from unix.model.vision import VisionConfig
    from unix.model.weights.native import save_model

    tokenizer = Tokenizer.train(IMPRESSIONS, vocabulary_size=300)
    config = ModelConfig(
        decoder=DecoderConfig(
            vocabulary_size=tokenizer.vocabulary_size,
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=2,
            num_key_value_heads=2,
            initial_deviation=0.3,
        ),
        vision=VisionConfig(
            image_size=32, patch_size=16, hidden_size=16, intermediate_size=16, num_layers=1, num_heads=2
        ),
        latent=LatentConfig(max_side=4, base_side=2),
        tokens=SpecialTokens(bos=tokenizer.bos, eos=tokenizer.eos, boi=tokenizer.boi, eoi=tokenizer.eoi),
    )
    run = tmp_path_factory.mktemp("run")
    folder = run / "step-3"
    codec = FoldedVAE.build(FoldedVAEConfig(fine_channels=8, coarse_channels=8, num_blocks=1), seed=1)
    save_model(folder, DualBranch.build(config, seed=0), codec)
    tokenizer.save(folder)
    packing = UnderstandingPacking(prompts=("Describe the image.",))
    (folder / "preprocessing.json").write_text(packing.model_dump_json())
    meta = {"stage": "stage3", "step": 3, "seed": 0, "configuration_digest": "0" * 64, "notes": ["A warm start."]}
    (folder / "meta.json").write_text(json.dumps(meta))
    (run / "metrics.jsonl").write_text("".join(json.dumps({"step": n, "loss": 1 / n}) + "\n" for n in (1, 2, 3)))
    return run


def _shard(folder: Path, task: Task, split: Split, count: int, impressions: Sequence[str]) -> ShardEntry:
    generator = np.random.default_rng([count, len(task)])
    with ShardWriter(folder, split, 0, ("jpg", "json")) as writer:
        for number in range(count):
            impression = impressions[number % len(impressions)]
            record = {
                "image_id": f"{split}-{number:02d}",
                "study_id": str(5000 + number),
                "subject_id": f"{split}-{number // 2}",
                "source": "phantom",
                "split": split,
                "findings": "The lungs are imaged.",
                "impression": impression,
                "caption": impression if task is Task.GENERATION else "",
                "labels": None,
                "view_position": "PA",
                "prompt_version": "v1",
                "model": "rules",
                "report_sha256": join_report("", impression),
            }
            pixels = generator.integers(0, 256, (32, 32), dtype=np.uint8)
            writer.add(record["image_id"], {"jpg": encode_jpeg(pixels), "json": json.dumps(record).encode()})
        return writer.finish()
