"""Commands from raw studies to shards."""

from pathlib import Path
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, JsonOption, StoreOption, given, present


def phantom(
    studies: Annotated[int, typer.Option(min=1, metavar="N", help="How many studies.")],
    out: Annotated[Path, typer.Option(file_okay=False, metavar="DIR", help="The folder to write.")],
    seed: Annotated[int | None, typer.Option(help="Same seed, same bytes.")] = None,
    image_size: Annotated[int | None, typer.Option(min=16, metavar="P", help="Long side of the images.")] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Write images as well as reports.")] = True,
    json: JsonOption = None,
) -> None:
    """Write synthetic studies laid out as MIMIC-CXR-JPG is."""
    from unix.data.phantom import PhantomConfig, write_phantom

    values = given(studies=studies, out=str(out), seed=seed, image_size=image_size, images=images)
    present(write_phantom(PhantomConfig.build(values)), json)


def ingest(
    source: Annotated[str, typer.Option(metavar="NAME", help="mimic-cxr, iu-xray or phantom.")],
    root: Annotated[str, typer.Option(metavar="DIR", help="The source's folder.")],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Read what is new or changed in a source into the store."""
    from unix.data.ingest import IngestConfig, ingest

    present(ingest(IngestConfig.build(given(store=store, source=source, root=root))), json)
