"""Differences between two sets of rows: two decoders over the same windows, two domains, two classes of tokens.

    difference = num_a / den_a - num_b / den_b, sums over documents        interval = difference -+ t_f sqrt(V)

V is the jackknife's over documents: leave one out of both sides at once where they share documents (what a document
does to both cancels: paired), or out of its own side where they share none.  Its degrees of freedom are those of
Student's and Welch's t, with the effective number of documents in place of their number
(:func:`mnemoscope.stats.bootstrap.effective`).  With one token a document it *is* the paired t-test's, or Welch's.  For
ratios of few documents it covers better than the bootstrap, whatever its flavour (MacKinnon, Nielsen & Webb 2023;
``benchmarks/coverage.py``).  Decoder seeds come on top, by :mod:`mnemoscope.stats.seeds`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import stats

from mnemoscope.config import Study
from mnemoscope.stats import seeds
from mnemoscope.stats.bootstrap import FloatArray, divide, effective
from mnemoscope.stats.estimate import Sums, sums
from mnemoscope.types import Estimate

_KEY = ["decoder", "condition", "length", "seed", "metric", "by", "group"]
_LN2 = math.log(2)


@dataclass(frozen=True, slots=True)
class Difference(Estimate):
    """An estimate with p, two-sided, of the hypothesis that it is 0; NaN where there is no interval.  p and interval
    agree: p < 1 - confidence where 0 is outside."""

    p: float


class _Side(NamedTuple):
    """What is measured of one set of rows: named columns of sums, each by document and by decoder seed."""

    documents: list[str]
    columns: FloatArray
    by_seed: FloatArray


def difference(a: Sums, b: Sums, *, confidence: float) -> Difference:
    """The metric of ``a`` less that of ``b``.

    ``n_documents`` counts the documents of either side, ``n_tokens`` the units of the smaller one.  The interval is
    NaN if a side has fewer than two documents, or no denominator without one of them.
    """

    def statistic(a: FloatArray, b: FloatArray) -> FloatArray:
        return divide(a[:, 0], a[:, 1]) - divide(b[:, 0], b[:, 1])

    return _compared(_side([a]), _side([b]), statistic, min(a.units, b.units), confidence)


def parts(
    a: tuple[Sums, Sums], b: tuple[Sums, Sums], *, confidence: float
) -> dict[str, Difference]:
    """A difference in bits retained a token, parted in two that add up to it (Kitagawa 1955; Oaxaca 1973).

    Bits retained = prior * share: the bits there were to retain, times the share of them that was retained::

        prior    the mean share  * (prior of a - prior of b)    a's tokens cost more to begin with
        share    the mean prior  * (share of a - share of b)    a's tokens are kept worse, whatever they cost

    Args:
        a, b: the sums of the metrics ``bits_retained`` and ``retention`` of either side.
    """

    def of(side: FloatArray) -> tuple[FloatArray, FloatArray]:
        tokens, saved, nats = side[:, 1], side[:, 2], side[:, 3]
        return divide(nats, tokens) / _LN2, divide(saved, nats)

    def prior(a: FloatArray, b: FloatArray) -> FloatArray:
        (prior_a, share_a), (prior_b, share_b) = of(a), of(b)
        return (share_a + share_b) / 2 * (prior_a - prior_b)

    def share(a: FloatArray, b: FloatArray) -> FloatArray:
        (prior_a, share_a), (prior_b, share_b) = of(a), of(b)
        return (prior_a + prior_b) / 2 * (share_a - share_b)

    units = min(a[0].units, b[0].units)
    left, right = _side(a), _side(b)
    return {f.__name__: _compared(left, right, f, units, confidence) for f in (prior, share)}


def _side(metrics: Sequence[Sums]) -> _Side:
    """num and den of each of the metrics, which were measured in the same documents."""
    first = metrics[0]
    assert all(m.documents == first.documents for m in metrics)
    columns = np.column_stack([c for m in metrics for c in (m.num, m.den)])
    return _Side(first.documents, columns, np.column_stack([m.by_seed for m in metrics]))


def _compared(
    a: _Side, b: _Side, statistic: Callable[[FloatArray, FloatArray], FloatArray], units: int, confidence: float
) -> Difference:
    """``statistic`` of the sums of both sides, each [m, columns] -> [m], with its interval."""
    documents = sorted({*a.documents, *b.documents})
    nan = math.nan
    if not (a.documents and b.documents):
        return Difference(nan, nan, nan, units, len(documents), "none: nothing was measured on one side", nan)
    sums_a, sums_b = a.columns.sum(0), b.columns.sum(0)
    value = float(statistic(sums_a[None], sums_b[None])[0])
    if min(len(a.documents), len(b.documents)) < 2:
        return Difference(value, nan, nan, units, len(documents), "none: fewer than two documents", nan)
    apart = set(a.documents).isdisjoint(b.documents)
    worth = [float(effective(side.columns[:, 1:2])[0]) - 1 for side in (a, b)]
    if apart:
        variances = [
            _jackknife(statistic(sums_a - a.columns, np.broadcast_to(sums_b, a.columns.shape))),
            _jackknife(statistic(np.broadcast_to(sums_a, b.columns.shape), sums_b - b.columns)),
        ]
        variance = sum(variances)
        with np.errstate(invalid="ignore", divide="ignore"):
            freedom = variance**2 / sum(np.divide(v**2, f) for v, f in zip(variances, worth, strict=True))
    else:
        left_out = statistic(sums_a - _placed(a, documents), sums_b - _placed(b, documents))
        variance, freedom = _jackknife(left_out), min(worth)
    of_seeds, n_seeds = _over_seeds(a, b, statistic)
    total, freedom = seeds.total(float(variance), float(freedom), of_seeds, n_seeds)
    if total == 0:
        half, p = 0.0, nan  # all documents agree to the last: no test, and no doubt that this sample could show
    else:
        half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(total)
        p = float(2 * stats.t.sf(abs(value) / math.sqrt(total), freedom)) if math.isfinite(half) else nan
    if not math.isfinite(half):
        why = "none: no denominator without one of the documents"
        return Difference(value, nan, nan, units, len(documents), why, nan)
    paired = "documents of each side apart" if apart else "paired by document"
    method = f"jackknife over documents, {paired}, t, {seeds.named(n_seeds)}"
    return Difference(value, value - half, value + half, units, len(documents), method, p)


def _jackknife(left_out: FloatArray) -> float:
    """The variance of a statistic of n documents, from its values without each of them."""
    n = len(left_out)
    return float((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())


def _placed(side: _Side, documents: list[str]) -> FloatArray:
    """The columns at the rows of ``documents``; 0 where the side lacks one."""
    place = {document: i for i, document in enumerate(documents)}
    out = np.zeros((len(documents), side.columns.shape[1]))
    out[[place[d] for d in side.documents]] = side.columns
    return out


def _over_seeds(
    a: _Side, b: _Side, statistic: Callable[[FloatArray, FloatArray], FloatArray]
) -> tuple[float, int]:
    """The variance over decoder seeds, and their number: pair by pair where both sides have as many, as the classes of
    one decoder's tokens have and two decoders trained alike; else each side's by itself."""
    n = (len(a.by_seed), len(b.by_seed))
    if n[0] == n[1]:
        return float(seeds.variance(statistic(a.by_seed, b.by_seed))), n[0]
    whole_a, whole_b = a.by_seed.sum(0), b.by_seed.sum(0)
    of_a = seeds.variance(statistic(a.by_seed, np.broadcast_to(whole_b, a.by_seed.shape)))
    of_b = seeds.variance(statistic(np.broadcast_to(whole_a, b.by_seed.shape), b.by_seed))
    # the larger number would promise degrees of freedom that the smaller has not
    return float(of_a + of_b), max(2, min(n))


def between(run_folder: Path, study: Study, metric: str, a: dict[str, Any], b: dict[str, Any]) -> pl.DataFrame:
    """The differences ``a`` less ``b`` wherever the rest of the key agrees, seeds pooled.

    Args:
        a, b: values of key columns that name the sides, over the same columns, e.g. ``{"decoder": "growing"}`` and
            ``{"decoder": "fixed"}``, or ``{"by": "domain", "group": "news"}`` and another group.

    Returns:
        a row per remaining key, sorted by it, with ``value, low, high, n_tokens, n_documents, method, p``.
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
        found = difference(sides[0][key], sides[1][key], confidence=wanted.confidence)
        numbers = {c: getattr(found, c) for c in ("value", "low", "high", "n_tokens", "n_documents", "method", "p")}
        out.append({**dict(zip(rest, key, strict=True)), **numbers})
    return pl.DataFrame(out)
