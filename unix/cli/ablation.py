"""The commands `unix ablate ...`: short trainings that differ in one thing, measured alike."""

from pathlib import Path
from typing import Annotated, Any

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present

ablate = typer.Typer(help="Train one checkpoint several ways and compare.")

FromOption = Annotated[str, typer.Option("--from", metavar="CHECKPOINT", help="What every arm starts from.")]
OutOption = Annotated[Path, typer.Option(metavar="DIR", help="Folder for runs, predictions and the report.")]
ShardsOption = Annotated[str | None, typer.Option(metavar="DIR", help="Default: the store's shards/.")]
PresetOption = Annotated[str | None, typer.Option(metavar="NAME", help="tiny (the default) or paper.")]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A.B=C", help="Change a training setting of every arm; repeat for more; default: none."
    ),
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Measure on at most so many samples; default: all.")
]
SeedOption = Annotated[int | None, typer.Option(metavar="S", help="Of training, drawing and intervals; default: 0.")]
ProcessesOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Processes that predict; default: one per core.")
]


@ablate.command()
def cleaning(
    from_checkpoint: FromOption,
    out: OutOption,
    shards: ShardsOption = None,
    preset: PresetOption = None,
    settings: SettingsOption = None,
    limit: LimitOption = None,
    seed: SeedOption = None,
    processes: ProcessesOption = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Stage 1 on cleaned and on raw reports: report F1, and invented noise.

    An ablation that was interrupted goes on when the same command runs again.
    """
    from unix.ablation.arms import AblationConfig
    from unix.ablation.cleaning import ablate_cleaning

    options = _options(from_checkpoint, out, shards, preset, settings, limit, seed, processes, store)
    present(ablate_cleaning(AblationConfig.build(options)), json)


@ablate.command()
def joint(
    from_checkpoint: FromOption,
    out: OutOption,
    shards: ShardsOption = None,
    preset: PresetOption = None,
    settings: SettingsOption = None,
    limit: LimitOption = None,
    seed: SeedOption = None,
    processes: ProcessesOption = None,
    num_steps: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Euler steps per drawn image; default: 25.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Table 5: understanding frozen, or both branches trained at 1:1, 1:2, 1:4, 0:1.

    --from is a stage-1 checkpoint. An ablation that was interrupted goes on when the same command runs again.
    """
    from unix.ablation.joint import AblateJointConfig, ablate_joint

    options = _options(from_checkpoint, out, shards, preset, settings, limit, seed, processes, store)
    present(ablate_joint(AblateJointConfig.build({**options, **given(num_steps=num_steps)})), json)


def _options(
    from_checkpoint: str,
    out: Path,
    shards: str | None,
    preset: str | None,
    settings: list[str] | None,
    limit: int | None,
    seed: int | None,
    processes: int | None,
    store: str,
) -> dict[str, Any]:
    return given(
        from_checkpoint=from_checkpoint,
        out=str(out),
        shards=shards or f"{store}/shards",
        preset=preset,
        settings=tuple(settings or ()),
        limit=limit,
        seed=seed,
        processes=processes,
        store=store,
    )
