"""How a claim is judged, for benchmarks.forgotten and benchmarks.sizes.  Every difference is turned so that plus means
that the group is lost more::

    omission   group - base        bits retained, retention, ROUGE-1   base - group

The verdict is the interval's: ``replicated`` if all of it lies on the side that was published, ``opposite`` if all of
it lies on the other, ``not`` if 0 is inside, ``untold`` if there is none.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from mnemoscope import plugins
from mnemoscope.report import words
from mnemoscope.stats.compare import difference
from mnemoscope.stats.estimate import Sums

Row = dict[str, Any]

#: metric -> what it is called here, in the order of the page
READINGS = {
    "omission_anywhere": "by bag (lost anywhere)",
    "omission_in_place": "by alignment (lost in place)",
    "bits_retained": "by bits retained",
    "retention": "by retention",
}
PUBLISHED = {"omission_published": "as published: words lost, t-test", "rouge1": "as published: ROUGE-1"}
#: columns of the tallies
COLUMNS = [*READINGS.values(), "as published"]


def turned(row: Row, *, swapped: bool = False) -> Row:
    """A row of effects with value, low and high turned so that plus means: the group is lost more."""
    published = row["metric"] == "omission_published"  # no file of score/metrics/
    kept = not published and plugins.load("metric", row["metric"]).direction == "kept"
    if kept == swapped:
        return row
    return {**row, "value": -row["value"], "low": -row["high"], "high": -row["low"]}


def compared(group: Sums, base: Sums, confidence: float) -> Row:
    """The difference of two sums, turned: what the group loses more than the base."""
    found = difference(group, base, confidence=confidence)
    numbers = {c: getattr(found, c) for c in ("value", "low", "high", "n_documents", "method")}
    return turned({"metric": group.key["metric"], "unit": group.key["unit"], **numbers})


def verdict(row: Row | None) -> str:
    """The rule: where the whole interval lies."""
    if row is None or not math.isfinite(row["low"]):
        return "untold"
    return "replicated" if row["low"] > 0 else "opposite" if row["high"] < 0 else "not"


def effect(row: Row | None) -> str:
    if row is None:
        return "–"
    if not math.isfinite(row["low"]):
        why = row["method"].removeprefix("none: ") if row.get("method", "").startswith("none") else "no interval"
        return f"{words.number(row['value'], row['unit'])} ({why})"
    return f"{_signed(row)} ({words.interval(row)})"


def _signed(row: Row) -> str:
    return ("+" if row["value"] > 0 else "") + words.number(row["value"], row["unit"])


def tallied(rows: Iterable[tuple[str, Row | None]]) -> str:
    """The cells of ``COLUMNS``: how many rows, each with its metric, fell out how."""
    fallen: dict[str, Counter[str]] = {}
    for metric, row in rows:
        fallen.setdefault(READINGS.get(metric, COLUMNS[-1]), Counter())[verdict(row)] += 1

    def one(tally: Counter[str] | None) -> str:
        if not tally:
            return "–"
        known = " / ".join(str(tally[v]) for v in ("replicated", "not", "opposite"))
        return known + (f" (+ {tally['untold']} untold)" if tally["untold"] else "")

    return " | ".join(one(fallen.get(c)) for c in COLUMNS)
