"""Charts -> figures: matplotlib for paper, plotly for the page.  Pure functions; nothing is read, written or global.

Both label lines at their ends instead of in a legend, and tell series apart by marker as well as by colour.
"""

from __future__ import annotations

import io
import math
from typing import Any

import matplotlib
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mnemoscope.report import words
from mnemoscope.report.charts import Chart, Panel, Point, Series

#: (matplotlib, plotly)
_MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("X", "x"),
)
_HEIGHT = 300  # pixels of a panel on the page
_ROW = 30  # pixels of a category of a dot plot
_BAND = 0.16  # opacity


def _limits(chart: Chart, panel: Panel) -> tuple[float, float]:
    """The span of all values and intervals on the panel's scale, as shown, with some air; 0 is in it."""
    points = [p for other in chart.panels if other.scale == panel.scale for s in other.series for p in s.points]
    numbers = [_scaled(panel, n) for p in points for n in (p.value, p.low, p.high) if math.isfinite(n)]
    low, high = min([0.0, *numbers]), max([0.0, *numbers])
    air = 0.06 * (high - low or 1)
    return low - (air if low < 0 else 0), high + air


def _scaled(panel: Panel, value: float) -> float:
    return 100 * value if panel.unit == "fraction" else value


def _spread(ends: list[float], gap: float) -> list[float]:
    """``ends`` moved apart to be at least ``gap`` from each other, keeping their order and their middle."""
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    placed: list[list[int]] = []  # clusters of indices that touch
    centre: list[float] = []
    for i in order:
        placed.append([i])
        centre.append(ends[i])
        while len(placed) > 1 and centre[-1] - centre[-2] < gap * (len(placed[-1]) + len(placed[-2])) / 2:
            merged = placed[-2] + placed[-1]
            middle = (centre[-2] * len(placed[-2]) + centre[-1] * len(placed[-1])) / len(merged)
            placed[-2:], centre[-2:] = [merged], [middle]
    out = list(ends)
    for cluster, middle in zip(placed, centre, strict=True):
        for k, i in enumerate(cluster):
            out[i] = middle + gap * (k - (len(cluster) - 1) / 2)
    return out


def _short(label: str) -> str:
    return label if len(label) <= 20 else label[:19] + "…"


def _ends(panel: Panel) -> list[tuple[Series, Point]]:
    """Each series that has a finite value, with its last such point."""
    finite = [(s, [p for p in s.points if math.isfinite(p.value)]) for s in panel.series]
    return [(s, points[-1]) for s, points in finite if points]


# ---- page -----------------------------------------------------------------------------------------------------------


def page(chart: Chart, panel: Panel) -> dict[str, Any]:
    """One panel as plotly's JSON: ``{"data": [...], "layout": {...}}``; NaN is null.

    Colours are those of the light page; the page's script exchanges them for the dark one's.
    """
    figure = go.Figure(
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"size": 13},
            "hoverlabel": {"font": {"size": 13}, "align": "left"},
            "showlegend": False,
        }
    )
    (_plotly_lines if chart.kind == "lines" else _plotly_dots)(figure, chart, panel)
    result: dict[str, Any] = _plain(figure.to_plotly_json())
    return result


def _plain(value: Any) -> Any:
    """Without NaN, which JSON has not, and without plotly's own types."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _escaped(text: str) -> str:
    """For plotly's labels, which read some HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _hover(panel: Panel, series: Series, point: Point, band: str) -> str:
    value = words.number(point.value, panel.unit)
    ends = "no interval"
    if math.isfinite(point.low):
        ends = f"{words.number(point.low, panel.unit)} to {words.number(point.high, panel.unit)}"
    return f"<b>{_escaped(series.label)}: {value}</b><br>{ends} ({band})<br>n = {point.note}"


def _rgba(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _plotly_lines(figure: go.Figure, chart: Chart, panel: Panel) -> None:
    low, high = _limits(chart, panel)
    for i, series in enumerate(panel.series):
        x = [p.x for p in series.points]
        banded = [p for p in series.points if math.isfinite(p.low)]
        figure.add_scatter(
            x=[p.x for p in banded] + [p.x for p in reversed(banded)],
            y=[_scaled(panel, p.high) for p in banded] + [_scaled(panel, p.low) for p in reversed(banded)],
            fill="toself",
            fillcolor=_rgba(series.colour, _BAND),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=x,
            y=[_scaled(panel, p.value) for p in series.points],
            mode="lines+markers" if len(x) <= 20 else "lines",
            line={"color": series.colour, "width": 2.5},
            marker={"symbol": _MARKERS[i % len(_MARKERS)][1], "size": 8, "color": series.colour},
            text=[_hover(panel, series, p, chart.band) for p in series.points],
            hovertemplate="%{text}<extra></extra>",
            name=series.label,
        )
    ends = _ends(panel)
    pixels = (_HEIGHT - 70) / (high - low)
    at = _spread([_scaled(panel, p.value) * pixels for _, p in ends], 16)
    for (series, point), place in zip(ends, at, strict=True):
        figure.add_annotation(
            x=math.log10(float(point.x)) if chart.ticks else point.x,  # annotations take the logarithm
            y=_scaled(panel, point.value),
            yshift=place - _scaled(panel, point.value) * pixels,
            text=_escaped(series.label),
            font={"color": series.colour, "size": 13},
            showarrow=False,
            xanchor="left",
            xshift=8,
        )
    longest = max((len(s.label) for s, _ in ends), default=0)
    figure.update_layout(height=_HEIGHT, margin={"l": 58, "r": 16 + 8 * longest, "t": 10, "b": 50})
    numbers = [float(p.x) for s in panel.series for p in s.points]
    across = [math.log10(n) for n in numbers] if chart.ticks else numbers
    air = 0.05 * (max(across) - min(across)) or 0.1
    figure.update_xaxes(
        range=[min(across) - air, max(across) + air],  # plotly's own would make room for the labels again
        title={"text": chart.x_label, "standoff": 8, "font": {"size": 13}},
        zeroline=False,
        showgrid=False,
        ticks="outside",
    )
    if chart.ticks:
        figure.update_xaxes(
            type="log", tickvals=list(chart.ticks), ticktext=[f"{t:g}" for t in chart.ticks], minor={"ticks": ""}
        )
    suffix = words.PERCENT if panel.unit == "fraction" else ""
    figure.update_yaxes(range=[low, high], ticksuffix=suffix, zeroline=low < 0, nticks=6)


def _plotly_dots(figure: go.Figure, chart: Chart, panel: Panel) -> None:
    categories = list(dict.fromkeys(str(p.x) for s in panel.series for p in s.points))
    for i, series in enumerate(panel.series):
        points = series.points
        dodge = 0.22 * ((len(panel.series) - 1) / 2 - i)
        figure.add_scatter(
            x=[_scaled(panel, p.value) for p in points],
            y=[categories.index(str(p.x)) + dodge for p in points],
            mode="markers",
            marker={"symbol": _MARKERS[i % len(_MARKERS)][1], "size": 9, "color": series.colour},
            error_x={
                "array": [_scaled(panel, p.high - p.value) for p in points],
                "arrayminus": [_scaled(panel, p.value - p.low) for p in points],
                "color": series.colour,
                "thickness": 2,
                "width": 0,
            },
            text=[f"{_escaped(str(p.x))}<br>{_hover(panel, series, p, 'interval')}" for p in points],
            hovertemplate="%{text}<extra></extra>",
            name=_escaped(series.label),
        )
    longest = max(map(len, categories), default=0)
    figure.update_layout(
        height=_ROW * max(2, len(categories)) + 90,
        margin={"l": min(16 + 9 * longest, 170), "r": 14, "t": 34, "b": 40},
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "xanchor": "left", "traceorder": "normal"},
    )
    suffix = words.PERCENT if panel.unit == "fraction" else ""
    low, high = _limits(chart, panel)
    figure.update_xaxes(range=[low, high], ticksuffix=suffix, zeroline=low < 0, nticks=5)
    ticktext = [_escaped(_short(c)) for c in categories]
    figure.update_yaxes(
        tickvals=list(range(len(categories))),
        ticktext=ticktext,
        range=[-0.6, len(categories) - 0.4],
        showgrid=False,
        zeroline=False,
    )


# ---- paper ----------------------------------------------------------------------------------------------------------

_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "mnemoscope",  # the same chart gives the same file
}


def paper(chart: Chart) -> dict[str, bytes]:
    """The chart as files: ``{"svg": ..., "png": ...}``, a row per tab."""
    with matplotlib.rc_context(_STYLE):
        figure = draw(chart)
        figure.draw_without_rendering()  # lays it out, once for both files
        figure.set_layout_engine("none")
        out = {}
        for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 200})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **options)
            out[kind] = buffer.getvalue()
    return out


def draw(chart: Chart) -> Figure:
    """The chart with matplotlib, on a figure of its own."""
    tabs = chart.tabs
    columns = max(sum(p.tab == t for p in chart.panels) for t in tabs)
    tallest = max((len({p.x for s in panel.series for p in s.points}) for panel in chart.panels), default=1)
    height = 2.4 if chart.kind == "lines" else 0.9 + 0.26 * tallest
    figure = Figure(figsize=(3.6 * columns, height * len(tabs)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(tabs), columns, squeeze=False)
    for row, tab in enumerate(tabs):
        panels = [p for p in chart.panels if p.tab == tab]
        for column in range(columns):
            axes = grid[row, column]
            if column >= len(panels):
                axes.set_axis_off()
                continue
            panel = panels[column]
            (_axes_lines if chart.kind == "lines" else _axes_dots)(axes, chart, panel)
            # a "$" in a name is a "$", not mathematics
            axes.set_title(f"{panel.title}{', ' + tab if tab else ''}".replace("$", r"\$"))
    return figure


def _axes_lines(axes: Axes, chart: Chart, panel: Panel) -> None:
    for i, series in enumerate(panel.series):
        x = [float(p.x) for p in series.points]
        low, high = ([_scaled(panel, getattr(p, end)) for p in series.points] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=series.colour, alpha=_BAND, linewidth=0)
        marker = _MARKERS[i % len(_MARKERS)][0] if len(x) <= 20 else None
        y = [_scaled(panel, p.value) for p in series.points]
        axes.plot(x, y, color=series.colour, marker=marker, markersize=4, linewidth=1.4)
    bottom, top = _limits(chart, panel)
    axes.set_ylim(bottom, top)
    if chart.ticks:
        axes.set_xscale("log")
        axes.set_xticks(chart.ticks, [f"{t:g}" for t in chart.ticks])
        axes.set_xticks([], minor=True)
    ends = _ends(panel)
    for (series, point), at in zip(
        ends, _spread([_scaled(panel, p.value) for _, p in ends], 0.075 * (top - bottom)), strict=True
    ):
        axes.annotate(
            series.label.replace("$", r"\$"),
            (float(point.x), at),
            xytext=(6, 0),
            textcoords="offset points",
            color=series.colour,
            va="center",
            annotation_clip=False,
        )
    _finish(axes, panel, axes.yaxis)
    axes.set_xlabel(chart.x_label)


def _axes_dots(axes: Axes, chart: Chart, panel: Panel) -> None:
    categories = list(dict.fromkeys(str(p.x) for s in panel.series for p in s.points))
    for i, series in enumerate(panel.series):
        dodge = 0.22 * ((len(panel.series) - 1) / 2 - i)
        y = [categories.index(str(p.x)) + dodge for p in series.points]
        x = [_scaled(panel, p.value) for p in series.points]
        low, high = ([_scaled(panel, getattr(p, end)) for p in series.points] for end in ("low", "high"))
        axes.hlines(y, low, high, color=series.colour, linewidth=1.4)
        marker = _MARKERS[i % len(_MARKERS)][0]
        axes.plot(x, y, color=series.colour, marker=marker, markersize=4.5, linestyle="none", label=series.label)
    axes.set_yticks(range(len(categories)), [_short(c).replace("$", r"\$") for c in categories])
    axes.set_ylim(-0.6, len(categories) - 0.4)
    axes.set_xlim(_limits(chart, panel))
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, fontsize=8, loc="best")
    _finish(axes, panel, axes.xaxis)


def _finish(axes: Axes, panel: Panel, value_axis: Any) -> None:
    if panel.unit == "fraction":
        value_axis.set_major_formatter(lambda v, _: f"{v:g} %")
    value_axis.grid(True, linewidth=0.4, alpha=0.4)
    axes.set_axisbelow(True)
