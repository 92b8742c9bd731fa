"""The first sentences of the page, in plain words, made from the estimates and from nothing else.

What fares worst or best is named only where the intervals say so: where that of the named group, or of two named
groups together, lies wholly on one side of every other group's.  Groups of few documents are left out of that: their
intervals are too narrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from mnemoscope.config import Study
from mnemoscope.report import bracket as ends
from mnemoscope.report import words
from mnemoscope.report.groups import binned
from mnemoscope.stats.estimate import UNLABELLED

Row = dict[str, Any]
#: a sentence in parts: text, interval and n of the number that it ends with, text, and so on
Parts = list[str]
#: of groups named together, at most
_TOGETHER = 2
#: documents of a group that is compared, at least
FEW = 5
#: the length of windows that the first sentence is about, where it was measured; else the longest
_SPOKEN_OF = 64


@dataclass(frozen=True, slots=True)
class Extremes:
    """What fares worst and best of a grouping; empty where no interval says so."""

    by: str
    worst: list[str]
    best: list[str]


@dataclass(frozen=True, slots=True)
class Opening:
    """``before value after (interval)``, then the clauses, and the numbers behind each.

    Attributes:
        n: behind the value.
        measure: written_back, of the best reader of a bracket; retention; omission_in_place where nothing was measured
            without memory; or empty.
        clauses: what fares worst and best, each in parts: a text, the name of a group, a text, and so on.
        numbers: every number that the sentence rests on: what of, value, interval, n.
    """

    before: str
    value: str = ""
    after: str = ""
    interval: str = ""
    n: str = ""
    measure: str = ""
    clauses: list[Parts] = field(default_factory=list)
    numbers: list[tuple[str, str, str, str]] = field(default_factory=list)


def opening(estimates: pl.DataFrame, study: Study, decoders: list[str], bracket: pl.DataFrame | None = None) -> Opening:
    """What this memory keeps of windows of 64 tokens, or else the longest, and what fares worst and best.

    Args:
        estimates: by ``schema.ESTIMATES``.
        decoders: in the study's order; the first that has an estimate speaks, unless there is a bracket: then its best
            reader does, whoever it is, and the first decoder beside it.
        bracket: by ``schema.BRACKET``.
    """
    model = words.clipped(study.model.name, 80) if study.model else "the model"
    if bracket is not None and (read := ends.written_back(bracket)).filter(by="all").height:
        return _best_read(model, read.filter(length=spoken_of(read)), estimates, study, decoders)
    pooled = estimates.filter(seed="all", condition="memory").filter(pl.col("value").is_not_nan())
    for metric in ("retention", "omission_in_place"):
        for length in sorted(pooled["length"].unique(), key=_first_said, reverse=True):
            for decoder in decoders:
                cell = pooled.filter(metric=metric, length=length, decoder=decoder)
                for row in cell.filter(by="all").head(1).iter_rows(named=True):
                    return _said(model, row, cell)
    return Opening(f"What {model}’s memory keeps")


def _first_said(length: int) -> tuple[bool, int]:
    return length == _SPOKEN_OF, length


def spoken_of(bracket: pl.DataFrame) -> int:
    """The length of windows whose bracket the first sentence is about."""
    return max(bracket.filter(by="all")["length"], key=_first_said)


def _best_read(model: str, cell: pl.DataFrame, estimates: pl.DataFrame, study: Study, decoders: list[str]) -> Opening:
    """Args: cell: by :func:`mnemoscope.report.bracket.written_back`, of one length."""
    row = cell.filter(by="all").row(0, named=True)
    readers = ends.readers(row["decoders"], study)
    clauses, numbers = [], [("the best reader", *_three(row))]
    first = next((ends.named(d) for d in study.decoders if d.name in decoders[:1]), "")
    beside = ends.alone(estimates, decoders[0], row["length"]) if decoders and readers != [first] else None
    if beside:
        clauses.append(["", first, f" alone wrote back {words.number(beside['value'], 'fraction', 0)}"])
        numbers.append((f"{first} alone", *_three(beside)))
    classes, more = _compared(cell, 1)
    guessed = row["guessed"] > 0
    return Opening(
        before=f"Of {words.count(row['length'], 'token')}, the best reader of {model}’s memory, "
        f"{' or '.join(readers)}, wrote back",
        value=words.number(row["value"], row["unit"], 0),
        after=f"in place{', certain guesses left out' if guessed else ''}",
        interval=words.interval(row, 0),
        n=words.counted(row),
        measure=row["metric"],
        clauses=[*clauses, *classes],
        numbers=[*numbers, *more],
    )


def _compared(cell: pl.DataFrame, sign: int) -> tuple[list[Parts], list[tuple[str, str, str, str]]]:
    """The clauses of what fares worst and best of each grouping, and the numbers behind them."""
    found = [_extremes(cell.filter(by=by), by, sign) for by in _groupings(cell)]
    numbers = []
    for extremes in found:
        if extremes.worst or extremes.best:
            some = cell.filter(by=extremes.by).sort("value", "group", descending=[sign < 0, False])
            numbers += [(f"{extremes.by}: {r['group']}", *_three(r)) for r in some.iter_rows(named=True)]
    return [_clause(e) for e in found if e.worst or e.best], numbers


def _said(model: str, row: Row, cell: pl.DataFrame) -> Opening:
    keeps = row["metric"] == "retention"
    clauses, numbers = _compared(cell, 1 if keeps else -1)
    return Opening(
        before=f"After {words.count(row['length'], 'token')}, {model}’s memory {'gives back' if keeps else 'loses'}",
        value=words.number(row["value"], row["unit"], 0),
        after="of the information in what it read" if keeps else "of what it read from its place",
        interval=words.interval(row, 0),
        n=words.counted(row),
        measure=row["metric"],
        clauses=clauses,
        numbers=[("the whole", *_three(row)), *numbers],
    )


def _three(row: Row) -> tuple[str, str, str]:
    return words.number(row["value"], row["unit"]), words.interval(row), words.counted(row)


def _groupings(cell: pl.DataFrame) -> list[str]:
    """Classes of tokens, then kinds of text; no quantities, which have no worst but an end."""
    classes = [
        by
        for by in cell["by"].unique(maintain_order=True)
        if by not in ("all", "position", "domain", "dialect", "pair") and not binned(cell.filter(by=by)["group"])
    ]
    return [*classes, "domain"]


def _extremes(rows: pl.DataFrame, by: str, sign: int) -> Extremes:
    """Of the groups that have an interval to trust, the lowest and highest (by ``sign`` x value) that stand apart."""
    trusted = pl.col("low").is_not_nan() & (pl.col("n_documents") >= FEW)
    apart = rows.filter(trusted, pl.col("group") != UNLABELLED)
    groups = [
        (sign * r["value"], *sorted((sign * r["low"], sign * r["high"])), r["group"])
        for r in apart.iter_rows(named=True)
    ]
    groups.sort()
    worst = _standing_apart([(low, high, name) for _, low, high, name in groups])
    best = _standing_apart([(-high, -low, name) for _, low, high, name in reversed(groups)])
    return Extremes(by, worst, [] if set(best) & set(worst) else best)


def _standing_apart(groups: list[tuple[float, float, str]]) -> list[str]:
    """The first group, or the first two, whose intervals end before every other's begins; from the lowest."""
    for k in range(1, min(_TOGETHER, len(groups) - 1) + 1):
        if max(high for _, high, _ in groups[:k]) < min(low for low, _, _ in groups[k:]):
            return [name for _, _, name in groups[:k]]
    return []


def _clause(extremes: Extremes) -> Parts:
    """``of the kinds of text, | news | fares worst, | fiction | best``: text and name in turn."""
    what = "kinds of text" if extremes.by == "domain" else extremes.by.replace("_", " ")
    out = [f"of the {what}, "]
    for names, verdict in ((extremes.worst, "worst"), (extremes.best, "best")):
        if names:
            verb = "fare" if len(names) > 1 else "fares"
            if len(out) > 1:
                out[-1] += ", "
            for i, name in enumerate(names):
                out[-1] += " and " if i else ""
                out += [name, ""]
            out[-1] = f" {verdict}" if len(out) > 2 * len(names) + 1 else f" {verb} {verdict}"
    return out


def lede(
    estimates: pl.DataFrame, decoders: list[str], searched: Mapping[str, str] | None = None, spoken: int | None = None
) -> list[Parts]:
    """A few sentences that say the rest, of the first decoder.

    Args:
        searched: decoders that are the first one by another search, and which.
        spoken: length of windows of which the first sentence is about the best reader, whoever it is, if it is.
    """
    pooled = estimates.filter(pl.col("seed") == "all", pl.col("condition") == "memory", pl.col("value").is_not_nan())
    first = pooled.filter(pl.col("decoder").is_in(decoders[:1]))
    if first.is_empty():
        return []
    out: list[Parts] = []
    kept = first.filter(metric="retention", by="all").sort("length")
    if spoken and kept.height == 1:
        row = kept.row(0, named=True)
        head = f"Of {words.count(row['length'], 'token')} {ends.the(decoders[0])} gives back {_value(row)}"
        out.append([head, words.aside(row), " of the information."])
    elif kept.height > 1:
        both = [kept.row(i, named=True) for i in (0, -1)]
        shortest, longest = ((words.count(r["length"], "token"), _value(r), words.aside(r)) for r in both)
        head = f"Of {shortest[0]} {ends.the(decoders[0]) if spoken else 'it'} gives back {shortest[1]}"
        end = " of the information." if spoken else "."
        out.append([head, shortest[2], f", of {longest[0]} {longest[1]}", longest[2], end])
    length = max(first["length"])
    cell = {"by": "all", "decoder": decoders[0], "length": length, "metric": "omission_in_place"}
    lost, guessed = (_find(estimates, condition=c, **cell) for c in ("memory", "none"))
    if lost:
        sentence = [
            f"Written back{f' by {ends.the(decoders[0])}' if spoken else ''} from the memory alone, "
            f"{words.count(length, 'token')} lose {_value(lost)}",
            words.aside(lost),
            " from their place",
        ]
        if guessed:
            sentence[-1] += f"; with no memory at all, {_value(guessed)}"
            sentence += [words.aside(guessed), ""]
        sentence[-1] += "."
        out.append(sentence)
        others = [
            (_find(estimates, condition="memory", **cell | {"decoder": d}), s) for d, s in (searched or {}).items()
        ]
        less = [(row, search) for row, search in others if row and row["high"] < lost["low"]]
        if less and length != spoken:
            row, search = min(less, key=lambda one: one[0]["value"])
            said = f"Sought by ‘{words.clipped(search, 80)}’ from the same memory they lose {_value(row)}"
            out.append([said, words.aside(row), ": what is found so was not forgotten."])
    return out


def _value(row: Row) -> str:
    return words.number(row["value"], row["unit"])


def _find(estimates: pl.DataFrame, **key: Any) -> Row | None:
    """The estimate of a key, seeds pooled; None if there is none or it is NaN."""
    for row in estimates.filter(seed="all", **key).head(1).iter_rows(named=True):
        return row if row["value"] == row["value"] else None
    return None
