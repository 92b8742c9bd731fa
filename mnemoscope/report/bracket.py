"""bracket.parquet, floors.parquet -> charts: how much of a loss is the memory's for certain, and at most; and what the
best reader of a run wrote back, whoever it was.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import polars as pl

from mnemoscope.config import Decoder, Study
from mnemoscope.report import words
from mnemoscope.report.charts import PALETTE, Chart, Panel, Point, Series, band
from mnemoscope.report.lengths import FLOOR, lines

#: ends of a bar: column, what it is called, its colour; and what lies between, in the numbers only
_ENDS = (
    ("floor", "certainly lost", FLOOR),
    ("ceiling", "not recovered by the best reader", "#0072B2"),
    ("gap", "open, between the two", "#767676"),
)
_NO_CURVE = (
    "No learning curve lies beside it: these decoders were trained elsewhere, or not measured while they learnt. How "
    "much of the upper end more training would take away is not known."
)


def written_back(table: pl.DataFrame) -> pl.DataFrame:
    """What the best reader wrote back in place, as estimates: 1 less the upper end of the bracket.

    Args:
        table: by ``schema.BRACKET``.
    """
    value, low, high = (1 - pl.col(c) for c in ("ceiling", "ceiling_high", "ceiling_low"))
    return table.with_columns(
        value=value, low=low, high=high, metric=pl.lit("written_back"), unit=pl.lit("fraction")
    ).filter(pl.col("value").is_not_nan())


def alone(estimates: pl.DataFrame, decoder: str, length: int) -> dict[str, Any] | None:
    """The same of one decoder of the study, by its own estimate; None if there is none."""
    key = {"by": "all", "seed": "all", "condition": "memory", "metric": "omission_in_place"}
    found = estimates.filter(pl.col("value").is_not_nan(), **key, decoder=decoder, length=length)
    row = next(found.head(1).iter_rows(named=True), None)
    return row and row | {"value": 1 - row["value"], "low": 1 - row["high"], "high": 1 - row["low"]}


def readers(chosen: str, study: Study) -> list[str]:
    """Who is meant by the column ``decoders``, in words: ``‘beam:4’ with the decoder growing``.

    Args:
        chosen: ``NAME/seed-N, NAME/seed-N``.
    """
    of = {d.name: d for d in study.decoders}
    names = [part.rpartition("/seed-")[0] for part in chosen.split(", ")]
    return list(dict.fromkeys(named(of[name]) for name in names))


def named(decoder: Decoder) -> str:
    """A reader in words: its search and the decoder that has the weights."""
    whose = the(decoder.of or decoder.name)
    return whose if decoder.search == "greedy" else f"‘{words.clipped(decoder.searches(), 80)}’ with {whose}"


def the(decoder: str) -> str:
    return "the decoder" if decoder == "decoder" else f"the decoder {words.clipped(decoder, 80)}"


def of_bracket(table: pl.DataFrame, floors: pl.DataFrame | None, curves: bool) -> list[Chart]:
    """The bracket of each length, that of each class at each length, and the floors at other precisions.

    Args:
        table: by ``schema.BRACKET``.
        floors: by ``schema.ESTIMATES``, of the certificate alone, if there are any.
        curves: whether the page shows how the decoders learnt.
    """
    confidence = band(table)
    whole = table.filter(by="all").sort("length", descending=True)
    precision = whole["precision"][0]
    names = [words.count(n, "token") for n in whole["length"]]
    caption = (
        f"Each bar begins at the tokens that are certainly lost (another token there leaves the same memory at "
        f"{precision}) and ends at those that the best reader did not write back in place. What the memory forgot "
        "lies on the bar: its length is what nobody knows. A reader is a decoder by one of its searches; the one shown "
        f"is the best of those measured on the other half of the documents: {_chosen(whole)}."
    )
    guessed = whole["guessed"].max()
    if isinstance(guessed, float) and guessed > 0:
        caption += (
            f" Up to {words.number(guessed, 'fraction')} of the tokens were certainly lost and guessed: not recovered."
        )
    charts = [
        Chart(
            "bracket",
            "Whose loss is it: the bracket",
            caption,
            "bars",
            "",
            [_panel("share of the tokens", "bracket", whole, names, "")],
            confidence,
            aside="" if curves else _NO_CURVE,
        )
    ]
    panels = [
        _panel(f"by {by.replace('_', ' ')}", f"bracket-{by}", rows, rows["group"], f"{length} tokens")
        for length in table["length"].unique().sort()
        for by in dict.fromkeys(table.filter(pl.col("by") != "all")["by"])
        if (rows := _sorted(table.filter(length=length, by=by), by)).height
    ]
    if panels:
        about = (
            "As above, of each class of token and each kind of text; the widest loss below. Position 0 was read first."
        )
        charts.append(Chart("bracket-classes", "The bracket of every class", about, "bars", "", panels, confidence))
    if floors is not None and floors.filter(by="all").height:
        charts.append(_floors(floors.filter(by="all")))
    return charts


def _chosen(whole: pl.DataFrame) -> str:
    return "; ".join(f"at {row['length']:,} {row['decoders']}" for row in whole.reverse().iter_rows(named=True))


def _sorted(rows: pl.DataFrame, by: str) -> pl.DataFrame:
    """From below: the last position, or the class with the highest ceiling."""
    if by == "position":
        first = pl.col("group").str.split("-").list.first().cast(pl.Int64)
        return rows.sort(first, descending=True)
    return rows.sort("ceiling", "group", descending=[True, False])


def _panel(title: str, scale: str, rows: pl.DataFrame, names: Iterable[str], tab: str) -> Panel:
    named = list(names)
    found = []
    for end, label, colour in _ENDS:
        points = [
            Point(name, row[end], row[f"{end}_low"], row[f"{end}_high"], _counted(row, end))
            for name, row in zip(named, rows.iter_rows(named=True), strict=True)
            if math.isfinite(row[end])
        ]
        found.append(Series(label, colour, points))
    return Panel(title, scale, "fraction", found, tab)


def _counted(row: dict[str, Any], end: str) -> str:
    n = row["n_certified"] if end == "floor" else row["n_tokens"]
    return f"{words.count(n, 'token')}, {words.count(row['n_documents'], 'document')}"


def _floors(floors: pl.DataFrame) -> Chart:
    panels = []
    for metric in ("certainly_lost", "lost_to_noise"):
        rows = floors.filter(metric=metric)
        labels = rows["condition"].unique(maintain_order=True).to_list()
        if labels:
            colour = {label: PALETTE[i % len(PALETTE)] for i, label in enumerate(labels)}
            panels.append(Panel(words.name(metric), metric, "fraction", lines(rows, "condition", labels, colour)))
    caption = (
        "Left, by equality: tokens with a substitute that leaves the same memory, were it stored at each precision. "
        "Right, another thing, under an assumption: were Gaussian noise of s standard deviations added to every "
        "number, whoever tells a token from its nearest substitute errs so often, both errors added; a coin toss "
        "is 100\u202f%."
    )
    lengths = sorted({float(p.x) for panel in panels for s in panel.series for p in s.points})
    title = "What is lost for certain, by how the memory is kept"
    return Chart("floors", title, caption, "lines", "window length, tokens", panels, band(floors), tuple(lengths))
