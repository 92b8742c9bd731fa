"""Charts -> figures: matplotlib for paper, plotly for the page.  Pure functions; nothing is read, written or global.

Both label lines at their ends instead of in a legend, and tell series apart by marker as well as by colour.
"""

from __future__ import annotations

import io
import math
import unicodedata
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import matplotlib
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnemoscope.report import words
from mnemoscope.report.charts import PALETTE, Chart, Panel, Point, Series

#: (matplotlib, plotly)
_MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("X", "x"),
)
#: beyond as many series as there are colours, lines are dashed (matplotlib, plotly)
_DASHES = (("-", "solid"), ("--", "dash"), (":", "dot"))
_HEIGHT = 300  # pixels of a panel on the page
_ROW = 30  # pixels of a category of a dot plot
_BAND = 0.16  # opacity
_LABEL = 32  # characters of a line's label
_MANY = 8  # lines, beyond which their labels are small and in one column


def _limits(chart: Chart, panel: Panel) -> tuple[float, float]:
    """The span of all values and intervals on the panel's scale, as shown, with some air; 0 is in it, and 1 % of
    fractions, or all of them where bars are compared."""
    points = [p for other in chart.panels if other.scale == panel.scale for s in _shown(chart, other) for p in s.points]
    numbers = [_scaled(panel, n) for p in points for n in (p.value, p.low, p.high) if math.isfinite(n)]
    least = 100.0 if chart.kind == "bars" else 1.0 if panel.unit == "fraction" else 0.0
    low, high = min([0.0, *numbers]), max([least, *numbers])
    air = 0.06 * (high - low or 1)
    return low - (air if low < 0 else 0), high + air


def _shown(chart: Chart, panel: Panel) -> list[Series]:
    return panel.series[:2] if chart.kind == "bars" else panel.series


def _spans(panel: Panel) -> list[tuple[str, float, float]]:
    """Of a chart of bars: category, begin and end of each whose ends are both known."""
    first, second = ({str(p.x): _scaled(panel, p.value) for p in s.points} for s in panel.series[:2])
    return [(x, first[x], second[x]) for x in second if x in first]


def _scaled(panel: Panel, value: float) -> float:
    return 100 * value if panel.unit == "fraction" else value


def _spread(ends: list[float], gap: float, low: float, high: float) -> list[float]:
    """``ends`` moved apart to be at least ``gap`` from each other and to lie in ``low`` to ``high``, as little as that
    takes, keeping their order; evenly, where they are too many."""
    gap = min(gap, (high - low) / max(len(ends) - 1, 1))
    order = sorted(range(len(ends)), key=lambda i: ends[i])
    placed: list[list[int]] = []  # clusters of indices that touch
    centre: list[float] = []

    def inside(middle: float, count: int) -> float:
        reach = gap * (count - 1) / 2
        return min(max(middle, low + reach), high - reach)

    for i in order:
        placed.append([i])
        centre.append(inside(ends[i], 1))
        while len(placed) > 1 and centre[-1] - centre[-2] < gap * (len(placed[-1]) + len(placed[-2])) / 2 - 1e-9 * gap:
            merged = placed[-2] + placed[-1]
            placed[-2:], centre[-2:] = [merged], [inside(sum(ends[k] for k in merged) / len(merged), len(merged))]
    out = list(ends)
    for cluster, middle in zip(placed, centre, strict=True):
        for k, i in enumerate(cluster):
            out[i] = middle + gap * (k - (len(cluster) - 1) / 2)
    return out


def _marker(i: int) -> tuple[str, str]:
    """Of series ``i``: another one whenever colours repeat."""
    return _MARKERS[(i + i // len(_MARKERS)) % len(_MARKERS)]


def _dash(i: int) -> tuple[str, str]:
    return _DASHES[i // len(PALETTE) % len(_DASHES)]


def _short(label: str, most: int = 20) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def _logarithmic(chart: Chart, panel: Panel) -> bool:
    return bool(chart.ticks) and not panel.x_label


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
            line={"color": series.colour, "width": 2.5, "dash": _dash(i)[1]},
            marker={"symbol": _marker(i)[1], "size": 8, "color": series.colour},
            text=[_hover(panel, series, p, chart.band) for p in series.points],
            hovertemplate="%{text}<extra></extra>",
            name=series.label,
        )
    ends = _ends(panel)
    pixels = (_HEIGHT - 70) / (high - low)
    many = len(ends) > _MANY
    at = _spread([_scaled(panel, p.value) * pixels for _, p in ends], 16, low * pixels, high * pixels)
    for (series, point), place in zip(ends, at, strict=True):
        figure.add_annotation(
            # annotations take the logarithm; of many lines, those that end early have their labels with the others
            x=1 if many else math.log10(float(point.x)) if _logarithmic(chart, panel) else point.x,
            xref="paper" if many else "x",
            y=_scaled(panel, point.value),
            yshift=place - _scaled(panel, point.value) * pixels,
            text=_escaped(_short(series.label, _LABEL)),
            font={"color": series.colour, "size": 13},
            showarrow=False,
            xanchor="left",
            xshift=8,
        )
    longest = max((len(_short(s.label, _LABEL)) for s, _ in ends), default=0)
    figure.update_layout(height=_HEIGHT, margin={"l": 58, "r": 16 + 8 * longest, "t": 10, "b": 50})
    if _logarithmic(chart, panel):
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
    elif _logarithmic(chart, panel):
        figure.update_xaxes(
            type="log", tickvals=list(chart.ticks), ticktext=[f"{t:g}" for t in chart.ticks], minor={"ticks": ""}
        )
    suffix = words.PERCENT if panel.unit == "fraction" else ""
    figure.update_yaxes(range=[low, high], ticksuffix=suffix, zeroline=low < 0, nticks=6)


def _plotly_dots(figure: go.Figure, chart: Chart, panel: Panel) -> None:
    categories = list(dict.fromkeys(str(p.x) for s in reversed(panel.series) for p in s.points))
    barred, shown = chart.kind == "bars", _shown(chart, panel)
    if barred:
        spans = _spans(panel)
        figure.add_bar(
            orientation="h",
            base=[low for _, low, _ in spans],
            x=[high - low for _, low, high in spans],
            y=[categories.index(x) for x, _, _ in spans],
            width=0.5,
            marker={"color": _rgba(shown[1].colour, 2 * _BAND)},
            hoverinfo="skip",
            showlegend=False,
        )
    for i, series in enumerate(shown):
        points = series.points
        dodge = 0 if barred else 0.22 * ((len(shown) - 1) / 2 - i)
        figure.add_scatter(
            x=[_scaled(panel, p.value) for p in points],
            y=[categories.index(str(p.x)) + dodge for p in points],
            mode="markers",
            marker={"symbol": _marker(i)[1], "size": 9, "color": series.colour},
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
    "font.family": "DejaVu Sans",  # which matplotlib brings: the same file everywhere
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.fonttype": "path",
    "svg.hashsalt": "mnemoscope",  # the same chart gives the same file
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
}
#: by kind of file, what it is saved with; nothing that says when
_FILES: dict[str, dict[str, Any]] = {
    "svg": {"metadata": {"Date": None}},
    "pdf": {"metadata": {"CreationDate": None}},
    "png": {"dpi": 200},
}
_LEADER = {"arrowstyle": "-", "linewidth": 0.5, "shrinkA": 1, "shrinkB": 3, "relpos": (0, 0.5)}
_COLUMNS = 2  # panels side by side
_WIDTH = 3.6  # inches of a panel


def paper(chart: Chart, kinds: tuple[str, ...] = ("svg", "png")) -> dict[str, bytes]:
    """The chart as files, of the kinds svg, pdf and png; a row, or several, per tab."""
    with matplotlib.rc_context(_STYLE):
        figure = draw(chart)
        figure.draw_without_rendering()  # lays it out, once for all files
        figure.set_layout_engine(None)
        for axes in figure.axes:  # the layout's last digits depend on where its variables lie in the computer's memory
            left, bottom, width, height = (round(n, 5) for n in axes.get_position().bounds)
            axes.set_position((left, bottom, width, height))
        out = {}
        for kind in kinds:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, **_FILES[kind])
            out[kind] = buffer.getvalue()
    return out


def _literal(text: str) -> str:
    """For matplotlib: a ``$`` is a ``$``, not mathematics, and no control character, which no SVG may hold."""
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text).replace("$", r"\$")


def draw(chart: Chart) -> Figure:
    """The chart with matplotlib, on a figure of its own."""
    rows: list[list[Panel]] = []
    for tab in chart.tabs:
        panels = [p for p in chart.panels if p.tab == tab]
        rows += [panels[i : i + _COLUMNS] for i in range(0, len(panels), _COLUMNS)]
    columns = max(map(len, rows))
    heights = [max(_height(chart, panel) for panel in row) for row in rows]
    figure = Figure(figsize=(_WIDTH * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for i, row in enumerate(rows):
        for axes, panel in zip_longest(grid[i], row):
            if panel is None:
                axes.set_axis_off()
                continue
            (_axes_lines if chart.kind == "lines" else _axes_dots)(axes, chart, panel)
            title = _literal(f"{panel.title}{', ' + panel.tab if panel.tab else ''}")
            axes.set_title("\n".join(wrap(title, 42)))
    if chart.kind != "lines":
        _legend(figure)
    return figure


def _height(chart: Chart, panel: Panel) -> float:
    """In inches."""
    if chart.kind == "lines":
        return 3.2 if len(panel.series) > _MANY else 2.4
    return 0.9 + 0.26 * len({p.x for s in panel.series for p in s.points})


def _legend(figure: Figure) -> None:
    """One for all panels, below them: among the dots it would hide some."""
    found = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=min(len(found), 3),
        frameon=False,
        fontsize=8,
    )


def _axes_lines(axes: Axes, chart: Chart, panel: Panel) -> None:
    for i, series in enumerate(panel.series):
        x = [float(p.x) for p in series.points]
        low, high = ([_scaled(panel, getattr(p, end)) for p in series.points] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=series.colour, alpha=_BAND, linewidth=0)
        marker = _marker(i)[0] if len(x) <= 20 else None
        y = [_scaled(panel, p.value) for p in series.points]
        axes.plot(x, y, _dash(i)[0], color=series.colour, marker=marker, markersize=4, linewidth=1.4)
    bottom, top = _limits(chart, panel)
    axes.set_ylim(bottom, top)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names)
    elif _logarithmic(chart, panel):
        axes.set_xscale("log")
        axes.set_xticks(chart.ticks, [f"{t:g}" for t in chart.ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(min(chart.ticks) / 1.2, max(chart.ticks) * 1.2)
    ends = _ends(panel)
    values = [_scaled(panel, p.value) for _, p in ends]
    many = len(ends) > _MANY
    axes_end = max((p.x for _, p in ends), default=0)
    places = _spread(values, (0.06 if many else 0.075) * (top - bottom), bottom, top)
    for (series, point), value, at in zip(ends, values, places, strict=True):
        # lines that end early have their labels with the others
        moved = many and (abs(at - value) > 0.03 * (top - bottom) or point.x != axes_end)
        axes.annotate(
            _literal(_short(series.label, _LABEL)),
            (float(point.x), value),
            xytext=(1.07, at) if many else (10, at),
            textcoords=("axes fraction" if many else "offset points", "data"),
            color=series.colour,
            fontsize=7 if many else 8,
            va="center",
            annotation_clip=False,
            arrowprops={**_LEADER, "color": series.colour} if moved else None,
        )
    _finish(axes, panel, axes.yaxis)
    axes.set_xlabel(_literal(panel.x_label or chart.x_label))


def _axes_dots(axes: Axes, chart: Chart, panel: Panel) -> None:
    categories = list(dict.fromkeys(str(p.x) for s in reversed(panel.series) for p in s.points))
    barred, shown = chart.kind == "bars", _shown(chart, panel)
    for name, begin, end in _spans(panel) if barred else []:
        colour = shown[1].colour
        axes.barh(categories.index(name), end - begin, 0.5, begin, color=colour, alpha=2 * _BAND, linewidth=0)
    for i, series in enumerate(shown):
        dodge = 0 if barred else 0.22 * ((len(shown) - 1) / 2 - i)
        y = [categories.index(str(p.x)) + dodge for p in series.points]
        x = [_scaled(panel, p.value) for p in series.points]
        low, high = ([_scaled(panel, getattr(p, end)) for p in series.points] for end in ("low", "high"))
        axes.hlines(y, low, high, color=series.colour, linewidth=1.4)
        marker = _marker(i)[0]
        axes.plot(
            x, y, color=series.colour, marker=marker, markersize=4.5, linestyle="none", label=_literal(series.label)
        )
    axes.set_yticks(range(len(categories)), [_literal(_short(c)) for c in categories])
    axes.set_ylim(-0.6, len(categories) - 0.4)
    axes.set_xlim(_limits(chart, panel))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    _finish(axes, panel, axes.xaxis)


def _finish(axes: Axes, panel: Panel, value_axis: Any) -> None:
    suffix = " %" if panel.unit == "fraction" else ""
    value_axis.set_major_formatter(lambda v, _: f"{v:g}{suffix}".replace("-", "−"))
    value_axis.grid(True, linewidth=0.4, alpha=0.4)
    across = value_axis.axis_name == "x"
    low, high = axes.get_xlim() if across else axes.get_ylim()
    if low < 0 < high:
        (axes.axvline if across else axes.axhline)(0, color="#767676", linewidth=0.6, zorder=0.5)
    axes.set_axisbelow(True)
