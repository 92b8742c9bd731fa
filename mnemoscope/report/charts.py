"""What a figure shows, not yet drawn (:mod:`mnemoscope.report.figures` draws).

    chart = panels, some of them on tabs;  panel = series;  series = points with interval and n

Paper and page draw the same charts; :mod:`mnemoscope.report.catalogue` says which there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import polars as pl

from mnemoscope.report import words

#: colours by what a series is (Okabe & Ito 2008: told apart with any colour vision), the rest in order
ROLES = {"memory": "#0072B2", "wrong": "#D55E00", "none": "#767676"}
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#117733", "#882255")
#: where no line has a role
PALETTE = ("#0072B2", "#D55E00", *OTHERS, "#767676")
#: what a chart of groups shows
SHOWN = ("retention", "omission_in_place")


@dataclass(frozen=True, slots=True)
class Point:
    """x: a number, or the name of a category.  low and high may be NaN.  note: n, in words."""

    x: float | str
    value: float
    low: float
    high: float
    note: str


@dataclass(frozen=True, slots=True)
class Series:
    label: str
    colour: str
    points: list[Point]


@dataclass(frozen=True, slots=True)
class Panel:
    """Attributes:
    scale: panels of a chart that name the same one have the same axis of values.
    unit: of the values; fractions are shown in percent.
    tab: the tab it lies on, e.g. a length; empty if the chart has none.
    x_label: of this panel, where it is not the chart's.
    names: of lines over bins, what x = 0, 1, ... are called.
    """

    title: str
    scale: str
    unit: str
    series: list[Series]
    tab: str = ""
    x_label: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure.

    Attributes:
        name: its file name, and its anchor on the page.
        kind: ``lines`` (x is a number, the interval a band), ``dots`` (x is a category, the interval a bar), or
            ``bars`` (x is a category, with a bar from the first series to the second; more are in the numbers only).
        band: what the interval is.
        ticks: the values of x that get a tick, on a log scale; empty for a plain scale.
        aside: what the page says beside the caption, about itself.
    """

    name: str
    title: str
    caption: str
    kind: Literal["lines", "dots", "bars"]
    x_label: str
    panels: list[Panel]
    band: str
    ticks: tuple[float, ...] = ()
    aside: str = ""

    @property
    def intervals(self) -> str:
        """What is shaded or barred, and the n behind it, as a sentence; empty if there is no interval."""
        points = [p for panel in self.panels for s in panel.series for p in s.points if p.low == p.low]
        return f"Shaded or barred: {self.band}; n of a point: {words.spans(p.note for p in points)}." if points else ""

    @property
    def tabs(self) -> list[str]:
        return list(dict.fromkeys(p.tab for p in self.panels))


def conditions(estimates: pl.DataFrame) -> list[str]:
    found = set(estimates["condition"])
    return [c for c in ROLES if c in found] + sorted(found - set(ROLES))


def colours(labels: Iterable[str]) -> dict[str, str]:
    """By role, the others in order."""
    others = cycle(OTHERS)
    return {label: ROLES.get(label) or next(others) for label in labels}


def band(estimates: pl.DataFrame) -> str:
    """What the intervals are, in words."""
    confidence = estimates["confidence"].first()
    if not isinstance(confidence, float):
        return ""
    seeds = "method" in estimates.columns and estimates["method"].str.contains("decoder seeds").any()
    level = ", decoder seeds as a second level" if seeds else ""
    return f"{100 * confidence:g}\u202f% interval, documents resampled{level}"


def series(rows: pl.DataFrame, label: str, colour: str, x: Iterable[float | str]) -> Series:
    """The rows, in their order, at ``x``."""
    points = [
        Point(at, r["value"], r["low"], r["high"], words.counted(r))
        for at, r in zip(x, rows.iter_rows(named=True), strict=True)
    ]
    return Series(label, colour, points)


def rows(chart: Chart) -> list[dict[str, Any]]:
    """The chart as a table: every point with its interval and n."""
    return [
        {
            "tab": panel.tab,
            "panel": panel.title,
            "series": series.label,
            "x": named(panel, p.x),
            "value": words.number(p.value, panel.unit),
            "interval": "–"
            if p.low != p.low
            else f"{words.number(p.low, panel.unit)} to {words.number(p.high, panel.unit)}",
            "note": p.note,
        }
        for panel in chart.panels
        for series in panel.series
        for p in series.points
    ]


def data(chart: Chart) -> dict[str, Any]:
    """The chart as raw numbers, a row per point: ``{"columns": [...], "rows": [[...], ...]}``; NaN is None."""
    columns = ["at", "measure", "unit", "series", chart.x_label or "group", "value", "low", "high", "interval", "n"]

    def plain(number: float) -> float | None:
        return float(f"{number:.6g}") if math.isfinite(number) else None

    rows = [
        [
            *(panel.tab, panel.title, panel.unit, series.label),
            p.x if isinstance(p.x, float | int) and not panel.names else named(panel, p.x),
            *(plain(p.value), plain(p.low), plain(p.high), chart.band, p.note),
        ]
        for panel in chart.panels
        for series in panel.series
        for p in series.points
    ]
    return {"columns": columns, "rows": rows}


def named(panel: Panel, x: float | str) -> str:
    """A place on the panel's axis, in words."""
    if panel.names:
        return panel.names[int(x)]
    return f"{x:,.10g}" if isinstance(x, float | int) else x
