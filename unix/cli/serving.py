"""The command that serves the web pages."""

import os
from typing import Annotated

import typer

from unix.cli.frame import DEFAULT_STORE, StoreOption, given

TOKEN_VARIABLE = "UNIX_SERVE_TOKEN"


def serve(
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Beyond loopback people log in with a token; default: 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, metavar="P", help="0 picks a free one; default: 8900.")
    ] = None,
    reviewer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who decides, until somebody says; default: the account's name.")
    ] = None,
    runs: Annotated[
        str | None, typer.Option("--runs", metavar="DIR", help="Folder of training runs; default: runs.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Serve the web pages: audits, the playground, models.

    Beyond loopback people log in with the token in $UNIX_SERVE_TOKEN; without one, one is made and shown.
    """
    from unix.web.app import ServeConfig, serve

    serve(
        ServeConfig.build(
            given(
                store=store,
                host=host,
                port=port,
                token=os.environ.get(TOKEN_VARIABLE) or None,
                reviewer=reviewer,
                runs=runs,
            )
        )
    )
