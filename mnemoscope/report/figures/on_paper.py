"""Charts for paper, with matplotlib."""

from __future__ import annotations

import io
import unicodedata
from itertools import zip_longest
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mnemoscope.report.charts import Chart, Panel
from mnemoscope.report.figures import _drawn

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
        return 3.2 if len(panel.series) > _drawn.MANY else 2.4
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
        low, high = ([_drawn.scaled(panel, getattr(p, end)) for p in series.points] for end in ("low", "high"))
        axes.fill_between(x, low, high, color=series.colour, alpha=_drawn.BAND, linewidth=0)
        marker = _drawn.marker_of(i)[0] if len(x) <= 20 else None
        y = [_drawn.scaled(panel, p.value) for p in series.points]
        axes.plot(x, y, _drawn.dash_of(i)[0], color=series.colour, marker=marker, markersize=4, linewidth=1.4)
    bottom, top = _drawn.limits_of(chart, panel)
    axes.set_ylim(bottom, top)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names)
    elif _drawn.is_logarithmic(chart, panel):
        axes.set_xscale("log")
        axes.set_xticks(chart.ticks, [f"{t:g}" for t in chart.ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(min(chart.ticks) / 1.2, max(chart.ticks) * 1.2)
    ends = _drawn.line_ends(panel)
    values = [_drawn.scaled(panel, p.value) for _, p in ends]
    many = len(ends) > _drawn.MANY
    axes_end = max((p.x for _, p in ends), default=0)
    places = _drawn.spread_out(values, (0.06 if many else 0.075) * (top - bottom), bottom, top)
    for (series, point), value, at in zip(ends, values, places, strict=True):
        # lines that end early have their labels with the others
        moved = many and (abs(at - value) > 0.03 * (top - bottom) or point.x != axes_end)
        axes.annotate(
            _literal(_drawn.shortened(series.label, _drawn.LABEL)),
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
    barred, shown = chart.kind == "bars", _drawn.shown_series(chart, panel)
    for name, begin, end in _drawn.bar_spans(panel) if barred else []:
        colour = shown[1].colour
        axes.barh(categories.index(name), end - begin, 0.5, begin, color=colour, alpha=2 * _drawn.BAND, linewidth=0)
    for i, series in enumerate(shown):
        dodge = 0 if barred else 0.22 * ((len(shown) - 1) / 2 - i)
        y = [categories.index(str(p.x)) + dodge for p in series.points]
        x = [_drawn.scaled(panel, p.value) for p in series.points]
        low, high = ([_drawn.scaled(panel, getattr(p, end)) for p in series.points] for end in ("low", "high"))
        axes.hlines(y, low, high, color=series.colour, linewidth=1.4)
        marker = _drawn.marker_of(i)[0]
        axes.plot(
            x, y, color=series.colour, marker=marker, markersize=4.5, linestyle="none", label=_literal(series.label)
        )
    axes.set_yticks(range(len(categories)), [_literal(_drawn.shortened(c)) for c in categories])
    axes.set_ylim(-0.6, len(categories) - 0.4)
    axes.set_xlim(_drawn.limits_of(chart, panel))
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
