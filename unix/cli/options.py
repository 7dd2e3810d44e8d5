"""Options that several commands share: one name means one thing, and its default stands in its help."""

from typing import Annotated

import typer

SourceOption = Annotated[str, typer.Option(metavar="NAME", help="mimic-cxr, iu-xray or phantom.")]
RootOption = Annotated[str, typer.Option(metavar="DIR", help="The source's folder.")]
PromptOption = Annotated[
    str | None,
    typer.Option("--prompt", metavar="VERSION", help="Whose cleaned text counts; default: the store's only prompt."),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Whose cleaned text counts; default: the store's only model."),
]
UnattendedOption = Annotated[
    bool,
    typer.Option("--unattended", help="Where several cleanings fit, take the one with the most studies, do not ask."),
]
AcknowledgeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST", help="A public host that may see credentialed text; repeat for more; default: none."),
]
ConcurrencyOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Requests in flight; default: the endpoint's own limit.")
]
WorkersOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Processes; default: one per core.")]
EngineOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="local (the default): processes here; ray: tasks of a cluster that sees the same store."
    ),
]
ShardsOption = Annotated[
    str | None, typer.Option("--shards", metavar="DIR", help="Folder of the sets; default: the store's shards/.")
]
ConfigOption = Annotated[
    str | None, typer.Option(metavar="FILE", help="A YAML file in place of the preset's; default: the preset's.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change a setting, such as seed=1; repeat for more; default: none."),
]
CheckpointArgument = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A run's folder (its newest step) or a step's folder.")
]
CheckpointOption = Annotated[
    str, typer.Option(metavar="CHECKPOINT", help="A run's folder (its newest step) or a step's folder.")
]
BatchOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Samples in one forward pass; default: 64.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Worker processes, which change no result; default: one per core."),
]
NumStepsOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Euler steps per drawn image; default: 50.")
]
GuidanceOption = Annotated[
    float | None, typer.Option(metavar="X", help="Classifier-free guidance; 1 is none; default: 2.")
]
