"""The command line: parse, call the pipeline, print.  No logic."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

import mnemoscope
from mnemoscope.errors import MnemoscopeError

err = Console(stderr=True)
out = Console()

HELP = """
Shows what a recurrent language model's fixed-size memory keeps, and what it forgets.

A frozen model reads a window of text into its memory; a decoder, started from that memory alone, writes the window \
back. [bold]mnemoscope demo[/bold] shows it in minutes on a laptop.

Typical use:

- mnemoscope inspect state-spaces/mamba-130m-hf: can this model be measured?

- mnemoscope run STUDY.toml --out runs/mine: all stages, resumable

- mnemoscope report runs/mine: the page again, from the files

Exit codes: 0 done; 2 something in the input is wrong (the message says what, where and what to do); 3 the model \
does not carry its memory; 130 interrupted (the same command goes on).
"""

app = typer.Typer(
    name="mnemoscope",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help=HELP,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="the study file", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="run folder; made if it is not there", show_default=False)]
Data = Annotated[
    Path | None,
    typer.Option(
        help="folder that the study's relative paths start from [default: the study's]", envvar="MNEMOSCOPE_DATA"
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="a run folder made by mnemoscope run", show_default=False)
]


# ---- progress -------------------------------------------------------------------------------------------------------


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields.get("unit", "")
        return Text(f"{speed:,.0f} {unit}/s" if speed and unit else "", style="dim")


class _Bar:
    def __init__(self, progress: Progress, task: Any):
        self.progress, self.task = progress, task

    def at(self, done: float, note: str = "") -> None:
        self.progress.update(self.task, completed=done, note=note)


class Bars:
    """Progress on the terminal; a line at the start and at the end of each task where there is none."""

    @contextmanager
    def task(self, what: str, total: float, unit: str) -> Iterator[_Bar]:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            *([MofNCompleteColumn()] if total > 1 else []),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        ]
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
            if not err.is_terminal:
                err.print(f"{what} ...", highlight=False)
            bar = _Bar(progress, progress.add_task(what, total=total, unit=unit, note=""))
            yield bar
            progress.update(bar.task, completed=total)

    def say(self, line: str) -> None:
        err.print(line, highlight=False, markup=False, soft_wrap=True)


# ---- measuring ------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="run folder")] = Path("demo"),
) -> None:
    """The embedded model on the embedded texts: a page in minutes, on a CPU, without a network.

    Trains a small decoder for real (windows of 4 and 8 tokens), then measures with the shipped decoder at 4 to 256
    tokens under three conditions.
    """
    from mnemoscope import config, pipeline, zoo

    run = pipeline.run(config.load(zoo.study("demo")), out_dir, Bars())
    _done(run.path)


@app.command()
def run(
    study: StudyFile,
    out_dir: Out,
    data: Data = None,
    until: Annotated[
        str, typer.Option(help="last stage: prepare, train, reconstruct, score, estimate, report")
    ] = "report",
) -> None:
    """Every stage of a study: prepare, train, reconstruct, score, estimate, report.

    The same command after an interruption goes on where it stopped.
    """
    from mnemoscope import config, pipeline

    folder = pipeline.run(config.load(study, data=data), out_dir, Bars(), until)
    if until == "report" and folder.writes:
        _done(folder.path)


Only = Annotated[
    str,
    typer.Option(
        help="just the decoders whose name begins so, e.g. growing/seed-1; for job arrays", show_default=False
    ),
]


def _stage(name: str, folder: Path, **arguments: Any) -> None:
    from mnemoscope import pipeline

    pipeline.again(name, folder, Bars(), **arguments)


@app.command()
def train(folder: RunFolder, only: Only = "") -> None:
    """Trains the decoders of a run that are not trained yet; goes on from their checkpoints."""
    _stage("train", folder, only=only)


@app.command()
def reconstruct(folder: RunFolder, only: Only = "") -> None:
    """Writes every window back from its memory, under every condition; writes decoded/."""
    _stage("reconstruct", folder, only=only)


@app.command()
def score(folder: RunFolder) -> None:
    """Aligns reconstructions with their windows; writes reconstructions.parquet and tokens.parquet."""
    _stage("score", folder)


@app.command()
def estimate(folder: RunFolder) -> None:
    """Estimates with intervals, documents as the unit; writes estimates.parquet."""
    _stage("estimate", folder)


@app.command()
def report(
    folder: RunFolder,
    markdown: Annotated[Path | None, typer.Option(help="write the estimates to this Markdown file too")] = None,
) -> None:
    """Figures and the page; writes figures/ and report.html."""
    _stage("report", folder, markdown=markdown)
    _done(folder)


@app.command()
def figures(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="run folders: one, or several of other models and texts", show_default=False
        ),
    ],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
) -> None:
    """Every figure and table of a paper from runs: SVG, PDF, Markdown, LaTeX; says which the runs cannot fill."""
    from mnemoscope.report import export

    made = export.write(folders, out_dir)
    out.print(Text.assemble((f"{out_dir / 'index.md'}", "bold"), f"  {', '.join(made.figures)}"), soft_wrap=True)
    for name, takes in made.absent.items():
        out.print(Text.assemble((f"no {name}", "dim"), f"  takes {takes}"), soft_wrap=True)


def _done(folder: Path) -> None:
    out.print(Text.assemble((f"{folder / 'report.html'}", "bold"), "  open it in a browser"), soft_wrap=True)


# ---- models and words -----------------------------------------------------------------------------------------------


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="embedded name, folder, or hub name", show_default=False)
    ],
    revision: Annotated[str | None, typer.Option(help="branch, tag or commit on the hub")] = None,
    dtype: Annotated[str, typer.Option(help="float32, float64 or bfloat16")] = "float32",
) -> None:
    """What a model's memory is made of, and whether it carries what was read (exit code 0 only if it does)."""
    from mnemoscope.memory import continuity, describe
    from mnemoscope.memory.load import load

    loaded = load(model, revision=revision, dtype=dtype, need_tokenizer=False)
    adapter = loaded.adapter
    parameters = sum(p.numel() for p in adapter.parameters())
    table = Table(title=Text(f"{model}: {adapter.model_type}, {parameters:,} parameters"))
    for column in ("part", "count", "shape", "dtype", "numbers", "bytes"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for row in describe.describe(adapter):
        shape = " x ".join(map(str, row.shape))
        table.add_row(row.part, str(row.count), shape, row.dtype, f"{row.numbers:,}", f"{row.bytes:,}")
    out.print(table)
    found = continuity.require(adapter, model)
    worst, part = max((max(found.split[p], found.batch[p]), p) for p in found.split)
    out.print(
        f"continuity holds: reading a then b equals reading both, to {worst:.1e} in {part} "
        f"({found.allowed[part]:.0e} allowed); "
        f"an empty memory instead changes the hidden states by {found.influence:.1e}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def certify(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="embedded name, folder, or hub name", show_default=False)
    ],
    text: Annotated[
        list[str], typer.Option(help="file, folder or glob of text; may be given again", show_default=False)
    ],
    out_dir: Out,
    lengths: Annotated[str, typer.Option(help="window lengths in tokens, rising")] = "64,256,1024,4096",
    substitutes: Annotated[int, typer.Option(min=1, help="alternatives to each token: the model's likeliest")] = 4,
    per_doubling: Annotated[
        int, typer.Option(min=0, help="tokens at each doubling of the distance to the window's end; 0: all")
    ] = 8,
    tokens_per_length: Annotated[int, typer.Option(min=1, help="windows of so many tokens at each length")] = 65536,
    domain: Annotated[
        str | None, typer.Option(help="field of a record that holds the domain", show_default=False)
    ] = None,
    annotate: Annotated[
        list[str] | None, typer.Option(help="classes to tell apart, e.g. numbers; KIND or KIND:ARGUMENT")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the choice of windows and tokens")] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="where to compute")] = "auto",
) -> None:
    """Which tokens no decoder can recover: those that an alternative replaces without any change to the memory.

    At five precisions of storage: fp32, bf16, fp16, fp8 (e4m3), int8.  Forward passes only; writes certificate/,
    estimates.parquet and horizons.parquet.
    """
    from mnemoscope import certificate
    from mnemoscope.certificate import request

    study = request.study(
        model, text, lengths, tokens_per_length, domain=domain, annotations=annotate or [], seed=seed, device=device
    )
    settings = certificate.Settings(substitutes=substitutes, per_doubling=per_doubling or None)
    found = certificate.certify(study, out_dir, settings, Bars()).table("horizons")
    table = Table("length", "precision", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("lost", "first at", "half from", "tokens", "documents"):
        table.add_column(column, justify="right")
    for row in found.iter_rows(named=True):
        first, half = ("never" if row[edge] is None else f"{row[edge]:,}" for edge in ("first", "half"))
        counts = f"{row['n_tokens']:,}", f"{row['n_documents']:,}"
        table.add_row(f"{row['length']:,}", row["precision"], f"{row['lost']:.1%}", first, half, *counts)
    out.print(table)
    out.print("first at, half from: tokens between a lost token and the end of the window", style="dim")


@app.command()
def bench(
    study: StudyFile,
    data: Data = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option(help="instead of the study's", show_default=False)
    ] = None,
) -> None:
    """How long a study will take on this machine, from a little of each of its stages; keeps nothing.

    Takes about a minute, and longer where the text to be measured is large: all of it is read, as the study will.
    """
    from mnemoscope import bench, config

    found = bench.forecast(config.load(study, data=data), Bars(), device)
    out.print(Text.assemble((f"about {_time(found.seconds)}", "bold"), f" for {study} on {found.device}"))
    table = Table("stage", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("amount", "a second", "time", "share"):
        table.add_column(column, justify="right")
    for stage in dict.fromkeys(line.stage for line in found.lines):
        seconds = found.of_stage(stage)
        table.add_row(stage, "", "", _time(seconds), f"{seconds / found.seconds:.0%}", style="bold")
        for line in (line for line in found.lines if line.stage == stage):
            rate = _amount(line.amount / line.seconds) if line.seconds else ""
            table.add_row(f"  {line.what}", f"{_amount(line.amount)} {line.unit}", rate, _time(line.seconds))
    out.print(table)
    held = f"{found.peak_bytes / 1e9:.1f} GB were held here"
    more = "the study holds as much" if found.whole else "the study's batches are larger than those timed and hold more"
    for heading, sentences in (("memory", [f"{held}; {more}."]), ("assumed", found.assumed)):
        for sentence in sentences:
            out.print(Text.assemble((f"{heading}  ", "dim"), sentence))


def _amount(value: float) -> str:
    """12,345; 9.9; 0.035."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _time(seconds: float) -> str:
    """3.2 s, 12 min 05 s, 4 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"


@app.command()
def pretrain(study: StudyFile, out_dir: Out, data: Data = None) -> None:
    """A language model from nothing, by the \\[pretrain] section of a study: tokenizer, tokens, model."""
    from mnemoscope import config, pretraining

    folder = pretraining.pretrain(config.load(study, data=data), out_dir, Bars())
    out.print(Text.assemble((f"{folder}", "bold"), f"  use it as a model: mnemoscope inspect {folder}"), soft_wrap=True)


@app.command()
def count(
    corpus: Annotated[list[str], typer.Argument(metavar="CORPUS", help="files, folders or globs", show_default=False)],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write", show_default=False)],
    tokens: Annotated[
        str | None, typer.Option(metavar="MODEL", help="count the tokens of this model's tokenizer", show_default=False)
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="count words: runs of letters and digits")] = False,
    ngrams: Annotated[int, typer.Option(min=1, help="count rows of 1, 2, ... up to this many of them")] = 1,
    least: Annotated[int, typer.Option(min=1, help="leave out what occurs less often")] = 1,
    text: Annotated[str, typer.Option(help="field of a record that holds the text")] = "text",
    memory: Annotated[str, typer.Option(help="bound of the memory to work in, such as 800MB")] = "2GB",
) -> None:
    """How often tokens, words and n-grams occur in a corpus that need not fit into memory; resumable."""
    from mnemoscope.frequency.count import Request, count

    count(corpus, out_file, Request(tokens, words, ngrams, least, text), memory, Bars())


@app.command()
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


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="print the version and stop")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="say which backends are chosen, and why")] = False,
) -> None:
    if version:
        out.print(mnemoscope.__version__)
        raise typer.Exit
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(name)s: %(message)s")


def main() -> None:
    """Entry point: expected failures are printed, not traced."""
    # the library's advice about kernels that are not installed is not about what we run
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    try:
        app()
    except MnemoscopeError as error:
        # messages hold paths and TOML headers, whose brackets are no markup
        err.print(Text.assemble(("error", "bold red"), f" {error}"), soft_wrap=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == 130:  # typer's, of Ctrl-C
            err.print("interrupted; the same command goes on from here")
        raise


if __name__ == "__main__":
    main()
