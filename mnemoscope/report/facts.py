"""The facts that were checked -> one self-contained page, readable without a network.

The template escapes every text that comes from the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from mnemoscope.config import Study
from mnemoscope.errors import RunError
from mnemoscope.report import words
from mnemoscope.report.templates import render
from mnemoscope.rundir import write_atomically

Row = dict[str, Any]

#: rows on the page at each length, the worst ones; all are in the table
MOST = 500
_SHOWN = ("whole", "retention", "bits_retained", "omission_in_place")
_NAMES = {"whole": "facts written back whole"}


def write(run_folder: Path, study: Study, manifest: Row) -> Path:
    """Writes ``facts.html`` into the run folder, atomically, and returns its path.

    Raises:
        RunError: there are no facts yet.
    """
    facts, summary = (_read(run_folder / f"{name}.parquet") for name in ("facts", "facts_summary"))
    lengths = facts["after"].unique().sort().to_list()
    page = run_folder / "facts.html"
    content = render(
        "facts.html",
        model=study.model.name if study.model else "the model",
        headline=headline(summary, study),
        tables=[(length, _summary(summary.filter(length=length))) for length in lengths],
        metrics=[_NAMES.get(m, words.name(m)) for m in _SHOWN],
        confidence=f"{100 * study.estimate.confidence:g}",
        lengths=lengths,
        kinds=facts["kind"].unique().sort().to_list(),
        facts=[row for length in lengths for row in worst(facts.filter(after=length), MOST)],
        most=MOST if facts.group_by("after").len()["len"].max() > MOST else None,  # type: ignore[operator]
        held=manifest.get("facts", {}),
        total=facts.height,
        command=manifest.get("command", ""),
        weights=study.decoders[0].weights,
        inputs=[(i["name"], i["sha256"][:12]) for i in manifest.get("inputs", [])],
    )
    write_atomically(page, content)
    return page


def _read(file: Path) -> pl.DataFrame:
    if not file.exists():
        raise RunError("there are no facts yet", remedy="Make them: mnemoscope check MODEL FILES --out DIR", file=file)
    return pl.read_parquet(file)


def headline(summary: pl.DataFrame, study: Study) -> list[Row]:
    """How many facts come back whole at each length, in parts: ``before``, ``value``, ``after``."""
    model = study.model.name if study.model else "the model"
    out = []
    for row in summary.filter(by="all", metric="whole").sort("length").iter_rows(named=True):
        out.append(
            {
                "before": f"After {words.count(row['length'], 'token')}, {model}’s memory gives back",
                "value": words.number(row["value"], "fraction", 0),
                "after": f"of {words.count(row['n_tokens'], 'fact')} whole",
                "interval": words.interval(row),
                "known": row["low"] == row["low"],
                "n": words.count(row["n_documents"], "document"),
            }
        )
    return out


def _summary(rows: pl.DataFrame) -> list[Row]:
    """A row for all facts and one for each kind, with a cell for each measure."""
    out = []
    for (by, group), mine in rows.group_by("by", "group", maintain_order=True):
        cells = {r["metric"]: r for r in mine.iter_rows(named=True)}
        whole = cells["whole"]
        out.append(
            {
                "group": "all facts" if by == "all" else group,
                "n": f"{words.count(whole['n_tokens'], 'fact')}, {words.count(whole['n_documents'], 'document')}",
                "cells": [
                    (words.number(cells[m]["value"], cells[m]["unit"]), words.interval(cells[m])) for m in _SHOWN
                ],
            }
        )
    return out


def worst(facts: pl.DataFrame, most: int) -> list[Row]:
    """The first ``most`` rows of ``schema.FACTS``, the least retained first, as texts."""
    rows = facts.sort("retention", "bits", descending=[False, True], nulls_last=True, maintain_order=True)
    return [
        {
            **{c: row[c] for c in ("after", "file", "line", "kind", "label", "fact", "before", "following", "written")},
            "name": Path(row["file"]).name,
            "bits": words.number(row["bits"], "bits", 0),
            "bits_retained": words.number(row["bits_retained"], "bits", 0),
            "retention": words.number(row["retention"], "fraction", 0),
            "tokens": words.count(row["tokens"], "token"),
            "lost": f"{row['omission_in_place'] * row['tokens']:g}",
            "whole": row["whole"],
            "again": row["again"],
        }
        for row in rows.head(most).iter_rows(named=True)
    ]
