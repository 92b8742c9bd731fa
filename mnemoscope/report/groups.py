"""Tables -> charts by group: kinds of text, classes of tokens, places in the window, bins; differences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import cycle
from math import inf
from typing import Literal

import numpy as np
import polars as pl

from mnemoscope.report import published, words
from mnemoscope.report.charts import PALETTE, SHOWN, Chart, Panel, Point, Series, band, series
from mnemoscope.report.lengths import drawn
from mnemoscope.stats.estimate import UNLABELLED

_NUMBER = r"\d+(?:\.\d+)?(?:e[-+]\d+)?"
#: a bin as the annotations of quantities name it: ``2-4 bits``, ``8+ bits``, and what was never seen
_BIN = re.compile(rf"({_NUMBER})(?:-({_NUMBER})|\+)( .*)?|(unseen|under \d+ times)")
_TITLES = {
    "position": "By place in the window",
    "pos": "By part of speech",
    "entity": "By named entity",
    "surprisal": "By surprisal",
    "frequency": "By frequency",
}


def by_group(by: str, rows: pl.DataFrame, colour: dict[str, str], effects: pl.DataFrame | None = None) -> Chart:
    """What is kept and lost of each group, a tab per length.

    Args:
        rows: estimates ``by``, with the column ``line``: what each belongs to, a condition or a model.
        colour: the lines in their order, the first of which decides the order of the groups.
        effects: by ``schema.EFFECTS``, with ``line`` too; its published test gives what the published rates lie beside.
    """
    panels: list[Panel] = []
    bins = None if by == "position" else _bins(rows["group"].unique().to_list())
    if bins is not None:
        rows = rows.filter(pl.col("group").is_in(list(bins)))
    for length in rows["length"].unique().sort():
        at_length = rows.filter(pl.col("length") == length)
        tab = f"{length} tokens"
        groups = list(bins or _ordered(at_length, by, next(iter(colour))))
        for metric in SHOWN:
            some = at_length.filter(pl.col("metric") == metric)
            found = []
            for line in colour:
                mine = some.filter(pl.col("line") == line, pl.col("condition").is_in(drawn(metric, some)))
                if mine.height:
                    found.append(_placed(by, mine, line, colour[line], groups, bins is not None))
            if found:
                names = tuple((bins or {}).values())
                panels.append(Panel(words.name(metric), metric, some["unit"][0], found, tab, names=names))
        if by == "position":
            panels += _losses(at_length, colour, tab)
        elif effects is not None:
            panels += _published(by, effects.filter(pl.col("length") == length), colour, groups, tab)
        if by == "surprisal" and length == published.PASSAGES:
            panels.append(published.by_perplexity(tab))
    kind: Literal["lines", "dots"] = "lines" if by == "position" or bins is not None else "dots"
    label = "position in the window" if by == "position" else _unit(by, rows["group"]) if bins is not None else ""
    title = _TITLES.get(by, f"By {by.replace('_', ' ')}")
    aside = "How far a wrong memory misleads is listed under Every estimate." if "wrong" in colour else ""
    caption = _caption(by, panels, bins is not None)
    return Chart(f"by-{by}", title, caption, kind, label, panels, band(rows), aside=aside)


def _caption(by: str, panels: list[Panel], binned: bool) -> str:
    if by == "position":
        text = "Position 0 was read first, and had most to survive."
        if any(p.scale.startswith("share") for p in panels):
            text += (
                " The share of all losses that fall in a bin has no interval; of a token that occurs several times, it"
                " takes the last for the lost ones."
            )
        if any(s.label.startswith("published") for p in panels for s in p.series):
            text += f" Published ({published.SOURCE}): omitted tokens by position."
    elif binned:
        text = "Tokens without a label are left out."
        if any(s.label == "published" for p in panels for s in p.series):
            text += (
                f" Published ({published.SOURCE}): passages of {published.PASSAGES} tokens by their perplexity, "
                "which is another quantity than a token’s surprisal; bins of fewer than 10 passages are left out."
            )
    else:
        text = "Sorted by what the memory keeps, the worst kept below."
        if any(p.scale == "omission_published" for p in panels):
            text += " " + published.OMISSION
        elif by in ("pos", "entity"):
            text += f" The published rates ({published.SOURCE}) are of words by another measure, and not comparable."
    return text


def _placed(by: str, rows: pl.DataFrame, label: str, colour: str, groups: list[str], binned: bool) -> Series:
    """The rows at their places: the middle of a stretch of positions, the number of a bin, or the group's name."""
    if by == "position":
        ends = [_ends(g) for g in rows["group"]]
        order = np.argsort([lo for lo, _ in ends])
        return series(rows[order], label, colour, [sum(ends[i]) / 2 for i in order])
    ordered = rows.sort(pl.col("group").replace_strict(groups, range(len(groups))))
    return series(ordered, label, colour, [groups.index(g) if binned else g for g in ordered["group"]])


def _ends(group: str) -> tuple[int, int]:
    low, high = group.split("-")
    return int(low), int(high)


def _ordered(rows: pl.DataFrame, by: str, line: str) -> list[str]:
    """The groups, the worst kept first; by name where nothing says what is kept."""
    if by == "position":
        return []
    for metric, sign in (("retention", 1), ("omission_in_place", -1)):
        some = rows.filter(metric=metric, condition="memory", line=line)
        if some.height:
            kept = {g: sign * v for g, v in some.select("group", "value").rows()}
            return sorted(set(rows["group"]), key=lambda g: (np.nan_to_num(kept.get(g, np.inf), nan=np.inf), g))
    return sorted(set(rows["group"]))


# ---- bins -----------------------------------------------------------------------------------------------------------


def binned(groups: Iterable[str]) -> bool:
    """Whether the groups are bins of one quantity."""
    return _bins(list(dict.fromkeys(groups))) is not None


def _bins(groups: list[str]) -> dict[str, str] | None:
    """The groups that are bins of one quantity, rising, with their short names; None if they are no such thing."""
    found = {g: _BIN.fullmatch(g) for g in groups if g != UNLABELLED}
    if (
        len(found) < 2
        or any(m is None for m in found.values())
        or len({m[3] for m in found.values() if m and m[1]}) != 1
    ):
        return None
    order = sorted(found, key=lambda g: float(m[1]) if (m := found[g]) and m[1] else -inf)
    return {g: _short(m) for g in order if (m := found[g])}


def _short(found: re.Match[str]) -> str:
    """``100-1000 per million`` -> 100–1k."""
    low, high, _, other = found.groups()
    if other:
        return str(other)
    return f"{_number(low)}–{_number(high)}" if high else f"{_number(low)}+"


def _number(text: str) -> str:
    value = float(text)
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _unit(by: str, groups: pl.Series) -> str:
    units = {m[3].strip() for g in groups.unique() if (m := _BIN.fullmatch(g)) and m[3]}
    return ", ".join([by.replace("_", " "), *sorted(units)])


# ---- beside what was published --------------------------------------------------------------------------------------


def _losses(rows: pl.DataFrame, colour: dict[str, str], tab: str) -> list[Panel]:
    """Where the lost tokens stood: of all tokens lost anywhere, the share in each bin of positions."""
    found = []
    bins: list[tuple[int, int]] = []
    for line in colour:
        mine = rows.filter(line=line, metric="omission_anywhere", condition="memory")
        mine = mine.sort(pl.col("group").str.split("-").list.first().cast(pl.Int64))
        # a token is counted once, however many seeds read it: value x tokens is their mean number of losses
        lost = (mine["value"] * mine["n_tokens"]).to_numpy()
        if mine.height and lost.sum() > 0:
            bins = [_ends(g) for g in mine["group"]]
            points = [
                Point(sum(ends) / 2, value, np.nan, np.nan, words.counted(row))
                for ends, value, row in zip(bins, lost / lost.sum(), mine.iter_rows(named=True), strict=True)
            ]
            found.append(Series(line, colour[line], points))
    if not found:
        return []
    found += published.losses(bins, rows["length"][0])
    return [Panel("share of all tokens lost anywhere", f"share, {tab}", "fraction", found, tab)]


def _published(by: str, effects: pl.DataFrame, colour: dict[str, str], groups: list[str], tab: str) -> list[Panel]:
    """Omission of words by the published definition, ours and theirs."""
    found = []
    for line in colour:
        pairs = effects.filter(by=by, kind="paper", condition="memory", line=line)
        if pairs.height:
            found.append(Series(line, colour[line], _rates(pairs, groups)))
    if not found:
        return []
    theirs = published.omission(by, effects["length"][0], groups)
    return [Panel(words.name("omission_published"), "omission_published", "fraction", found + theirs, tab)]


def _rates(pairs: pl.DataFrame, groups: list[str]) -> list[Point]:
    """The published omission rate of each class, from the comparisons of every two.

    A comparison tells how many words both classes have; of three classes, that is each one's number.
    """
    rate: dict[str, float] = {}
    both: dict[frozenset[str], int] = {}
    for row in pairs.iter_rows(named=True):
        rate |= {row["group"]: row["group_value"], row["base"]: row["base_value"]}
        both[frozenset((row["group"], row["base"]))] = row["n_tokens"]

    def note(group: str) -> str:
        others = [g for g in rate if g != group][:2]
        if len(others) < 2:
            return f"{words.count(sum(both.values()), 'word')} of both"
        n = sum(both[frozenset((group, other))] for other in others) - both[frozenset(others)]
        return words.count(n // 2, "word")

    return [Point(g, rate[g], np.nan, np.nan, note(g)) for g in groups if g in rate]


# ---- differences ----------------------------------------------------------------------------------------------------


def of_effects(effects: pl.DataFrame) -> list[Chart]:
    """A chart for each ``by``: every group with the base, as it is, with controls held constant, and as published.

    Args:
        effects: by ``schema.EFFECTS``; of several decoders the first is shown.
    """
    charts = []
    for by in map(str, dict.fromkeys(effects["by"])):
        rows = effects.filter(by=by, condition="memory").filter(pl.col("kind").is_in(["plain", "adjusted", "paper"]))
        rows = rows.filter(pl.col("decoder") == pl.col("decoder").first(), pl.col("value").is_not_nan())
        bases = _bases(rows)
        shown = rows.join(bases, on=bases.columns, how="semi", maintain_order="left")
        if shown.is_empty():
            continue
        base_of = dict(bases.rows())
        held = list(dict.fromkeys(shown.filter(kind="adjusted")["controls"]))
        lines = {("plain", ""): "as it is"}
        lines |= {("adjusted", h): "controls held constant" if len(held) == 1 else f"with {h} held" for h in held}
        lines |= {("paper", ""): "as published"}
        colour = {("plain", ""): "#767676", ("paper", ""): "#D55E00"}
        others = (c for c in PALETTE if c != colour["paper", ""])
        colour |= {("adjusted", h): c for h, c in zip(held, cycle(others), strict=False)}
        panels = []
        for (length, metric), cell in _cells(shown):
            found = []
            for (kind, controls), label in lines.items():
                some = cell.filter(kind=kind, controls=controls).sort("value", "group")
                if some.height:
                    found.append(series(some, label, colour[kind, controls], some["group"].to_list()))
            title = f"{words.name(metric)}, less that of {base_of[cell['length'][0]]}"
            panels.append(Panel(title, metric, cell["unit"][0], found, length))
        charts.append(
            Chart(
                "effects-" + by,
                f"Differences by {by.replace('_', ' ')}",
                _of_differences(shown, list(base_of.values()), held, effects["decoder"].unique().len() > 1),
                "dots",
                "",
                panels,
                # neither the jackknife nor the regression resamples, and the published test knows no documents
                f"{100 * effects['confidence'][0]:g}\u202f% interval by documents"
                + (", as published by words taken for independent" if "paper" in shown["kind"] else ""),
            )
        )
    return charts


def _bases(rows: pl.DataFrame) -> pl.DataFrame:
    """Of each ``length`` the ``base`` that the others are compared with there: the one that most plain rows have, which
    each kind of difference has too.  Of places in the window every length has its own."""
    plain = rows.filter(kind="plain").group_by("length", "base").len().sort("length", "len", "base")
    return plain.group_by("length", maintain_order=True).agg(pl.col("base").last())


def _of_differences(shown: pl.DataFrame, bases: list[str], held: list[str], several: bool) -> str:
    """The caption of a chart of differences."""
    one = len(set(bases)) == 1
    text = f"Each group less {bases[0]}; 0 is no difference." if one else "Each group less one; 0 is no difference."
    if held:
        text += f" Held constant: {held[0]}, and the length." if len(held) == 1 else " The length is held constant too."
    if several:
        text += f" Decoder {shown['decoder'][0]}; those of the others are listed under Every difference."
    alone = shown.filter(pl.col("low").is_nan())
    if alone.height:
        why = ", ".join(dict.fromkeys(m.removeprefix("none: ") for m in alone["method"]))
        text += f" A point without a bar has no interval, which is not a narrow one: {why}."
    return text


def _cells(rows: pl.DataFrame) -> Iterable[tuple[tuple[str, str], pl.DataFrame]]:
    """(length in words, metric) -> rows; the published omission lies beside our own from their place."""
    shown = rows.with_columns(metric=pl.col("metric").replace("omission_published", "omission_in_place"))
    for (length, metric), cell in shown.group_by("length", "metric", maintain_order=True):
        yield (f"{length} tokens", str(metric)), cell
