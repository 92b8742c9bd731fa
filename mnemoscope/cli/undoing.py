"""The command that fits what the search ``undo`` needs."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from mnemoscope.cli.shared import Bars, ModelName, Out, loading, out


def undo(
    model: ModelName,
    text: Annotated[
        list[str],
        typer.Option(help="file, folder or glob of text to learn from; may be given again", show_default=False),
    ],
    out_dir: Out,
    longest: Annotated[int, typer.Option(min=6, help="tokens of the longest window that is to be read back")] = 66,
    states: Annotated[
        int, typer.Option(min=100, help="states of each group of positions that are learnt from")
    ] = 40000,
    seed: Annotated[int, typer.Option(min=0, help="of the choice of windows and channels")] = 0,
) -> None:
    """Learns how the states of a Mamba's first layer are distributed, for the search undo:FOLDER.

    That search reads a window back from the first layer's memory by algebra, without a trained decoder, and takes a
    text only where it is read into the same memory to the last bit: give it to bracket, or to a decoder of a study.
    """
    loading(text)
    from mnemoscope.undo import fit

    distribution = fit.fit(model, text, out_dir, longest=longest, states=states, seed=seed, progress=Bars())
    out.print(
        Text.assemble(
            (f"{out_dir}", "bold"), f"  windows of up to {distribution.longest} tokens; --search undo:{out_dir}"
        ),
        soft_wrap=True,
    )
