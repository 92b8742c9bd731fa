"""Tables -> charts: what each figure shows, not yet drawn (:mod:`mnemoscope.report.figures` draws).

    chart = panels, some of them on tabs;  panel = series;  series = points with interval and n

Paper and page draw the same charts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from mnemoscope.report import words

#: colours by what a series is (Okabe & Ito 2008: told apart with any colour vision), the rest in order
ROLES = {"memory": "#0072B2", "wrong": "#D55E00", "none": "#767676"}
OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#117733", "#882255")
_SHOWN = ("retention", "omission_in_place")
#: points of a learning curve
_CURVE_POINTS = 80


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
    """

    title: str
    scale: str
    unit: str
    series: list[Series]
    tab: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """One figure.

    Attributes:
        name: its file name, and its anchor on the page.
        kind: ``lines`` (x is a number, the interval a band) or ``dots`` (x is a category, the interval a bar).
        ticks: the values of x that get a tick, on a log scale; empty for a plain scale.
        band: what the interval is.
    """

    name: str
    title: str
    caption: str
    kind: Literal["lines", "dots"]
    x_label: str
    panels: list[Panel]
    band: str
    ticks: tuple[float, ...] = ()

    @property
    def tabs(self) -> list[str]:
        return list(dict.fromkeys(p.tab for p in self.panels))


def of_run(estimates: pl.DataFrame, curves: pl.DataFrame | None, decoders: list[str]) -> list[Chart]:
    """Every chart that the tables can fill, in the order of the page.

    Args:
        estimates: by ``schema.ESTIMATES``.
        curves: by ``schema.CURVES``, if there are any.
        decoders: the decoders in the study's order; where a chart shows one, it is the first.
    """
    pooled = estimates.filter(pl.col("seed") == "all")
    present = [d for d in decoders if d in pooled["decoder"]]
    if not present:
        return []
    everything = pooled.filter(pl.col("by") == "all")
    first = pooled.filter(pl.col("decoder") == present[0])
    charts = [
        _against_length("retention", "What is kept, by length", ("retention",), everything, present),
        _against_length(
            "omission", "What is lost, by length", ("omission_in_place", "omission_anywhere"), everything, present
        ),
        _decoders(everything, present),
        *(_by_group(by, first) for by in _groupings(first)),
        None if curves is None else _learning(curves, present),
    ]
    return [c for c in charts if c is not None and c.panels]


def _groupings(estimates: pl.DataFrame) -> list[str]:
    """domain and position first, then the others by name."""
    found = set(estimates["by"]) - {"all"}
    return [b for b in ("domain", "position") if b in found] + sorted(found - {"domain", "position"})


def _conditions(estimates: pl.DataFrame) -> list[str]:
    found = set(estimates["condition"])
    return [c for c in ROLES if c in found] + sorted(found - set(ROLES))


def _on_one_axis(metric: str, estimates: pl.DataFrame) -> list[str]:
    """The conditions to draw: a wrong memory misleads by more than a right one tells, and would hide what is kept."""
    return [c for c in _conditions(estimates) if (metric, c) != ("retention", "wrong")]


def _colours(labels: list[str]) -> dict[str, str]:
    others = iter(OTHERS * (1 + len(labels) // len(OTHERS)))
    return {label: ROLES.get(label) or next(others) for label in labels}


def _band(estimates: pl.DataFrame) -> str:
    confidence = estimates["confidence"].first()
    return f"{100 * confidence:g}\u202f% interval, documents resampled" if isinstance(confidence, float) else ""


def _series(rows: pl.DataFrame, label: str, colour: str, x: Iterable[float | str]) -> Series:
    """The rows, in their order, at ``x``."""
    points = [
        Point(at, r["value"], r["low"], r["high"], words.counted(r))
        for at, r in zip(x, rows.iter_rows(named=True), strict=True)
    ]
    return Series(label, colour, points)


def _against_length(
    name: str, title: str, metrics: tuple[str, ...], estimates: pl.DataFrame, decoders: list[str]
) -> Chart:
    colours = _colours(_conditions(estimates))
    panels = []
    for decoder in decoders:
        for metric in metrics:
            rows = estimates.filter(pl.col("metric") == metric, pl.col("decoder") == decoder).sort("length")
            if rows.is_empty():
                continue
            of = f", decoder {decoder}" if len(decoders) > 1 else ""
            lines = []
            for condition in _on_one_axis(metric, rows):
                some = rows.filter(pl.col("condition") == condition)
                lines.append(_series(some, condition, colours[condition], some["length"].to_list()))
            panels.append(Panel(words.name(metric) + of, name, rows["unit"][0], lines))
    lengths = tuple(float(x) for x in estimates["length"].unique().sort())
    caption = {
        "retention": "Share of the information in the window that the memory gave back to its decoder. "
        "How far a wrong memory misleads is in the table above.",
        "omission": "Share of the window’s tokens that the reconstruction lacks: from their place (in order), or "
        "anywhere in it. The line ‘none’ is what guessing loses.",
    }[name]
    return Chart(name, title, caption, "lines", "window length, tokens", panels, _band(estimates), lengths)


def _decoders(estimates: pl.DataFrame, decoders: list[str]) -> Chart | None:
    """The decoders side by side, under the real memory."""
    if len(decoders) < 2:
        return None
    colours = dict(zip(decoders, ("#0072B2", *OTHERS), strict=False))
    panels = []
    for metric in _SHOWN:
        rows = estimates.filter(pl.col("metric") == metric, pl.col("condition") == "memory").sort("length")
        lines = []
        for decoder in decoders:
            some = rows.filter(pl.col("decoder") == decoder)
            if some.height:
                lines.append(_series(some, decoder, colours.get(decoder, "#767676"), some["length"].to_list()))
        if lines:
            panels.append(Panel(words.name(metric), metric, rows["unit"][0], lines))
    lengths = tuple(float(x) for x in estimates["length"].unique().sort())
    return Chart(
        "decoders",
        "One memory, read by several decoders",
        "The same windows and the same memories. What one decoder reads and another does not was in the memory.",
        "lines",
        "window length, tokens",
        panels,
        _band(estimates),
        lengths,
    )


def _by_group(by: str, estimates: pl.DataFrame) -> Chart:
    rows = estimates.filter(pl.col("by") == by)
    colours = _colours(_conditions(rows))
    panels = []
    for length in rows["length"].unique().sort():
        at_length = rows.filter(pl.col("length") == length)
        groups = _ordered_groups(at_length, by)
        for metric in _SHOWN:
            some = at_length.filter(pl.col("metric") == metric)
            drawn = []
            for condition in _on_one_axis(metric, some):
                mine = some.filter(pl.col("condition") == condition)
                if by == "position":
                    ends = [[int(p) for p in g.split("-")] for g in mine["group"]]
                    order = np.argsort([lo for lo, _ in ends])
                    x: list[float | str] = [sum(ends[i]) / 2 for i in order]
                    mine = mine[order]
                else:
                    x = [g for g in groups if g in set(mine["group"])]
                    mine = mine.sort(pl.col("group").replace_strict(groups, range(len(groups))))
                drawn.append(_series(mine, condition, colours[condition], x))
            if drawn:
                panels.append(Panel(words.name(metric), metric, some["unit"][0], drawn, f"{length} tokens"))
    if by == "position":
        title, caption = "By place in the window", "Position 0 was read first, and had most to survive."
    else:
        title, caption = f"By {by.replace('_', ' ')}", "Sorted by what the memory keeps, the worst kept below."
    caption += " How far a wrong memory misleads is listed under Every estimate."
    kind: Literal["lines", "dots"] = "lines" if by == "position" else "dots"
    return Chart(
        f"by-{by}", title, caption, kind, "position in the window" if by == "position" else "", panels, _band(rows)
    )


def _ordered_groups(rows: pl.DataFrame, by: str) -> list[str]:
    """The groups, the worst kept first; by name where nothing says what is kept."""
    if by == "position":
        return []
    for metric, sign in (("retention", 1), ("omission_in_place", -1)):
        some = rows.filter(pl.col("metric") == metric, pl.col("condition") == "memory")
        if some.height:
            kept = {g: sign * v for g, v in some.select("group", "value").rows()}
            return sorted(set(rows["group"]), key=lambda g: (np.nan_to_num(kept.get(g, np.inf), nan=np.inf), g))
    return sorted(set(rows["group"]))


def of_effects(effects: pl.DataFrame) -> list[Chart]:
    """A chart for each ``by``: every group with the base, as it is, with controls held constant, and as published.

    Args:
        effects: by ``schema.EFFECTS``.
    """
    labels = {"plain": "as it is", "adjusted": "controls held constant", "paper": "as published"}
    colours = dict(zip(labels, ("#767676", "#0072B2", "#D55E00"), strict=True))
    charts = []
    for by in map(str, dict.fromkeys(effects["by"])):
        rows = effects.filter(by=by, condition="memory").filter(pl.col("kind").is_in(list(labels)))
        rows = rows.filter(pl.col("decoder") == rows["decoder"].first(), pl.col("value").is_not_nan())
        # each kind has the same base: the one that the study names, or the largest group
        base = str(rows.filter(kind="plain").group_by("base").len().sort("len", "base")["base"].last())
        panels = []
        for (length, metric), cell in _panels(rows.filter(base=base)):
            drawn = []
            for kind, label in labels.items():
                some = cell.filter(kind=kind).sort("value", "group")
                if some.height:
                    drawn.append(_series(some, label, colours[kind], some["group"].to_list()))
            panels.append(Panel(f"{words.name(metric)}, less that of {base}", metric, cell["unit"][0], drawn, length))
        controls = effects.filter(by=by, kind="adjusted")["controls"]
        held = f" Held constant: {controls[0]}, and the length." if len(controls) else ""
        caption = f"Each group less {base}; 0 is no difference.{held}"
        title = f"Differences by {str(by).replace('_', ' ')}"
        charts.append(Chart("effects-" + by, title, caption, "dots", "", panels, _band(effects)))
    return [c for c in charts if c.panels]


def _panels(rows: pl.DataFrame) -> Iterable[tuple[tuple[str, str], pl.DataFrame]]:
    """(length in words, metric) -> rows; the published omission lies beside our own from their place."""
    shown = rows.with_columns(metric=pl.col("metric").replace("omission_published", "omission_in_place"))
    for (length, metric), cell in shown.group_by("length", "metric", maintain_order=True):
        yield (f"{length} tokens", str(metric)), cell


def _learning(curves: pl.DataFrame, decoders: list[str]) -> Chart:
    """Loss against tokens seen; a tab per length, a panel per decoder, a line per condition."""
    rows = curves.filter(pl.col("decoder").is_in(decoders))
    colours = _colours(_conditions(rows))
    panels = []
    for length in rows["length"].unique().sort():
        for decoder in decoders:
            here = rows.filter(pl.col("length") == length, pl.col("decoder") == decoder)
            lines = [Series(c, colours[c], _smoothed(here.filter(pl.col("condition") == c))) for c in _conditions(here)]
            if lines:
                title = "loss, nats per token" + (f", decoder {decoder}" if len(decoders) > 1 else "")
                panels.append(Panel(title, "loss", "nats/token", lines, f"{length} tokens"))
    return Chart(
        "learning",
        "Learning curves",
        "Loss of each decoder while it trained. A curve that still falls belongs to a decoder that could read more.",
        "lines",
        "window tokens seen in training",
        panels,
        "range of steps and seeds",
    )


def _smoothed(rows: pl.DataFrame) -> list[Point]:
    """Means of up to ``_CURVE_POINTS`` stretches of equal numbers of tokens, with the least and greatest step."""
    last = max(int(rows["tokens"].max() or 1), 1)  # type: ignore[arg-type]
    stretch = (pl.col("tokens") * _CURVE_POINTS - 1) // last
    found = (
        rows.filter(pl.col("nats").is_finite())
        .group_by(stretch.alias("stretch"))
        .agg(
            pl.col("tokens").mean(),
            pl.col("nats").cast(pl.Float64).mean(),
            pl.col("nats").min().alias("low"),
            pl.col("nats").max().alias("high"),
            pl.len().alias("steps"),
        )
        .sort("stretch")
    )
    return [
        Point(r["tokens"], r["nats"], r["low"], r["high"], words.count(r["steps"], "step"))
        for r in found.iter_rows(named=True)
    ]


def rows(chart: Chart) -> list[dict[str, Any]]:
    """The chart as a table: every point with its interval and n."""
    return [
        {
            "tab": panel.tab,
            "panel": panel.title,
            "series": series.label,
            "x": f"{p.x:,.10g}" if isinstance(p.x, float | int) else p.x,
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
