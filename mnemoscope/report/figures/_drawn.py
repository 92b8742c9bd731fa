"""What a chart looks like whichever way it is drawn: its spans, markers and dashes, and where labels go."""

from __future__ import annotations

import math

from mnemoscope.report.charts import PALETTE, Chart, Panel, Point, Series

#: (matplotlib, plotly)
MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("D", "diamond"),
    ("^", "triangle-up"),
    ("v", "triangle-down"),
    ("X", "x"),
)
#: beyond as many series as there are colours, lines are dashed (matplotlib, plotly)
DASHES = (("-", "solid"), ("--", "dash"), (":", "dot"))
BAND = 0.16  # opacity
LABEL = 32  # characters of a line's label
MANY = 8  # lines, beyond which their labels are small and in one column


def limits_of(chart: Chart, panel: Panel) -> tuple[float, float]:
    """The span of all values and intervals on the panel's scale, as shown, with some air; 0 is in it, and 1 % of
    fractions, or all of them where bars are compared."""
    points = [
        p for other in chart.panels if other.scale == panel.scale for s in shown_series(chart, other) for p in s.points
    ]
    numbers = [scaled(panel, n) for p in points for n in (p.value, p.low, p.high) if math.isfinite(n)]
    least = 100.0 if chart.kind == "bars" else 1.0 if panel.unit == "fraction" else 0.0
    low, high = min([0.0, *numbers]), max([least, *numbers])
    air = 0.06 * (high - low or 1)
    return low - (air if low < 0 else 0), high + air


def shown_series(chart: Chart, panel: Panel) -> list[Series]:
    return panel.series[:2] if chart.kind == "bars" else panel.series


def bar_spans(panel: Panel) -> list[tuple[str, float, float]]:
    """Of a chart of bars: category, begin and end of each whose ends are both known."""
    first, second = ({str(p.x): scaled(panel, p.value) for p in s.points} for s in panel.series[:2])
    return [(x, first[x], second[x]) for x in second if x in first]


def scaled(panel: Panel, value: float) -> float:
    return 100 * value if panel.unit == "fraction" else value


def spread_out(ends: list[float], gap: float, low: float, high: float) -> list[float]:
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


def marker_of(i: int) -> tuple[str, str]:
    """Of series ``i``: another one whenever colours repeat."""
    return MARKERS[(i + i // len(MARKERS)) % len(MARKERS)]


def dash_of(i: int) -> tuple[str, str]:
    return DASHES[i // len(PALETTE) % len(DASHES)]


def shortened(label: str, most: int = 20) -> str:
    return label if len(label) <= most else label[: most - 1] + "…"


def is_logarithmic(chart: Chart, panel: Panel) -> bool:
    return bool(chart.ticks) and not panel.x_label


def line_ends(panel: Panel) -> list[tuple[Series, Point]]:
    """Each series that has a finite value, with its last such point."""
    finite = [(s, [p for p in s.points if math.isfinite(p.value)]) for s in panel.series]
    return [(s, points[-1]) for s, points in finite if points]


# ---- page -----------------------------------------------------------------------------------------------------------
