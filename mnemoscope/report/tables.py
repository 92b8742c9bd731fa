r"""Charts -> tables: each panel with values, intervals and n, as Markdown and as LaTeX.

    Markdown   a cell holds all three          52.3 % (50.1 to 54.6) <sub>2,304 tokens, 12 documents</sub>
    LaTeX      they stand below each other     52.3 / {\scriptsize 50.1 to 54.6} / {\scriptsize 2,304 / 12}

LaTeX needs booktabs.  Whatever has more of them, places or series, goes down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mnemoscope.report import words
from mnemoscope.report.charts import Chart, Panel, Point, named

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "−": "$-$",
    "–": "--",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "\u202f": r"\,",
    "\u00a0": "~",
}


def markdown(chart: Chart) -> Iterator[str]:
    """Lines: a table per panel, under its title."""
    for panel in chart.panels:
        yield f"### {_title(panel)}\n"
        head, rows = _grid(chart, panel)
        yield "| " + " | ".join(map(_cell, head)) + " |"
        yield "| --- " + "| ---: " * (len(head) - 1) + "|"
        for name, points in rows:
            cells = [_cell(name), *(_in_markdown(p, panel.unit) for p in points)]
            yield "| " + " | ".join(cells) + " |"
        yield ""


def _cell(text: str) -> str:
    r"""``|`` would end a cell, a line break the row, and ``<`` begin a tag."""
    return re.sub(r"\s+", " ", text).replace("\\", "\\\\").replace("|", r"\|").replace("<", "&lt;")


def _in_markdown(point: Point | None, unit: str) -> str:
    if point is None:
        return ""
    ends = _interval(point, unit)
    return words.number(point.value, unit) + (f" ({ends})" if ends else "") + f" <sub>{point.note}</sub>"


def latex(chart: Chart) -> str:
    """A ``table`` per panel, with caption and label."""
    return "\n".join(["% needs \\usepackage{booktabs}", *(_table(chart, i) for i in range(len(chart.panels)))])


def _table(chart: Chart, number: int) -> str:
    panel = chart.panels[number]
    head, rows = _grid(chart, panel)
    percent = ", percent" if panel.unit == "fraction" else f", {panel.unit}"
    counted = {_nouns(p.note) for _, points in rows for p in points if p is not None and _interval(p, panel.unit)}
    caption = f"{chart.title}: {_title(panel)}{percent}. {chart.caption}"
    caption += f" In brackets: {chart.band}." if counted else ""
    caption += f" Below: {'; '.join(sorted(counted))}." if counted else ""
    lines = [
        r"\begin{table}",
        r"\centering\footnotesize",
        rf"\caption{{{escaped(caption)}}}",
        rf"\label{{tab:{re.sub('[^A-Za-z0-9-]', '-', chart.name)}-{number + 1}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(map(escaped, head)) + r" \\",
        r"\midrule",
    ]
    for i, (name, points) in enumerate(rows):
        ends = [_interval(p, panel.unit) if p is not None else "" for p in points]
        counts = [_counts(p.note) if p is not None and e else "" for p, e in zip(points, ends, strict=True)]
        values = ["" if p is None else words.number(p.value, panel.unit).removesuffix(words.PERCENT) for p in points]
        lines.append(" & ".join(map(escaped, [name, *values])) + r" \\")
        for small in ([f"[{e}]" if e else "" for e in ends], counts):
            if any(small):
                lines.append(" & ".join(["", *(rf"{{\scriptsize {escaped(s)}}}" if s else "" for s in small)]) + r" \\")
        if i + 1 < len(rows) and any(ends):
            lines.append(r"\addlinespace")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def escaped(text: str) -> str:
    """As LaTeX shows it."""
    return "".join(_LATEX.get(c, c) for c in re.sub(r"[^\S\u202f\u00a0]+", " ", text))


def _title(panel: Panel) -> str:
    return panel.title + (f", {panel.tab}" if panel.tab else "")


def _interval(point: Point, unit: str) -> str:
    """Without percent signs; empty if there is none."""
    if point.low != point.low:
        return ""
    low, high = (words.number(end, unit).removesuffix(words.PERCENT) for end in (point.low, point.high))
    return f"{low} to {high}"


def _counts(note: str) -> str:
    """``2,304 tokens, 12 documents`` -> ``2,304 / 12``."""
    return " / ".join(part.split(" ")[0] for part in note.split(", "))


def _nouns(note: str) -> str:
    """``2,304 tokens, 12 documents`` -> ``tokens / documents``."""
    nouns = [part.partition(" ")[2] for part in note.split(", ")]
    return " / ".join(noun if noun.endswith("s") else noun + "s" for noun in nouns)


def _grid(chart: Chart, panel: Panel) -> tuple[list[str], list[tuple[str, list[Point | None]]]]:
    """Heads of the columns, and the rows with theirs; None where a series has no such point."""
    places = list(dict.fromkeys(p.x for s in panel.series for p in s.points))
    if not any(isinstance(x, str) for x in places):
        places.sort(key=float)
    elif chart.kind == "dots":
        places.reverse()  # as the figure has them from above
    at = {(s.label, p.x): p for s in panel.series for p in s.points}
    labels = [s.label for s in panel.series]
    what = panel.x_label or chart.x_label
    if len(labels) > len(places):
        rows = [(label, [at.get((label, x)) for x in places]) for label in labels]
        return [what, *(named(panel, x) for x in places)], rows
    return [what, *labels], [(named(panel, x), [at.get((label, x)) for label in labels]) for x in places]
