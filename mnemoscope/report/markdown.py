"""The estimates as Markdown tables: a results page that a command makes again."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import words
from mnemoscope.rundir import write_atomically

#: by condition, the metrics of the table by length
_BY_LENGTH = {
    "memory": ["retention", "bits_retained", "omission_in_place", "omission_anywhere", "exact", "rouge1", "nats"],
    "none": ["nats", "omission_anywhere"],
    "wrong": ["nats", "omission_anywhere"],
}
_BY_GROUP = ["retention", "omission_in_place", "omission_anywhere"]


def write(run_folder: Path, study: Study, manifest: dict[str, Any], target: Path) -> Path:
    """Writes the page ``target`` and copies the run's figures into a folder of its name beside it.

    Raises:
        RunError: there are no estimates or no figures yet.
    """
    source = run_folder / "estimates.parquet"
    if not source.exists():
        raise RunError("there are no estimates yet", remedy="Run: mnemoscope estimate RUN", file=source)
    estimates = pl.read_parquet(source)
    folder = target.parent / target.stem
    drawn = sorted((run_folder / "figures").glob("*.svg"))
    if not drawn:
        raise RunError("there are no figures yet", remedy="Run: mnemoscope report RUN", file=run_folder / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    for figure in drawn:
        shutil.copyfile(figure, folder / figure.name)
    write_atomically(target, "\n".join(_page(estimates, study, manifest, [f"{folder.name}/{f.name}" for f in drawn])))
    return target


def _page(estimates: pl.DataFrame, study: Study, manifest: dict[str, Any], figures: list[str]) -> Iterable[str]:
    model = study.model.name if study.model else ""
    stages = manifest.get("stages", {})
    # what was measured decides the numbers, whatever code draws them
    measured = stages.get("reconstruct", {})
    commit, _, changes = measured.get("revision", "").partition("+")
    revision = commit[:12] + (f"+{changes}" if changes else "")
    yield f"# {study.name}: what {model} keeps\n"
    yield f"Made by `{manifest.get('command', '')}` and `mnemoscope report RUN --markdown FILE`; "
    study_digest, device = manifest.get("study", "")[:12], measured.get("device", "")
    yield f"study digest `{study_digest}`, measured by code `{revision}`, device {device}.\n"
    yield "Each cell is an estimate with its interval (cluster bootstrap over documents) and, in small, how many units"
    yield "and documents stand behind it. `mnemoscope schema estimates` says what the columns are.\n"
    for decoder in dict.fromkeys(estimates["decoder"]):
        own = estimates.filter(pl.col("decoder") == decoder, pl.col("seed") == "all")
        yield f"## Decoder `{decoder}`\n"
        for condition, metrics in _BY_LENGTH.items():
            rows = own.filter(pl.col("condition") == condition, pl.col("by") == "all")
            if rows.height:
                yield f"### Condition `{condition}`, by length\n"
                yield from _table(rows, "length", metrics)
        for by in (b for b in dict.fromkeys(own["by"]) if b not in ("all", "position")):
            rows = own.filter(pl.col("condition") == "memory", pl.col("by") == by)
            for length in sorted(set(rows["length"])):
                yield f"### By {by}, {length} tokens, condition `memory`\n"
                yield from _table(rows.filter(pl.col("length") == length), "group", _BY_GROUP)
    yield "## Figures\n"
    for figure in figures:
        yield f"![{Path(figure).stem}]({figure})\n"


def _table(rows: pl.DataFrame, key: str, metrics: list[str]) -> Iterable[str]:
    shown = [m for m in metrics if m in set(rows["metric"])]
    cells = {(r[key], r["metric"]): r for r in rows.iter_rows(named=True)}
    yield f"| {key} | " + " | ".join(words.name(m) for m in shown) + " |"
    yield "| --- " * (len(shown) + 1) + "|"
    for value in sorted(dict.fromkeys(rows[key])):
        filled = (_cell(cells.get((value, metric))) for metric in shown)
        yield f"| {str(value).replace('|', chr(92) + '|')} | " + " | ".join(filled) + " |"
    yield ""


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    value = words.number(row["value"], row["unit"])
    return f"{value} ({words.interval(row)}) <sub>{words.counted(row)}</sub>"
