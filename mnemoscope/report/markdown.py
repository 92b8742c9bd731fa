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
from mnemoscope.stats import compare

#: by condition, the metrics of the table by length
_BY_LENGTH = {
    "memory": ["retention", "bits_retained", "omission_in_place", "omission_anywhere", "exact", "rouge1", "nats"],
    "none": ["nats", "omission_anywhere"],
    "wrong": ["nats", "omission_anywhere"],
}
_BY_GROUP = ["retention", "omission_in_place", "omission_anywhere"]
#: of two decoders, with the decimals that show a difference
_COMPARED = {"nats": 3, "retention": 2, "omission_in_place": 2, "omission_anywhere": 2}


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
    figures = [f"{folder.name}/{f.name}" for f in drawn]
    lines = [*_head(study, manifest, run_folder, target)]
    lines += _training(run_folder)
    lines += _side_by_side(run_folder, study, estimates)
    lines += _effects(run_folder)
    lines += _tables(estimates, figures)
    write_atomically(target, "\n".join(lines))
    return target


def _head(study: Study, manifest: dict[str, Any], run_folder: Path, target: Path) -> Iterable[str]:
    model = study.model.name if study.model else ""
    stages = manifest.get("stages", {})
    # what was measured decides the numbers, whatever code draws them
    measured = stages.get("reconstruct", {})
    commit, _, changes = measured.get("revision", "").partition("+")
    revision = commit[:12] + (f"+{changes}" if changes else "")
    yield f"# {study.name}: what {model} keeps\n"
    again = f"mnemoscope report {run_folder} --markdown {target}"
    yield f"Made by `{manifest.get('command', '')}` and `{again}`; "
    study_digest, device = manifest.get("study", "")[:12], measured.get("device", "")
    yield f"study digest `{study_digest}`, measured by code `{revision}`, device {device}.\n"
    yield "Each cell is an estimate with its interval (cluster bootstrap over documents) and, in small, how many units"
    yield "and documents stand behind it. `mnemoscope schema estimates` says what the columns are.\n"


def _training(run_folder: Path) -> Iterable[str]:
    """What each decoder's training took, from its curves."""
    file = run_folder / "curves.parquet"
    if not file.exists():
        return
    key = ["decoder", "condition", "seed"]
    # a curve begins at step 0; recipe fixed has one a length
    curves = pl.read_parquet(file).with_columns((pl.col("step") == 0).cum_sum().alias("curve"))
    each = curves.group_by(*key, "curve").agg(pl.len().alias("steps"), pl.max("tokens", "seconds"))
    rows = each.group_by(key).agg(pl.sum("steps", "tokens", "seconds")).sort(key)
    yield "## Training\n"
    yield "| decoder | seed | condition | steps | window tokens | seconds |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for row in rows.iter_rows(named=True):
        yield (
            f"| {row['decoder']} | {row['seed']} | {row['condition']} | {row['steps']:,} | {row['tokens']:,} "
            f"| {row['seconds']:,.0f} |"
        )
    yield ""


def _side_by_side(run_folder: Path, study: Study, estimates: pl.DataFrame) -> Iterable[str]:
    """The first decoder beside each other one: the same windows, the real memory, differences by document."""
    first, *others = dict.fromkeys(d.name for d in study.decoders if d.name in set(estimates["decoder"]))
    for other in others:
        yield f"## `{first}` beside `{other}`, condition `memory`\n"
        yield f"The last number of each cell is `{first}` less `{other}`, paired by document, seeds pooled.\n"
        columns: dict[str, dict[int, str]] = {}
        for metric, digits in _COMPARED.items():
            found = compare.between(run_folder, study, metric, {"decoder": first}, {"decoder": other})
            own = estimates.filter(seed="all", by="all", condition="memory", metric=metric)
            values = {(r["decoder"], r["length"]): r for r in own.iter_rows(named=True)}
            for row in found.filter(condition="memory").iter_rows(named=True):
                left, right = values[first, row["length"]], values[other, row["length"]]
                unit = left["unit"]
                sides = " − ".join(words.number(side["value"], unit, digits) for side in (left, right))
                difference = words.number(row["value"], unit, digits)
                within = words.interval({**row, "unit": unit}, digits)
                columns.setdefault(metric, {})[row["length"]] = (
                    f"{sides} = {difference} ({within}) <sub>{words.counted(row)}</sub>"
                )
        shown = list(columns)
        yield "| length | " + " | ".join(words.name(m) for m in shown) + " |"
        yield "| --- " * (len(shown) + 1) + "|"
        for length in sorted({n for column in columns.values() for n in column}):
            yield f"| {length} | " + " | ".join(columns[m].get(length, "") for m in shown) + " |"
        yield ""


def _effects(run_folder: Path) -> Iterable[str]:
    """Every difference between groups, if the study asked for any."""
    file = run_folder / "effects.parquet"
    if not file.exists():
        return
    shown = ("kind", "metric", "group", "base", "value", "interval", "p", "size", "n")
    for (decoder, by, length), rows in pl.read_parquet(file).group_by("decoder", "by", "length", maintain_order=True):
        yield f"## Differences by {by}, {length} tokens, decoder `{decoder}`\n"
        yield "p is adjusted for the comparisons of its kind and metric (Holm; Bonferroni for the published test).\n"
        yield "| " + " | ".join(shown) + " |"
        yield "| --- " * len(shown) + "|"
        for row in map(words.effect, rows.iter_rows(named=True)):
            yield "| " + " | ".join(row[c].replace("|", chr(92) + "|") for c in shown) + " |"
        yield ""


def _tables(estimates: pl.DataFrame, figures: list[str]) -> Iterable[str]:
    for decoder in dict.fromkeys(estimates["decoder"]):
        own = estimates.filter(pl.col("decoder") == decoder, pl.col("seed") == "all")
        yield f"## Decoder `{decoder}`\n"
        for condition in [*_BY_LENGTH, *sorted(set(own["condition"]) - set(_BY_LENGTH))]:
            metrics = _BY_LENGTH.get(condition, _BY_LENGTH["memory"])
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
