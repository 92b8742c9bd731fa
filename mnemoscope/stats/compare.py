"""The difference of one metric between two sets of rows: two decoders over the same windows, or two domains.

Where documents are shared, both sides are resampled together, so what a document does to both cancels; where none is
shared, each side is resampled by itself.  The interval is that of :mod:`mnemoscope.stats.bootstrap`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mnemoscope.config import Study
from mnemoscope.stats.bootstrap import FloatArray, divide, generator, intervals, resample
from mnemoscope.stats.estimate import Sums, sums
from mnemoscope.types import Estimate

_KEY = ["decoder", "condition", "length", "seed", "metric", "by", "group"]


def difference(a: Sums, b: Sums, *, seed: int, confidence: float, resamples: int) -> Estimate:
    """The metric of ``a`` less that of ``b``.

    ``n_documents`` counts the documents of either side, ``n_tokens`` the units of the smaller one.  The interval is
    NaN if a side has fewer than two documents, or no denominator in some resample.
    """
    documents = sorted({*a.documents, *b.documents})
    units = min(a.units, b.units)
    if not (a.documents and b.documents):
        return Estimate(np.nan, np.nan, np.nan, units, len(documents), "none: nothing was measured on one side")
    value = a.num.sum() / a.den.sum() - b.num.sum() / b.den.sum()
    if min(len(a.documents), len(b.documents)) < 2:
        return Estimate(value, np.nan, np.nan, units, len(documents), "none: fewer than two documents")
    apart = set(a.documents).isdisjoint(b.documents)
    strata = [a.documents, b.documents] if apart else [documents]
    total = np.zeros((resamples, 4))
    columns = [_columns(a, b, stratum) for stratum in strata]
    for stratum, table in zip(strata, columns, strict=True):
        total += resample(table, resamples, generator(seed, stratum))
    everything = sum(table.sum(0) for table in columns)
    found = intervals(
        _difference(everything[None, :])[0],
        _difference(total),
        [_difference(everything - table) for table in columns],
        confidence,
    )
    paired = "documents of each side apart" if apart else "paired by document"
    method = f"{found.method[0]}, {paired}"
    return Estimate(float(value), float(found.low[0]), float(found.high[0]), units, len(documents), method)


def _columns(a: Sums, b: Sums, documents: list[str]) -> FloatArray:
    """num and den of a and of b [n, 4] for ``documents``; 0 where a side lacks one."""
    place = {document: i for i, document in enumerate(documents)}
    out = np.zeros((len(documents), 4))
    for side, first in ((a, 0), (b, 2)):
        here = [(place[d], i) for i, d in enumerate(side.documents) if d in place]
        for row, i in here:
            out[row, first], out[row, first + 1] = side.num[i], side.den[i]
    return out


def _difference(totals: FloatArray) -> FloatArray:
    """[R, 4] -> [R, 1]"""
    difference: FloatArray = divide(totals[:, 0:1], totals[:, 1:2]) - divide(totals[:, 2:3], totals[:, 3:4])
    return difference


def between(run_folder: Path, study: Study, metric: str, a: dict[str, Any], b: dict[str, Any]) -> pl.DataFrame:
    """The differences ``a`` less ``b`` wherever the rest of the key agrees, seeds pooled.

    Args:
        a, b: values of key columns that name the sides, over the same columns, e.g. ``{"decoder": "growing"}`` and
            ``{"decoder": "fixed"}``, or ``{"by": "domain", "group": "news"}`` and another group.

    Returns:
        a row per remaining key, sorted by it, with ``value, low, high, n_tokens, n_documents, method``.
    """
    wanted = study.estimate
    grouping = a.get("by", "all")
    sides: list[dict[tuple[Any, ...], Sums]] = []
    rest = [c for c in _KEY if c not in a]
    rows = list(sums(run_folder, [grouping], wanted.position_bins, [metric]))
    for side in (a, b):
        chosen = [r for r in rows if r.key["seed"] == "all" and all(r.key[c] == v for c, v in side.items())]
        sides.append({tuple(r.key[c] for c in rest): r for r in chosen})
    out = []
    for key in sorted(sides[0].keys() & sides[1].keys()):
        found = difference(
            sides[0][key],
            sides[1][key],
            seed=study.seed,
            confidence=wanted.confidence,
            resamples=wanted.resamples,
        )
        numbers = {c: getattr(found, c) for c in ("value", "low", "high", "n_tokens", "n_documents", "method")}
        out.append({**dict(zip(rest, key, strict=True)), **numbers})
    return pl.DataFrame(out)
