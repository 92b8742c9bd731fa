"""Charts for the page, with plotly."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from mnemoscope.report import words
from mnemoscope.report.charts import Chart, Panel, Point, Series
from mnemoscope.report.figures import _drawn

_HEIGHT = 300  # pixels of a panel on the page
_ROW = 30  # pixels of a category of a dot plot


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
    low, high = _drawn.limits_of(chart, panel)
    for i, series in enumerate(panel.series):
        x = [p.x for p in series.points]
        banded = [p for p in series.points if math.isfinite(p.low)]
        figure.add_scatter(
            x=[p.x for p in banded] + [p.x for p in reversed(banded)],
            y=[_drawn.scaled(panel, p.high) for p in banded] + [_drawn.scaled(panel, p.low) for p in reversed(banded)],
            fill="toself",
            fillcolor=_rgba(series.colour, _drawn.BAND),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
        figure.add_scatter(
            x=x,
            y=[_drawn.scaled(panel, p.value) for p in series.points],
            mode="lines+markers" if len(x) <= 20 else "lines",
            line={"color": series.colour, "width": 2.5, "dash": _drawn.dash_of(i)[1]},
            marker={"symbol": _drawn.marker_of(i)[1], "size": 8, "color": series.colour},
            text=[_hover(panel, series, p, chart.band) for p in series.points],
            hovertemplate="%{text}<extra></extra>",
            name=series.label,
        )
    ends = _drawn.line_ends(panel)
    pixels = (_HEIGHT - 70) / (high - low)
    many = len(ends) > _drawn.MANY
    at = _drawn.spread_out([_drawn.scaled(panel, p.value) * pixels for _, p in ends], 16, low * pixels, high * pixels)
    for (series, point), place in zip(ends, at, strict=True):
        figure.add_annotation(
            # annotations take the logarithm; of many lines, those that end early have their labels with the others
            x=1 if many else math.log10(float(point.x)) if _drawn.is_logarithmic(chart, panel) else point.x,
            xref="paper" if many else "x",
            y=_drawn.scaled(panel, point.value),
            yshift=place - _drawn.scaled(panel, point.value) * pixels,
            text=_escaped(_drawn.shortened(series.label, _drawn.LABEL)),
            font={"color": series.colour, "size": 13},
            showarrow=False,
            xanchor="left",
            xshift=8,
        )
    longest = max((len(_drawn.shortened(s.label, _drawn.LABEL)) for s, _ in ends), default=0)
    figure.update_layout(height=_HEIGHT, margin={"l": 58, "r": 16 + 8 * longest, "t": 10, "b": 50})
    if _drawn.is_logarithmic(chart, panel):
        across = [math.log10(t) for t in chart.ticks]
    else:
        across = [float(p.x) for s in panel.series for p in s.points]
    air = 0.05 * (max(across) - min(across)) or 0.1
    figure.update_xaxes(
        range=[min(across) - air, max(across) + air],  # plotly's own would make room for the labels again
        title={"text": panel.x_label or chart.x_label, "standoff": 8, "font": {"size": 13}},
        zeroline=False,
        showgrid=False,
        ticks="outside",
    )
    if panel.names:
        figure.update_xaxes(tickvals=list(range(len(panel.names))), ticktext=list(map(_escaped, panel.names)))
    elif _drawn.is_logarithmic(chart, panel):
        figure.update_xaxes(
            type="log", tickvals=list(chart.ticks), ticktext=[f"{t:g}" for t in chart.ticks], minor={"ticks": ""}
        )
    suffix = words.PERCENT if panel.unit == "fraction" else ""
    figure.update_yaxes(range=[low, high], ticksuffix=suffix, zeroline=low < 0, nticks=6)


def _plotly_dots(figure: go.Figure, chart: Chart, panel: Panel) -> None:
    categories = list(dict.fromkeys(str(p.x) for s in reversed(panel.series) for p in s.points))
    barred, shown = chart.kind == "bars", _drawn.shown_series(chart, panel)
    if barred:
        spans = _drawn.bar_spans(panel)
        figure.add_bar(
            orientation="h",
            base=[low for _, low, _ in spans],
            x=[high - low for _, low, high in spans],
            y=[categories.index(x) for x, _, _ in spans],
            width=0.5,
            marker={"color": _rgba(shown[1].colour, 2 * _drawn.BAND)},
            hoverinfo="skip",
            showlegend=False,
        )
    for i, series in enumerate(shown):
        points = series.points
        dodge = 0 if barred else 0.22 * ((len(shown) - 1) / 2 - i)
        figure.add_scatter(
            x=[_drawn.scaled(panel, p.value) for p in points],
            y=[categories.index(str(p.x)) + dodge for p in points],
            mode="markers",
            marker={"symbol": _drawn.marker_of(i)[1], "size": 9, "color": series.colour},
            error_x={
                "array": [_drawn.scaled(panel, p.high - p.value) for p in points],
                "arrayminus": [_drawn.scaled(panel, p.value - p.low) for p in points],
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
    low, high = _drawn.limits_of(chart, panel)
    figure.update_xaxes(range=[low, high], ticksuffix=suffix, zeroline=low < 0, nticks=5)
    ticktext = [_escaped(_drawn.shortened(c)) for c in categories]
    figure.update_yaxes(
        tickvals=list(range(len(categories))),
        ticktext=ticktext,
        range=[-0.6, len(categories) - 0.4],
        showgrid=False,
        zeroline=False,
    )


# ---- paper ----------------------------------------------------------------------------------------------------------
