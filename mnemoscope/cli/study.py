"""Commands on a study and its run: all stages, each stage alone, and what is made from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from mnemoscope.cli.shared import Bars, Changes, Data, Out, RunFolder, StudyFile, Track, done, loading, out, tracking


def demo(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="run folder")] = Path("demo"),
) -> None:
    """The embedded model on the embedded texts: a page in minutes, on a CPU, without a network.

    Trains a small decoder for real (windows of 4 and 8 tokens), then measures with the shipped decoder at 4 to 256
    tokens under three conditions.
    """
    loading()
    from mnemoscope import config, pipeline, zoo

    run = pipeline.run(config.load(zoo.study("demo")), out_dir, Bars())
    done(run.path)


def run(
    study: StudyFile,
    out_dir: Out,
    data: Data = None,
    changes: Changes = None,
    until: Annotated[
        str, typer.Option(help="last stage: prepare, train, reconstruct, score, estimate, report")
    ] = "report",
    track: Track = None,
) -> None:
    """Every stage of a study: prepare, train, reconstruct, score, estimate, report.

    The same command after an interruption goes on where it stopped.
    """
    from mnemoscope import config

    wanted = tracking(config.load(study, data=data, changes=changes or ()), track)
    loading()
    from mnemoscope import pipeline

    folder = pipeline.run(wanted, out_dir, Bars(), until)
    if until == "report" and folder.writes:
        done(folder.path)


Only = Annotated[
    list[str] | None,
    typer.Option(
        help="just the decoders whose name begins so, e.g. growing/seed-1; may be given again; for job arrays",
        show_default=False,
    ),
]


def _stage(name: str, folder: Path, **arguments: Any) -> None:
    from mnemoscope import pipeline

    pipeline.again(name, folder, Bars(), **arguments)


def train(folder: RunFolder, only: Only = None) -> None:
    """Trains the decoders of a run that are not trained yet; goes on from their checkpoints."""
    _stage("train", folder, only=only or ())


def reconstruct(folder: RunFolder, only: Only = None) -> None:
    """Writes every window back from its memory, under every condition; writes decoded/."""
    _stage("reconstruct", folder, only=only or ())


def score(folder: RunFolder) -> None:
    """Aligns reconstructions with their windows; writes reconstructions.parquet and tokens.parquet."""
    _stage("score", folder)


def estimate(folder: RunFolder) -> None:
    """Estimates with intervals, documents as the unit; writes estimates.parquet."""
    _stage("estimate", folder)


def report(
    folder: RunFolder,
    markdown: Annotated[Path | None, typer.Option(help="write the estimates to this Markdown file too")] = None,
) -> None:
    """Figures and the page; writes figures/ and report.html."""
    _stage("report", folder, markdown=markdown)
    done(folder)


def figures(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN", help="run folders: one, or several of other models and texts", show_default=False
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
