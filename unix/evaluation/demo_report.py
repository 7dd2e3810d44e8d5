"""The end of the demo: its JSON summary and its HTML page, put together from what the jobs left on disk."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from unix.config import Config, describe
from unix.data.cleaning.score import score
from unix.errors import ConfigError
from unix.evaluation import page_inputs as page
from unix.evaluation.curation_view import cleaning_examples, funnel, scored_reports
from unix.evaluation.examples import drawn_examples, written_examples
from unix.evaluation.page import write_page
from unix.evaluation.result_rows import cleaning_rows, drawing_rows, reading_rows
from unix.evaluation.results import EvaluationSummary
from unix.evaluation.runs import Run, read_run
from unix.manifest import code_revision, read_manifest
from unix.store import Store
from unix.tensor_file import read_header

_NUM_CLEANING, _NUM_DRAWN, _NUM_WRITTEN = 6, 12, 6


class DemoRun(Config):
    """Where a finished demo left its traces."""

    store: str
    phantom: str
    """Folder of the phantom, with its ground truth."""
    shards: str
    """Folder of the shard sets."""
    runs: tuple[str, ...]
    """Folders of the training runs, in the order of the stages; the last is the model that was evaluated."""
    understanding: str
    """JSON file that `unix evaluate understanding` wrote."""
    generation: str
    """JSON file that `unix evaluate generation` wrote."""
    step_seconds: dict[str, float]
    """Wall-clock seconds of each step of the demo, in their order."""
    seconds: float
    """Wall-clock seconds of the whole demo, or of its last run."""
    continued: bool = False
    """Whether an earlier run of the demo did some of it, and the seconds are those of the last run alone."""
    seed: int
    page: str
    """Where to write the HTML report."""


class CleaningNumbers(Config):
    """Cleaning against the phantom's ground truth; a rejected report counts as recall 0."""

    clean_token_recall: float
    noise_removed: float
    accepted_share: float


class UnderstandingNumbers(Config):
    """Reports of test images; uncertain counts as positive."""

    micro_f1_14: float
    macro_f1_14: float
    best_constant_micro_f1_14: float
    shuffled_micro_f1_14: float
    most_frequent_report_micro_f1_14: float


class GenerationNumbers(Config):
    """Images drawn for test prompts; None where no prompt bears on a measure."""

    readback_micro_f1_14: float
    shuffled_readback_micro_f1_14: float
    reconstruction_readback_micro_f1_14: float
    cardiomegaly_auc: float | None
    effusion_auc: float | None
    pneumothorax_auc: float | None
    side_accuracy: float | None


class DemoSummary(Config):
    """What `unix demo --json` writes."""

    seconds: float
    report_html: str
    seed: int
    cleaning: CleaningNumbers
    understanding: UnderstandingNumbers
    generation: GenerationNumbers
    step_seconds: dict[str, float]


def report_demo(run: DemoRun) -> DemoSummary:
    """Collect the numbers of a demo and write its page.

    Raises:
        ConfigError: an evaluation's file is missing or not what `unix evaluate --json` writes.
        WeightsError: a training run left no checkpoint.
    """
    store = Store(run.store)
    cleaned = scored_reports(store, run.phantom)
    understanding, generation = _read(run.understanding), _read(run.generation)
    stages = [read_run(folder) for folder in run.runs]
    inputs = page.PageInputs(
        title="One model reads and draws chest radiographs of a phantom",
        summary=_summary(store, run, understanding, generation),
        synthetic=True,
        metrics=(*reading_rows(understanding), *drawing_rows(generation), *cleaning_rows(cleaned)),
        class_tables=(
            page.ClassTable("Written reports, per class", understanding.per_class),
            page.ClassTable("Drawn images read back, per class", generation.per_class),
        ),
        funnel=funnel(store, run.shards, _sets(run.shards)),
        cleaning=cleaning_examples(store, _NUM_CLEANING),
        curves=_curves(stages),
        gallery=drawn_examples(generation, run.shards, _NUM_DRAWN),
        reports=written_examples(understanding, run.shards, _NUM_WRITTEN),
        facts=_facts(run, stages, understanding, generation),
        provenance=_provenance(store, run, stages),
    )
    written = write_page(inputs, run.page)
    return DemoSummary(
        seconds=run.seconds,
        report_html=str(written),
        seed=run.seed,
        cleaning=CleaningNumbers.model_validate(score(cleaned)._asdict()),
        understanding=UnderstandingNumbers.model_validate(_taken(UnderstandingNumbers, understanding)),
        generation=GenerationNumbers.model_validate(_taken(GenerationNumbers, generation)),
        step_seconds=run.step_seconds,
    )


def _read(path: str) -> EvaluationSummary:
    try:
        return EvaluationSummary.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the evaluation {path}: {error.strerror}; run `unix evaluate --json`") from error
    except ValidationError as error:
        raise ConfigError(f"{path} is not what `unix evaluate --json` writes: {describe(error)}") from error


def _taken(kind: type[Config], evaluation: EvaluationSummary) -> dict[str, float | None]:
    """The fields of `kind` by name, from the evaluation's metrics or baselines."""
    values = evaluation.baselines | {name: metric.value for name, metric in evaluation.metrics.items()}
    return {name: values.get(name) for name in kind.model_fields}


def _summary(store: Store, run: DemoRun, understanding: EvaluationSummary, generation: EvaluationSummary) -> str:
    studies = store.read("studies", ["study_id"]).height
    stages = f"{len(run.runs)} stage" + "s" * (len(run.runs) > 1)
    minutes = f"{run.seconds / 60:.1f} minutes on this machine"
    took = (
        f"; the last run, which went on from an earlier one, took {minutes}" if run.continued else f", all in {minutes}"
    )
    return (
        f"{studies:,} raw studies were ingested, cleaned, split and sharded; a tiny model was trained on them in "
        f"{stages}. Then it wrote reports for {understanding.n:,} test images and drew images of "
        f"{generation.resolution} pixels for {generation.n:,} test prompts that it had never seen{took}."
    )


def _sets(shards: str) -> list[str]:
    return sorted(path.parent.name for path in Path(shards).glob("*/manifest.json"))


def _curves(stages: Sequence[Run]) -> tuple[page.StageCurves, ...]:
    """One chart per stage or part of it. Checkpoints hand their notes on; each is shown where it first occurs."""
    charts: list[page.StageCurves] = []
    shown: set[str] = set()
    for stage in stages:
        for part, series in stage.losses.items():
            note = "; ".join(note for note in stage.notes if note not in shown)
            shown.update(stage.notes)
            charts.append(page.StageCurves(f"{stage.stage}, {part}" if part else stage.stage, series, note))
    return tuple(charts)


def _facts(
    run: DemoRun, stages: Sequence[Run], understanding: EvaluationSummary, generation: EvaluationSummary
) -> tuple[page.Fact, ...]:
    model = stages[-1].folder
    return (
        page.Fact("Whole demo", f"{run.seconds:.0f} s"),
        *(page.Fact(f"… {step}", f"{seconds:.0f} s") for step, seconds in run.step_seconds.items()),
        page.Fact("Seed", str(run.seed)),
        page.Fact("Model", f"{read_header(model / 'model.safetensors').num_parameters:,} parameters, both branches"),
        page.Fact("Image autoencoder", f"{read_header(model / 'vae.safetensors').num_parameters:,} parameters"),
        *(page.Fact(f"Steps of {stage.stage}", f"{stage.steps:,}") for stage in stages),
        page.Fact("Images read", f"{understanding.n:,}, {understanding.failures} without a report"),
        page.Fact("Images drawn", f"{generation.n:,} of {generation.resolution} pixels"),
        page.Fact("Protocol", understanding.protocol),
    )


def _provenance(store: Store, run: DemoRun, stages: Sequence[Run]) -> tuple[page.Fact, ...]:
    manifests = [read_manifest(Path(run.shards) / name) for name in _sets(run.shards)]
    versions = store.versions("studies", "images", "cleaned_reports", "splits")
    cleaned = store.scan("cleaned_reports").select("model", "prompt_version", "prompt_digest").unique().collect()
    return (
        page.Fact("code", code_revision()),
        page.Fact("tables", ", ".join(f"{table} {version}" for table, version in versions.items())),
        *(page.Fact("cleaned by", f"{model}, prompt {name} {digest[:16]}") for model, name, digest in cleaned.rows()),
        *(page.Fact(manifest.set, f"release {manifest.release}") for manifest in manifests),
        *(page.Fact(stage.stage, f"configuration {stage.configuration_digest[:16]}") for stage in stages),
    )
