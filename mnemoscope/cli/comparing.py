"""The command that compares runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from mnemoscope.cli.shared import out

if TYPE_CHECKING:
    from mnemoscope.stats.runs import Comparison

#: exit code of --fail-if-worse
WORSE = 4
_MOST = 20


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN_A RUN_B", help="run folders, the base first", show_default=False),
    ],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
    decoder: Annotated[
        list[str] | None,
        typer.Option(
            help="decoder to compare: one name for all runs, or one for each, in their order; the first that all have "
            "if left out",
            show_default=False,
        ),
    ] = None,
    fail_if_worse: Annotated[
        float | None,
        typer.Option(
            metavar="MARGIN",
            min=0,
            help="exit with code 4 if any class, at any length, is worse than in the base by more than this, its whole "
            "interval beyond it; in percentage points of retention or omission, or in bits a token",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        Literal["retention", "bits", "omission"],
        typer.Option(help="what is shown here, and what MARGIN is a margin of"),
    ] = "retention",
) -> None:
    """What other runs keep of the same text, less what the first keeps: by class, paired by document, on one page.

    Checkpoints, recipes or architectures; where the tokenizers differ, characters are counted and not tokens.

    Writes compare.parquet and compare.html.
    """
    from mnemoscope.report import compare as page
    from mnemoscope.stats import runs as stats

    found = stats.compare(runs, decoder or [])
    stats.write(found, out_dir)
    file = page.write(found, out_dir)
    for note in found.notes:
        out.print(Text(note, style="yellow"), soft_wrap=True)
    _show(found, metric)
    out.print(Text.assemble((f"{file}", "bold"), "  every measure and class; open it in a browser"), soft_wrap=True)
    if fail_if_worse is None:
        return
    judged = stats.judge(found.table, metric, fail_if_worse)
    what = "bits" if metric == "bits" else f"percentage points of {metric}"
    margin = f"by more than {fail_if_worse:g} {what}"
    rest = f"; {judged.unjudged} without an interval could not be judged" if judged.unjudged else ""
    if judged.worse.is_empty():
        out.print(Text(f"none of {judged.judged} classes and lengths is worse {margin}{rest}", "green"), soft_wrap=True)
        return
    out.print(Text(f"{judged.worse.height} of {judged.judged} are worse {margin}{rest}:", "bold red"), soft_wrap=True)
    for row in judged.worse.head(_MOST).iter_rows(named=True):
        text = page.texts(row)
        name = "the whole text" if row["by"] == "all" else f"{row['by']} {row['group']}"
        said = f"  {row['run']}, {name}, {row['length']} tokens: {text['value']} ({text['interval']})"
        out.print(Text(said), soft_wrap=True)
    if judged.worse.height > _MOST:
        out.print(Text(f"  and {judged.worse.height - _MOST} more"))
    raise typer.Exit(WORSE)


def _show(found: Comparison, metric: str) -> None:
    """Of one measure: the whole text at every length, then the classes that are told apart, as many as one reads."""
    from mnemoscope.report import compare as page

    rows = [r for r in page.shown(found) if r["metric"].startswith(metric)]
    if not rows:
        return
    told = [r for r in rows if r["by"] != "all" and r["verdict"]]
    several = len(found.sides) > 2
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(rows[0]["measure"]), title_justify="left")
    for column in ("class", "tokens", "base", "run", "difference", "interval", "docs", ""):
        first = column == "class"
        table.add_column(column, justify="left" if first else "right", no_wrap=not first)
    for row in [r for r in rows if r["by"] == "all"] + told[:_MOST]:
        name = "all" if row["by"] == "all" else f"{row['by']} {row['group']}"
        cells = [f"{row['run']}, {name}" if several else name]
        shown = ("length", "base_value", "run_value", "value", "interval", "n_documents", "verdict")
        cells += [str(row[c]) for c in shown]
        table.add_row(*map(Text, cells))
    out.print(table)
    if len(told) > _MOST:
        out.print(f"and {len(told) - _MOST} more that are worse or better", style="dim")
