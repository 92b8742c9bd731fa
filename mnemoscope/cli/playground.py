"""The command that opens the playground."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mnemoscope.cli.shared import err, out


def playground(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN",
            help="a run whose model and decoders to use; the embedded ones if left out",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="address to listen on; by default only this machine reaches it")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="port; 0 takes one that is free")] = 7860,
) -> None:
    """A page on which a text is typed, and its memory watched: what it gives back, token by token.

    Runs on this machine, sends nothing anywhere, stores nothing; Ctrl-C ends it.
    """
    from mnemoscope.errors import ConfigError

    try:
        from mnemoscope.playground import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(
            f"the playground needs {error.name}, which is not installed",
            remedy="pip install 'mnemoscope[playground]'",
        ) from None
    from mnemoscope.playground.session import opened

    if not app.is_loopback(host):
        err.print(
            Text.assemble(
                ("warning", "bold yellow"), f" {host}: whoever reaches this machine can use the playground, "
            ),
            "without a password and unencrypted",
            sep="",
            soft_wrap=True,
        )
    with app.listen(host, port) as listening:
        err.print("loading the model and its decoders ...", highlight=False)
        app.serve(
            opened(folder),
            host,
            listening,
            lambda address: out.print(Text.assemble((address, "bold"), "  open it in a browser; Ctrl-C ends it")),
        )
