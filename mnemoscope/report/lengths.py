"""Tables -> charts by window length: what is kept and lost, by decoder, model, kind of text and dialect; learning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import polars as pl

from mnemoscope.report import published, words
from mnemoscope.report.charts import OTHERS, PALETTE, Chart, Panel, Point, Series, band, colours, conditions, series

#: colour of what is certainly lost
FLOOR = "#117733"
_NO_FLOOR = (
    "What no decoder could write back is not known of this run: mnemoscope bracket RUN finds it, and then it is drawn "
    "here."
)
#: points of a learning curve
_CURVE_POINTS = 80
#: what is shown by length in a paper, the last as the published curves have it
MEASURES = ("retention", "omission_in_place", "rouge1")


def _chart(name: str, title: str, caption: str, panels: list[Panel], of: pl.DataFrame, aside: str = "") -> Chart:
    lengths = sorted({float(p.x) for panel in panels for s in panel.series for p in s.points})
    return Chart(name, title, caption, "lines", "window length, tokens", panels, band(of), tuple(lengths), aside)


def drawn(metric: str, estimates: pl.DataFrame) -> list[str]:
    """The conditions to draw: a wrong memory misleads by more than a right one tells, and would hide what is kept."""
    return [c for c in conditions(estimates) if (metric, c) != ("retention", "wrong")]


def lines(rows: pl.DataFrame, column: str, labels: Iterable[str], colour: dict[str, str]) -> list[Series]:
    """Against length, a line for each of ``labels`` that ``column`` holds."""
    out = []
    for label in labels:
        some = rows.filter(pl.col(column) == label).sort("length")
        if some.height:
            out.append(series(some, label, colour[label], some["length"].to_list()))
    return out


def kept(estimates: pl.DataFrame, decoders: list[str]) -> Chart:
    """The forgetting curve: retention by length, a panel for each decoder, a line for each condition."""
    panels = _by_decoder(("retention",), "retention", estimates, decoders)
    caption = (
        "Share of the information in the window that the memory gave back to its decoder: at least so much is held. "
        "What guessing gives (‘none’) is 0 by definition."
    )
    aside = "How far a wrong memory misleads is under In numbers." if "wrong" in set(estimates["condition"]) else ""
    return _chart("retention", "The forgetting curve", caption, panels, estimates, aside)


def lost(estimates: pl.DataFrame, decoders: list[str], floor: pl.DataFrame | None) -> Chart:
    """What the reconstruction lacks, by length, between what guessing loses and what is certainly lost.

    Args:
        floor: estimates of ``certainly_lost`` by length, at one precision of storage, if there are any.
    """
    panels = _by_decoder(("omission_in_place", "omission_anywhere"), "omission", estimates, decoders)
    caption = (
        "Share of the window’s tokens that the reconstruction lacks: from their place (in order), or anywhere in it. "
        "At most so much is forgotten; the line ‘none’ is what guessing loses."
    )
    if floor is not None:
        known = floor.filter(pl.col("length").is_in(estimates["length"].unique().implode())).sort("length")
        if known.height:
            label = f"certainly lost, {known['condition'][0]}"
            found = series(known, label, FLOOR, known["length"].to_list())
            panels = [
                replace(p, series=[*p.series, found]) if p.title.startswith(words.name("omission_in_place")) else p
                for p in panels
            ]
            caption += (
                " No decoder can write back what is ‘certainly lost’: another token there leaves the same memory. What "
                f"lies between it and ‘memory’ is open. It was found on {words.spans(p.note for p in found.points)}."
            )
    aside = "" if floor is not None else _NO_FLOOR
    return _chart("omission", "What is lost, at most and at least", caption, panels, estimates, aside)


def _by_decoder(metrics: tuple[str, ...], scale: str, estimates: pl.DataFrame, decoders: list[str]) -> list[Panel]:
    """Conditions by length, a panel for each decoder and metric."""
    colour = colours(conditions(estimates))
    panels = []
    for decoder in decoders:
        for metric in metrics:
            rows = estimates.filter(pl.col("metric") == metric, pl.col("decoder") == decoder)
            if rows.height:
                of = f", decoder {decoder}" if len(decoders) > 1 else ""
                found = lines(rows, "condition", drawn(metric, rows), colour)
                panels.append(Panel(words.name(metric) + of, scale, rows["unit"][0], found))
    return panels


def beside_published(name: str, title: str, of: dict[str, pl.DataFrame], metrics: tuple[str, ...]) -> Chart | None:
    """Conditions by length; of one model, the published ROUGE-1 beside ours (of several, see :func:`sizes`).

    Args:
        of: estimates of whole windows, by model; each has a tab if there are several.
    """
    panels = []
    for tab, estimates in of.items():
        colour = colours(conditions(estimates))
        for metric in metrics:
            rows = estimates.filter(pl.col("metric") == metric)
            found = lines(rows, "condition", drawn(metric, rows), colour)
            if found:
                panels.append(Panel(words.name(metric), metric, rows["unit"][0], found, tab if len(of) > 1 else ""))
    beside = len(of) == 1 and bool(panels) and panels[-1].scale == "rouge1"
    if beside:
        panels += published.rouge("length")
    every = pl.concat(of.values())
    if not panels:
        return None
    caption = "What the decoder gave back of windows of each length. ‘None’ is what guessing gives."
    if beside:
        caption += " " + published.ROUGE
    return _chart(name, title, caption, panels, every)


def sizes(of: dict[str, pl.DataFrame]) -> Chart:
    """Models side by side under the real memory, smallest first, and the published ones.

    Args:
        of: estimates of whole windows, by model.
    """
    rows = pl.concat(e.filter(condition="memory").with_columns(line=pl.lit(label)) for label, e in of.items())
    panels = _panels(rows, "line", list(of))
    if "rouge1" in {p.scale for p in panels}:
        panels += published.rouge("length")
    caption = f"Models by their number of parameters, the same texts. {published.ROUGE}"
    return _chart("size", "Size of the model, by length", caption, panels, rows)


def groups_by_length(by: str, of: dict[str, pl.DataFrame]) -> Chart | None:
    """Kinds of text (``domain``) or dialects (``dialect``, ``pair``) by length under the real memory, and the published
    ones.

    Args:
        of: estimates ``by``, by model; each has a tab if there are several.
    """
    what = "domain" if by == "domain" else "dialect"
    panels = []
    for tab, estimates in of.items():
        rows = estimates.filter(condition="memory")
        here = _panels(rows, "group", sorted(set(rows["group"])), tab if len(of) > 1 else "")
        panels += here
    if not panels:
        return None
    every = pl.concat(of.values())
    caption = "Under the real memory."
    if by == "pair":
        caption += " Texts of a pair say the same; of each pair as many windows of either side are counted."
    if "rouge1" in {p.scale for p in panels}:
        panels += published.rouge(what)
        caption += f" {published.ROUGE}"
    title = {"domain": "Kind of text, by length", "dialect": "Dialect, by length"}[what]
    return _chart(f"{what}-length", title, caption, panels, every)


def _panels(rows: pl.DataFrame, column: str, labels: list[str], tab: str = "") -> list[Panel]:
    """A panel for each of ``MEASURES``, a line for each label."""
    colour = dict(zip(labels, (PALETTE[i % len(PALETTE)] for i in range(len(labels))), strict=True))
    panels = []
    for metric in MEASURES:
        some = rows.filter(pl.col("metric") == metric)
        found = lines(some, column, labels, colour)
        if found:
            panels.append(Panel(words.name(metric), metric, some["unit"][0], found, tab))
    return panels


def decoders_compared(estimates: pl.DataFrame, decoders: list[str]) -> Chart | None:
    """The decoders side by side, under the real memory."""
    if len(decoders) < 2:
        return None
    colour = dict(zip(decoders, ("#0072B2", *OTHERS, *["#767676"] * len(decoders)), strict=False))
    panels = []
    for metric in MEASURES[:2]:
        rows = estimates.filter(pl.col("metric") == metric, pl.col("condition") == "memory")
        found = lines(rows, "decoder", decoders, colour)
        if found:
            panels.append(Panel(words.name(metric), metric, rows["unit"][0], found))
    caption = "The same windows and the same memories. What one decoder reads and another does not was in the memory."
    return _chart("decoders", "One memory, read by several decoders", caption, panels, estimates)


def learning(curves: pl.DataFrame, decoders: list[str]) -> Chart:
    """Loss against tokens seen; a tab per length, a panel per decoder, a line per condition."""
    rows = curves.filter(pl.col("decoder").is_in(decoders))
    colour = colours(conditions(rows))
    panels = []
    for length in rows["length"].unique().sort():
        for decoder in decoders:
            here = rows.filter(pl.col("length") == length, pl.col("decoder") == decoder)
            curve = [Series(c, colour[c], _smoothed(here.filter(pl.col("condition") == c))) for c in conditions(here)]
            if curve:
                title = "loss, nats per token" + (f", decoder {decoder}" if len(decoders) > 1 else "")
                panels.append(Panel(title, "loss", "nats/token", curve, f"{length} tokens"))
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
