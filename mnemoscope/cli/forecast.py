"""The command that says how long a study will take."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mnemoscope.cli.shared import Bars, Changes, Data, StudyFile, out


def bench(
    study: StudyFile,
    data: Data = None,
    changes: Changes = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option(help="instead of the study's", show_default=False)
    ] = None,
) -> None:
    """How long a study will take on this machine, from a little of each of its stages; keeps nothing.

    Takes about a minute, and longer where the text to be measured is large: all of it is read, as the study will.
    """
    from mnemoscope import bench, config

    found = bench.forecast(config.load(study, data=data, changes=changes or ()), Bars(), device)
    out.print(Text.assemble((f"about {duration(found.seconds)}", "bold"), f" for {study} on {found.device}"))
    table = Table("stage", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("amount", "a second", "time", "share"):
        table.add_column(column, justify="right")
    for stage in dict.fromkeys(line.stage for line in found.lines):
        seconds = found.of_stage(stage)
        table.add_row(stage, "", "", duration(seconds), f"{seconds / found.seconds:.0%}", style="bold")
        for line in (line for line in found.lines if line.stage == stage):
            rate = _amount(line.amount / line.seconds) if line.seconds else ""
            table.add_row(f"  {line.what}", f"{_amount(line.amount)} {line.unit}", rate, duration(line.seconds))
    out.print(table)
    held = f"{found.peak_bytes / 1e9:.1f} GB were held here"
    more = "the study holds as much" if found.whole else "the study's batches are larger than those timed and hold more"
    for heading, sentences in (("memory", [f"{held}; {more}."]), ("assumed", found.assumed)):
        for sentence in sentences:
            out.print(Text.assemble((f"{heading}  ", "dim"), sentence))


def _amount(value: float) -> str:
    """12,345; 9.9; 0.035."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(seconds: float) -> str:
    """3.2 s, 12 min 05 s, 4 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"
