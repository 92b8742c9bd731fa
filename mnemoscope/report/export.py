"""Run folders -> the figures of a paper: SVG and PDF, with tables in Markdown and LaTeX.

    out/  index.md                  what there is, what is not and why, and the runs
          NAME.svg  NAME.pdf        the figure
          NAME.md   NAME.tex        its caption and its numbers

The same runs give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import polars as pl

from mnemoscope import config
from mnemoscope.errors import RunError
from mnemoscope.report import catalogue, figures, tables
from mnemoscope.report.charts import Chart
from mnemoscope.rundir import RunDir, disk_errors, write_atomically


class Made(NamedTuple):
    """What :func:`write` did.

    Attributes:
        figures: the names of those written.
        absent: the names of those that the runs cannot fill, with what each takes.
    """

    figures: list[str]
    absent: dict[str, str]


def write(folders: list[Path], out: Path) -> Made:
    """Writes every figure and table that the runs can fill; nothing in the runs is changed.

    Raises:
        RunError: a folder is no run, has no estimates, or is given twice; ``out`` cannot be written.
    """
    if len({f.resolve() for f in folders}) < len(folders):
        raise RunError("a run is given twice", remedy="Give each run once")
    opened = [_open(folder) for folder in folders]
    sources = [_source(run) for run in opened]
    charts, absent = catalogue.of_runs(sources)
    with disk_errors(out):
        for chart in charts:
            for kind, content in figures.paper(chart, ("svg", "pdf")).items():
                write_atomically(out / f"{chart.name}.{kind}", content)
            write_atomically(out / f"{chart.name}.md", "\n".join([*_heading(chart), *tables.markdown(chart)]))
            write_atomically(out / f"{chart.name}.tex", tables.latex(chart))
        write_atomically(out / "index.md", "\n".join(_index(charts, absent, opened, sources)))
    return Made([chart.name for chart in charts], absent)


def _open(folder: Path) -> RunDir:
    for needed in ("manifest.json", "study.toml", "estimates.parquet"):
        if not (folder / needed).exists():
            raise RunError(
                f"no figures can be made of it: it has no {needed}",
                remedy="Give a run folder whose estimates are made (mnemoscope estimate RUN)",
                file=folder,
            )
    return RunDir(folder, config.load(folder / "study.toml"), writes=False)


def _source(run: RunDir) -> catalogue.Source:
    estimates = run.table("estimates")
    study, manifest = run.study, run.manifest
    decoders = [d.name for d in study.decoders if d.name in set(estimates["decoder"])]
    if not decoders or study.model is None or study.windows is None:
        raise RunError("it has no estimates of any decoder", remedy="Run mnemoscope estimate RUN", file=run.path)
    parameters = int(manifest.get("parameters", 0))
    texts = [c.model_dump_json() for c in study.text.measure]
    # the choice of windows of one length does not depend on the others, unless they are nested
    windows = study.windows.model_dump_json(exclude=None if study.windows.nested else {"lengths"})
    return catalogue.Source(
        name=study.name,
        label=label(study.model.name, parameters),
        parameters=parameters,
        texts="\n".join([*texts, windows]),
        decoders=decoders,
        estimates=estimates,
        effects=pl.read_parquet(file) if (file := run.path / "effects.parquet").exists() else None,
    )


def label(model: str, parameters: int) -> str:
    """``mamba-nano, 1.92 M``: a model's name or the last of its folder, and its size, if it is known (not 0).

    ``F/model``, where ``mnemoscope pretrain`` leaves what it made in F, goes by the name of F.
    """
    folder = Path(model)
    name = folder.parent.name if folder.name == "model" and folder.parent.name else folder.name
    return f"{name}, {_size(parameters)}" if parameters else name


def _size(parameters: int) -> str:
    """1.92 M, 1.4 B; no line is broken in it."""
    return f"{parameters / 1e9:.3g}\u202fB" if parameters >= 1e9 else f"{parameters / 1e6:.3g}\u202fM"


def _heading(chart: Chart) -> list[str]:
    return [f"## {chart.title}\n", f"![{chart.title}]({chart.name}.svg)\n", f"{chart.caption} {chart.intervals}\n"]


def _index(
    charts: list[Chart], absent: dict[str, str], runs: list[RunDir], sources: list[catalogue.Source]
) -> list[str]:
    lines = ["# Figures\n", "| figure | files |", "| --- | --- |"]
    for chart in charts:
        files = ", ".join(f"[{kind}]({chart.name}.{kind})" for kind in ("svg", "pdf", "md", "tex"))
        lines.append(f"| {chart.title} | {files} |")
    if absent:
        lines += ["\nNot there, for want of data:\n", *(f"- `{name}` takes {takes}" for name, takes in absent.items())]
    lines += ["\nMade by `mnemoscope figures` from:\n", "| run | study digest | decoder | measured by code |"]
    lines += ["| --- | --- | --- | --- |"]
    for run, source in zip(runs, sources, strict=True):
        measured = run.manifest["stages"].get("reconstruct", {}).get("revision", "") or "–"
        lines.append(f"| {run.study.name} | `{run.study.digest()[:12]}` | {source.decoders[0]} | `{measured[:12]}` |")
    return [*lines, ""]
