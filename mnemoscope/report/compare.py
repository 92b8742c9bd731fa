"""Runs compared -> one self-contained page, readable without a network.

The template escapes every text that comes from the runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mnemoscope.report import words
from mnemoscope.report.templates import render
from mnemoscope.rundir import command, write_atomically
from mnemoscope.stats.runs import Comparison, Side

Row = dict[str, Any]

#: width of a drawn interval, in the units of its view box
_WIDTH = 200.0


def write(found: Comparison, out: Path) -> Path:
    """Writes ``compare.html`` into the folder ``out``, atomically, and returns its path."""
    page = out / "compare.html"
    write_atomically(page, _render(found))
    return page


def _render(found: Comparison) -> str:
    rows = shown(found)
    return render(
        "compare.html",
        base=found.sides[0],
        others=found.sides[1:],
        headlines=[headline(found, other) for other in found.sides[1:]],
        notes=found.notes,
        sections=[(by, [r for r in rows if r["by"] == by]) for by in dict.fromkeys(r["by"] for r in rows)],
        metrics={r["metric"]: r["measure"] for r in rows},
        lengths=sorted({r["length"] for r in rows}),
        confidence=f"{100 * rows[0]['confidence']:g}" if rows else "",
        sides=[_origin(side) for side in found.sides],
        command=command(),
    )


def headline(found: Comparison, other: Side) -> Row:
    """What became of the whole text, at the longest length, in one sentence of parts: ``before``, ``value``, ``after``,
    ``interval``, ``n``; of information kept, or of what is lost where no run was measured without memory."""
    table = found.table.filter(run=other.name, by="all").sort("length", descending=True)
    base = found.sides[0].name
    for metric in ("retention", "omission_in_place", "omission_of_characters"):
        for row in table.filter(metric=metric).head(1).iter_rows(named=True):
            what = "the information" if metric == "retention" else words.units(metric) + "s"
            before = f"Of {words.count(row['length'], 'token')}, {other.name}’s memory"
            verb = "keeps" if metric == "retention" else "loses"
            sign = "more" if row["value"] > 0 else "less"
            seen = verdict(row) != ""
            said = {
                "before": f"{before} {verb}",
                "value": f"{points(abs(row['value']), 'fraction').lstrip('+')} points {sign}" if seen else "as much",
                "after": f"of {what} {'than' if seen else 'as'} {base}’s"
                + ("" if seen else ", as far as one can tell"),
            }
            return said | {"interval": _interval(row), "n": words.counted(row)}
    return {"before": f"{other.name} and {base}", "value": "", "after": "", "interval": "", "n": ""}


def shown(found: Comparison) -> list[Row]:
    """The rows of the comparison as texts, with their verdicts and drawn intervals; whole text first, then class by
    class, the worst first."""
    table = found.table
    span: dict[str, float] = {}
    for row in table.iter_rows(named=True):
        ends = [abs(row[c]) for c in ("value", "low", "high") if math.isfinite(row[c])]
        span[row["metric"]] = max([span.get(row["metric"], 1e-9), *ends])
    return [
        texts(row) | {"drawn": _drawn(row, span[row["metric"]])}
        for row in sorted(table.iter_rows(named=True), key=_order(table["by"], table["metric"]))
    ]


def _order(by: Iterable[str], metrics: Iterable[str]) -> Any:
    place, measure = ({name: i for i, name in enumerate(dict.fromkeys(names))} for names in (by, metrics))

    def order(row: Row) -> tuple[Any, ...]:
        loss = row["value"] if row["direction"] == "lost" else -row["value"]
        worst = math.inf if math.isnan(loss) else -loss
        return (
            row["by"] != "all",
            place[row["by"]],
            row["run"],
            measure[row["metric"]],
            row["length"],
            worst,
            row["group"],
        )

    return order


def texts(row: Row) -> Row:
    """A row of ``schema.COMPARE`` as texts, with its verdict."""
    unit = row["unit"]
    return {
        **{c: row[c] for c in ("run", "metric", "length", "by", "group", "confidence", "n_documents")},
        "measure": words.name(row["metric"]),
        "base_value": words.number(row["base_value"], unit),
        "run_value": words.number(row["run_value"], unit),
        "value": points(row["value"], unit),
        "interval": _interval(row),
        "p": words.p_value(row["p_adjusted"]),
        "n": words.counted(row),
        "verdict": verdict(row),
    }


def points(value: float, unit: str) -> str:
    """A difference: percentage points of a fraction, else in its unit; a sign wherever it is not 0."""
    text = words.number(value, unit).removesuffix(words.PERCENT)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def verdict(row: Row) -> str:
    """``worse`` or ``better`` where the family's p says that there is a difference; else empty."""
    if not row["p_adjusted"] < 1 - row["confidence"]:
        return ""
    return "better" if (row["value"] > 0) == (row["direction"] == "kept") else "worse"


def _interval(row: Row) -> str:
    if math.isnan(row["low"]):
        return row["method"].removeprefix("none: ")
    return f"{points(row['low'], row['unit'])} to {points(row['high'], row['unit'])}"


def _drawn(row: Row, span: float) -> Row | None:
    """Where value and ends lie in a view box of ``_WIDTH``, 0 in its middle; None without an interval."""
    if math.isnan(row["low"]):
        return None
    return {c: round(_WIDTH / 2 * (1 + 0.94 * row[c] / span), 1) for c in ("low", "value", "high")}


def _origin(side: Side) -> Row:
    manifest = side.run.manifest
    measured = manifest["stages"].get("reconstruct", {})
    about = next(d for d in side.run.study.decoders if d.name == side.decoder)
    return {
        "name": side.name,
        "folder": str(side.run.path),
        "study": side.run.study.name,
        "model": side.model,
        "decoder": f"{side.decoder} ({about.recipe}), {words.count(len(about.seeds), 'seed')}",
        "digest": side.run.study.digest()[:12],
        "revision": measured.get("revision", "") or "–",
    }
