"""Commands on tables: counting a corpus, and the meaning of a run folder's columns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mnemoscope.cli.shared import Bars, TextField, out


def count(
    corpus: Annotated[list[str], typer.Argument(metavar="CORPUS", help="files, folders or globs", show_default=False)],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write", show_default=False)],
    tokens: Annotated[
        str | None, typer.Option(metavar="MODEL", help="count the tokens of this model's tokenizer", show_default=False)
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="count words: runs of letters and digits")] = False,
    ngrams: Annotated[int, typer.Option(min=1, help="count rows of 1, 2, ... up to this many of them")] = 1,
    least: Annotated[int, typer.Option(min=1, help="leave out what occurs less often")] = 1,
    text: TextField = "text",
    memory: Annotated[str, typer.Option(help="bound of the memory to work in, such as 800MB")] = "2GB",
) -> None:
    """How often tokens, words and n-grams occur in a corpus that need not fit into memory; resumable."""
    from mnemoscope.frequency.count import Request, count

    count(corpus, out_file, Request(tokens, words, ngrams, least, text), memory, Bars())


def schema(
    table: Annotated[str | None, typer.Argument(help="one table; all if left out", show_default=False)] = None,
) -> None:
    """The columns of every table in a run folder, their units and meanings."""
    from mnemoscope.errors import ConfigError
    from mnemoscope.schema import TABLES

    if table is not None and table not in TABLES:
        raise ConfigError(f"there is no table {table!r}", remedy=f"There are: {', '.join(TABLES)}")
    for name in [table] if table else TABLES:
        grid = Table("column", "type", "unit", "meaning", title=f"{name}.parquet", title_justify="left")
        for c in TABLES[name]:
            grid.add_row(c.name, str(c.dtype), c.unit, c.meaning)
        out.print(grid)
