"""The command that checks texts of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mnemoscope.cli.shared import Bars, Device, ModelName, Out, TextField, TrainedDecoder, loading, out

if TYPE_CHECKING:
    import polars as pl

_MOST = 20


def check(
    model: ModelName,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="text, JSON lines, source code; folders or globs", show_default=False),
    ],
    out_dir: Out,
    after: Annotated[
        str, typer.Option(help="tokens from the fact's begin to where the memory is taken, rising")
    ] = "16,64,256",
    decoder: TrainedDecoder = None,
    find: Annotated[
        list[str] | None,
        typer.Option(
            help="kinds of facts, KIND or KIND:ARGUMENT, the first of overlapping ones wins; may be given again, e.g. "
            "'spacy:ner en_core_web_sm'; code (of source files), identifiers, dates, numbers and names if left out",
            show_default=False,
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=0, help="facts at each of --after, drawn evenly over documents; 0: all")
    ] = 500,
    text: TextField = "text",
    seed: Annotated[int, typer.Option(min=0, help="of the choice of facts")] = 0,
    device: Device = "auto",
) -> None:
    """Which facts of your texts (numbers, names, identifiers, dates, code) the memory no longer holds after N tokens.

    The model reads each fact and the N - 1 tokens from its begin on; a trained decoder writes them back from the memory
    alone.

    Writes facts.parquet and facts.html, worst first.
    """
    loading(files)
    from mnemoscope import facts
    from mnemoscope.facts.find import KINDS
    from mnemoscope.report import facts as page

    request = facts.Request(
        model=model,
        files=files,
        after=after,
        decoder=decoder,
        kinds=find or KINDS,
        most=most or None,
        text=text,
        seed=seed,
        device=device,
    )
    run = facts.check(request, out_dir, Bars())
    _show(run.table("facts"))
    for line in page.headline(run.table("facts_summary"), run.study):
        said = f"{line['before']} {line['value']} {line['after']} ({line['interval']}; {line['n']})"
        out.print(Text(said), soft_wrap=True)
    out.print(Text.assemble((f"{run.path / 'facts.html'}", "bold"), "  open it in a browser"), soft_wrap=True)


def _show(found: pl.DataFrame) -> None:
    """The worst after the most tokens."""
    from mnemoscope.report import facts as page

    after = found["after"].to_list()[-1]
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=Text(f"after {after} tokens, worst first"),
        title_justify="left",
    )
    for column in ("fact", "kind", "place", "bits kept", "of", "lost"):
        table.add_column(column, justify="left" if column in ("fact", "kind", "place") else "right")
    for row in page.worst(found.filter(after=after), _MOST):
        cells = [" ".join(row["fact"].split()), row["kind"], f"{row['name']}:{row['line']}"]
        cells += [row["bits_retained"], row["bits"], f"{row['lost']} of {row['tokens']}"]
        table.add_row(*map(Text, cells))
    out.print(table)
