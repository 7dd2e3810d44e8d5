"""The commands `unix evaluate ...`: a checkpoint's predictions on a split, measured; and several such side by side."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present
from unix.cli.options import BatchOption, CheckpointOption, GuidanceOption, NumStepsOption, ProcessesOption
from unix.records import Task

evaluate = typer.Typer(help="Measure a checkpoint, or compare several.")

ShardsOption = Annotated[
    str | None, typer.Option(metavar="DIR", help="Folder of the sets, or of one; default: the store's shards/.")
]
SetOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="The set; default: the only one that fits the task.")
]
SplitOption = Annotated[str | None, typer.Option(metavar="NAME", help="train, validate or test; default: test.")]
LimitOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many samples; default: all.")]
TestSetOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="A frozen test set in place of set, split and limit; default: none.")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Folder for predictions, evaluation.json and report.html; default: beside the run."
    ),
]
SeedOption = Annotated[
    int | None, typer.Option(metavar="S", help="Of what is drawn at random, and of the intervals; default: 0.")
]
EncoderOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Compares images: tower (the default), tower:DIR, rad-dino:DIR or random."),
]
ReportProtocolOption = Annotated[
    str | None, typer.Option("--protocol", metavar="NAME", help="native (the default) or unix-paper.")
]
ImageProtocolOption = Annotated[
    str | None, typer.Option("--protocol", metavar="NAME", help="native (the default) or chexgenbench.")
]
LabelerOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Labels texts: rules (the default) or chexbert:PATH[:BERT_FOLDER]."),
]
RadGraphOption = Annotated[
    str | None,
    typer.Option(
        "--radgraph", metavar="DIR[:MODEL]", help="RadGraph F1 too, with the weights unpacked in DIR; default: without."
    ),
]
AlignmentOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How well images fit their texts, by biovil-t:DIR; default: not measured."),
]
AverageOption = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="With chexgenbench: its row is the mean of so many shards' scores; default: of one."
    ),
]


@evaluate.command()
def understanding(
    checkpoint: CheckpointOption,
    shards: ShardsOption = None,
    data_set: SetOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    test_set: TestSetOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    protocol: ReportProtocolOption = None,
    labeler: LabelerOption = None,
    radgraph: RadGraphOption = None,
    encoder: EncoderOption = None,
    batch: BatchOption = None,
    processes: ProcessesOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Reports for images, against the cleaned reports and those as written.

    What a killed run has predicted is kept: the same command goes on.
    """
    from unix.evaluation.understanding import EvaluateUnderstandingConfig, evaluate_understanding

    options = _options(
        Task.UNDERSTANDING,
        test_set,
        **_given(checkpoint, shards, data_set, split, limit, out, seed, encoder, batch, processes, store),
        **given(protocol=protocol, labeler=labeler, radgraph=radgraph),
    )
    present(evaluate_understanding(EvaluateUnderstandingConfig.build(options)), json)


@evaluate.command()
def generation(
    checkpoint: CheckpointOption,
    shards: ShardsOption = None,
    data_set: SetOption = None,
    split: SplitOption = None,
    limit: LimitOption = None,
    test_set: TestSetOption = None,
    out: OutOption = None,
    seed: SeedOption = None,
    protocol: ImageProtocolOption = None,
    average_shards: AverageOption = None,
    labeler: LabelerOption = None,
    alignment: AlignmentOption = None,
    encoder: EncoderOption = None,
    num_steps: NumStepsOption = None,
    guidance: GuidanceOption = None,
    batch: BatchOption = None,
    processes: ProcessesOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Images for captions: read back, measured, and compared with real ones.

    What a killed run has drawn is kept: the same command goes on.
    """
    from unix.evaluation.generation import EvaluateGenerationConfig, evaluate_generation

    options = _options(
        Task.GENERATION,
        test_set,
        **_given(checkpoint, shards, data_set, split, limit, out, seed, encoder, batch, processes, store),
        **given(num_steps=num_steps, guidance=guidance),
        **given(protocol=protocol, average_shards=average_shards, labeler=labeler, alignment=alignment),
    )
    present(evaluate_generation(EvaluateGenerationConfig.build(options)), json)


@evaluate.command()
def reports(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV with Image Path, Report Impression, Ground Truth.")],
    protocol: ReportProtocolOption = None,
    labeler: LabelerOption = None,
    radgraph: RadGraphOption = None,
    seed: SeedOption = None,
    json: JsonOption = None,
) -> None:
    """Score reports that another program wrote, from the paper's understanding_results.csv."""
    from unix.evaluation.score_files import ScoreReportsConfig, score_reports

    options = given(file=file, protocol=protocol, labeler=labeler, radgraph=radgraph, seed=seed)
    present(score_reports(ScoreReportsConfig.build(options)), json)


@evaluate.command()
def drawings(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV with prompts and file names, as prompt_INFO.csv.")],
    images: Annotated[str, typer.Option(metavar="DIR", help="Folder of the drawn images.")],
    real: Annotated[str, typer.Option(metavar="CSV", help="Real images: LLAVARAD_ANNOTATIONS_TEST.csv.")],
    real_images: Annotated[str, typer.Option(metavar="DIR", help="Folder that the paths of --real start in.")],
    encoder: Annotated[str, typer.Option(metavar="NAME", help="Compares images: rad-dino:DIR, tower:DIR or random.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for features and the benchmark's tables.")],
    protocol: ImageProtocolOption = None,
    average_shards: AverageOption = None,
    labeler: LabelerOption = None,
    alignment: AlignmentOption = None,
    seed: SeedOption = None,
    json: JsonOption = None,
) -> None:
    """Score images that another program drew, from CheXGenBench's CSV files."""
    from unix.evaluation.score_files import ScoreDrawingsConfig, score_drawings

    options = given(
        file=file,
        images=images,
        real=real,
        real_images=real_images,
        encoder=encoder,
        out=out,
        protocol=protocol,
        average_shards=average_shards,
        labeler=labeler,
        alignment=alignment,
        seed=seed,
    )
    present(score_drawings(ScoreDrawingsConfig.build(options)), json)


@evaluate.command()
def compare(
    folders: Annotated[list[str], typer.Argument(metavar="DIR", help="Folders that evaluations wrote.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for report.html and comparison.json.")],
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="TEXT", help="What to call each, in their order; default: their folders."),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Of the intervals; default: 0.")] = None,
    json: JsonOption = None,
) -> None:
    """Hold evaluations of the same samples against the first, pair by pair."""
    from unix.evaluation.compare import CompareConfig, compare_evaluations

    options = given(folders=tuple(folders), out=str(out), names=tuple(name or ()), seed=seed)
    present(compare_evaluations(CompareConfig.build(options)), json)


def _given(
    checkpoint: str,
    shards: str | None,
    data_set: str | None,
    split: str | None,
    limit: int | None,
    out: str | None,
    seed: int | None,
    encoder: str | None,
    batch: int | None,
    processes: int | None,
    store: str,
) -> dict[str, Any]:
    return given(
        checkpoint=checkpoint,
        shards=shards or f"{store}/shards",
        data_set=data_set,
        split=split,
        limit=limit,
        out=out,
        seed=seed,
        encoder=encoder,
        batch=batch,
        processes=processes,
        store=store,
    )


def _options(task: Task, test_set: str | None, **options: Any) -> dict[str, Any]:
    """The options with the frozen test set, where one is named, looked up in the store."""
    if test_set is None:
        return options
    from unix.evaluation.frozen_set import require_frozen
    from unix.store import Store

    return {**options, "test_set": require_frozen(Store(options["store"]), test_set).of(task)}
